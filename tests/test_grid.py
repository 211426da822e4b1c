"""The inner loop by rank, learning rate and epochs over an engine in plain Python, every cell against an inner loop of
its own, and what the report makes of it. No model is loaded."""

import json
from dataclasses import replace

import numpy as np
import pytest
from etils import epath
from plain_engine import PlainEngine, Thing, Things, likelihood, plain_actor, speaks, trained
from tiny_run import pick

from seal_jax import config, seeds
from seal_jax.domains.domain import Control
from seal_jax.errors import UserError
from seal_jax.experiments import assemble, grid
from seal_jax.experiments.world import World
from seal_jax.report import figures, html, terminal
from seal_jax.report import grid as tables
from seal_jax.report.recorded import load
from seal_jax.report.tables import lines
from seal_jax.student.train import Loop, candidate

ITEMS = tuple(
    Thing(name, title, completions=(f"{title} by a file",))
    for name, title in zip("abc", ("One", "Two", "Three"), strict=True)
)
CELLS = [(rate, epochs) for rate in (0.25, 2.0) for epochs in (1, 3)]


def after(loop, start):
    """The number of an adapter after an inner loop, which depends on the learning rate here."""
    return trained(loop, start) + loop.learning_rate


class Rated(PlainEngine):
    def finetune(self, base, candidates, recipe):
        self.loras.append(recipe.lora)
        _, losses = super().finetune(base, candidates, recipe)
        return {"w": np.array([after(one, float(base["w"])) for one in candidates])}, losses


class Ruled(Things):
    def controls(self):
        return [*super().controls(), Control("passage only", lambda item, k: item.title, domain=Twice())]

    def shown(self, item):
        questions = [{"question": q, "answer": a, "heldout": h} for q, a, h in item.questions]
        return super().shown(item) | {"context": "A text.", "questions": questions}


class Twice(Things):
    def lesson(self, item, text, seed, length):
        return super().lesson(item, f"{text}\n{text}", seed, length)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(fields of config.grid, **others) -> (setup, rows); a second call continues the first."""

    def start(says=speaks, items=ITEMS, student="", candidates=8, seed=0, rslora=False, **how):
        engine = Rated(says, candidates=candidates)
        engine.loras = []
        values = config.defaults("knowledge", "grid") | {"seed": seed}
        values["model"] |= {"policy": "policy", "student": student}
        values["sampling"] |= {"max_new_tokens": 12}
        values["inner"] |= {"rank": 2, "alpha": 4.0, "rslora": rslora}
        values["evaluation"] |= {"answer_tokens": 8}
        values["grid"] |= {"rates": (2, 0.25), "epochs": (3, 1, 3)} | how
        weights = {"policy": 1.0, "student": 5.0}
        monkeypatch.setattr(assemble, "load_actor", lambda name, setting: plain_actor(engine, weight=weights[name]))
        world, rows = World((), items, lambda judge: Ruled()), []
        setup = assemble.assemble(config.from_dict(values), epath.Path(tmp_path), world)
        grid.run(setup, rows.append)
        setup.recorder.close()
        (tmp_path / "config.json").write_text(json.dumps(values))
        return setup, rows

    return start


def check(setup, text_of, domain, start=1.0, bucket="", scale=2.0):
    """Every trial of every cell of a rank is an inner loop of its own."""
    setting, inner, actor = setup.config, setup.config.inner, plain_actor()
    for rate, epochs in CELLS:
        for item in setup.evaluation:
            for k in range(setting.grid.samples):
                for retrain in range(setting.grid.retrains):
                    key = seeds.lesson(setting.seed, 0, item, retrain)
                    lesson = domain.lesson(item, text_of(item, k), key, actor.length)
                    lesson = replace(lesson, learning_rate=rate, epochs=epochs)
                    loop = Loop(lesson, seeds.adapter(setting.seed, 0, item, retrain),
                                seeds.order(setting.seed, 0, retrain))  # fmt: skip
                    weight = start + scale * after(candidate(actor, loop, inner), start)
                    [trial] = pick(setup.recorder.trials.all(), arm=f"{bucket}learning rate {rate:g}", round=epochs,
                                   item=item.id, sample=k, retrain=retrain)  # fmt: skip
                    gold = [actor.row(example) for example in setup.domain.quiz(item, False).gold]
                    wanted = [likelihood(weight, row) / sum(row.weights) for row in gold]
                    assert trial["log_likelihood"] == pytest.approx(wanted)
                    assert trial["steps"] == epochs * len(lesson.examples) == epochs * trial["sequences"]
                    assert (trial["split"], trial["purpose"]) == ("evaluation", "answers")


def test_every_cell_is_an_inner_loop_of_its_own(run):
    setup, rows = run(samples=2, retrains=2, seed=3)
    assert rows == [[("base", 0)], [(f"learning rate {rate:g}", epochs) for rate, epochs in CELLS]]
    fields = [(row["arm"], row["round"], row["name"], row["kind"]) for row in setup.recorder.rows.all()][1:3]
    assert fields == [("learning rate 0.25", 1, "learning rate 0.25, 1 epoch", "policy"),
                      ("learning rate 0.25", 3, "learning rate 0.25, 3 epochs", "policy")]  # fmt: skip
    texts = {(edit["item"], edit["sample"]): edit["text"] for edit in setup.recorder.edits.all()}
    assert {(edit["arm"], edit["round"]) for edit in setup.recorder.edits.all()} == {("grid", 0)} and len(texts) == 6
    check(setup, lambda item, k: texts[item.id, k], setup.domain)
    assert len(setup.recorder.trials.all()) == 3 + 4 * 3 * 2 * 2
    sizes = [call[1] for call in setup.policy.engine.calls if call[0] == "finetune"]
    assert sizes == [8, 8, 8] * 2  # of each retrain 24, whichever cell and item they are of


@pytest.mark.parametrize("rslora", [False, True])
def test_ranks_follow_one_another_with_the_same_scale(run, rslora):
    setup, rows = run(ranks=(8, 2, 8), rslora=rslora)
    assert rows[1:] == [[(f"rank {rank}, learning rate {rate:g}", n) for rate, n in CELLS] for rank in (2, 8)]
    names = [row["name"] for row in setup.recorder.rows.all()]
    assert names[1] == "rank 2, learning rate 0.25, 1 epoch" and len(names) == 1 + 8
    alphas = {2: 4.0, 8: 8.0 if rslora else 16.0}
    assert [(lora.rank, lora.alpha) for lora in setup.policy.engine.loras] == [
        (rank, pytest.approx(alphas[rank])) for rank in (2, 2, 8, 8)
    ]
    texts, scale = {edit["item"]: edit["text"] for edit in setup.recorder.edits.all()}, 8**0.5 if rslora else 2.0
    for rank in (2, 8):
        check(setup, lambda item, k: texts[item.id], setup.domain, bucket=f"rank {rank}, ", scale=scale)
    done = [(phase["arm"], phase["purpose"]) for phase in setup.recorder.phases.all()]
    assert done[-2:] == [("grid, rank 2", "answers"), ("grid, rank 8", "answers")]


def test_one_other_rank_is_not_in_the_names(run):
    setup, rows = run(ranks=(6,))
    assert rows[1] == [(f"learning rate {rate:g}", epochs) for rate, epochs in CELLS]
    assert {(lora.rank, lora.alpha) for lora in setup.policy.engine.loras} == {(6, 12.0)}


def test_another_student_a_file_and_a_rule(run):
    setup, _ = run(student="student", author="passage")
    check(setup, lambda item, k: item.title, Twice(), 5.0)


def test_a_file_writes_and_what_it_lacks_is_in_no_cell(run, tmp_path):
    setup, _ = run(items=(replace(ITEMS[0], completions=()), *ITEMS[1:]), author="file")
    assert {trial["item"] for trial in setup.recorder.trials.all() if trial["arm"] != "base"} == {"b", "c"}
    page = html.render(epath.Path(tmp_path))
    assert "The run is not complete" not in page and "1 of 3 (the file has none: 1) in the lessons" in page


def test_what_is_recorded_is_not_computed_again(run):
    setup, rows = run()
    again, same = run()
    assert again.policy.engine.calls == [] and same == rows


def sometimes(weight, prompt, seed):
    return "yes" if int(weight * 7) % 2 else speaks(weight, prompt, seed)


def test_table_and_picture(run, tmp_path, monkeypatch):
    setup, _ = run(sometimes)
    recorded = load(epath.Path(tmp_path))
    found = lines(recorded)
    [table] = tables.tables(recorded, found)
    assert table.header == ["learning rate", "1 epoch", "3 epochs"]
    assert [row[0] for row in table.rows] == ["0.25", "2"]
    for row, rate in zip(table.rows, (0.25, 2.0), strict=True):
        for cell, epochs in zip(row[1:], (1, 3), strict=True):
            trials = pick(setup.recorder.trials.all(), arm=f"learning rate {rate:g}", round=epochs)
            mean = 100 * np.mean([np.mean(trial["correct"]) for trial in trials])
            assert cell.startswith(f"{mean:.1f} ")
    assert len({cell for row in table.rows for cell in row[1:]}) > 1
    drawn = []
    real = figures.by_epochs
    monkeypatch.setattr(figures, "by_epochs", lambda *given: drawn.append(given) or real(*given))
    page = html.render(epath.Path(tmp_path))
    assert "Right answers, %, by learning rate and epochs" in page and "The run is not complete" not in page
    assert "Accuracy, %, by epochs, for each learning rate" in page and "the inner loop by rank, learning rate" in page
    [(curves, _)] = drawn
    assert {rate: sorted(cells) for rate, cells in curves.items()} == {"0.25": [1, 3], "2": [1, 3]}
    assert "Right answers, %, by learning rate and epochs" in terminal.summary(epath.Path(tmp_path))
    assert tables.tables(replace(recorded, config={"experiment": "rounds"}), found) == []


def test_table_and_pictures_of_several_ranks(run, tmp_path, monkeypatch):
    setup, _ = run(sometimes, ranks=(2, 8))
    [table] = tables.tables(load(epath.Path(tmp_path)), lines(load(epath.Path(tmp_path))))
    assert table.title == "Right answers, %, by rank, learning rate and epochs"
    assert table.header == ["rank", "learning rate", "1 epoch", "3 epochs"]
    assert [row[:2] for row in table.rows] == [["2", "0.25"], ["2", "2"], ["8", "0.25"], ["8", "2"]]
    trials = pick(setup.recorder.trials.all(), arm="rank 8, learning rate 2", round=3)
    assert table.rows[3][3].startswith(f"{100 * np.mean([np.mean(trial['correct']) for trial in trials]):.1f} ")
    drawn = []
    real = figures.by_epochs
    monkeypatch.setattr(figures, "by_epochs", lambda *given: drawn.append(given) or real(*given))
    page = html.render(epath.Path(tmp_path))
    assert "The run is not complete" not in page and "Rank 8: Accuracy, %, by epochs" in page
    values = [cell.measures["accuracy"] for cells, _ in drawn for rate in cells.values() for cell in rate.values()]
    assert len(drawn) == 2 and len(values) == 8
    assert {top for _, top in drawn} == {max(one.high if one.has_interval else one.mean for one in values)}


def mistake(**changes):
    values = config.defaults("knowledge", "grid")
    for group, fields in changes.items():
        values[group] = values.get(group, {}) | fields
    with pytest.raises(UserError) as caught:
        config.from_dict(values)
    return str(caught.value)


def test_mistakes_in_the_config():
    assert "config.grid.rates: is empty and must hold at least one number" in mistake(grid={"rates": ()})
    assert "config.grid.rates: is (0.0,) and must be greater than 0" in mistake(grid={"rates": (0,)})
    assert "config.grid.rates: is (nan,) and must be a finite number" in mistake(grid={"rates": (float("nan"),)})
    assert "config.grid.rates: is ['a'] and must be a tuple of numbers" in mistake(grid={"rates": ("a",)})
    assert "config.grid.ranks: is (4, 0) and must be at least 1" in mistake(grid={"ranks": (4, 0)})
    assert "config.grid.epochs: is (0,) and must be at least 1" in mistake(grid={"epochs": (0,)})
    assert "the experiment 'grid' does not read it" in mistake(inner={"learning_rate": 0.5})
    assert "config.export.policy: is True, but no policy learns" in mistake(export={"policy": True})
    assert "grid.author does not ask for 'file'" in mistake(authors={"file": "x"})
    values = config.defaults("knowledge", "grid")
    values["grid"]["rates"] = [1, 2e-3]
    assert config.from_dict(values).grid.rates == (1.0, 2e-3)
