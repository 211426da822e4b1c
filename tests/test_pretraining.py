"""Continued pretraining: what the lesson of many passages is, that its rows are asked after one training, resuming."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny_run
from etils import epath
from tiny_run import pick

from seal_jax import config as config_lib
from seal_jax import seeds
from seal_jax.engine.engine import Engine
from seal_jax.errors import UserError
from seal_jax.experiments import assemble, pretraining
from seal_jax.report import figures, html, terminal
from seal_jax.runs import checkpoint, keys
from seal_jax.runs.records import read
from seal_jax.student.ask import ask
from seal_jax.student.train import teach

QUESTIONS = 4


def tiny_values(home, **changes):
    values = config_lib.defaults("knowledge", "pretraining")
    usual = tiny_run.tiny_values(home)
    for group in ("model", "sampling", "engine"):
        values[group] = usual[group]
    values["knowledge"] |= {"max_sequences": 2}
    values["data"] |= {"evaluation": str(home / "many.json"), "evaluation_items": 3}
    values["pretraining"] |= {"samples": (1, 2), "questions": QUESTIONS, "warmup_share": 0.3}
    values["pretraining"]["sft"] |= {"epochs": 2, "accumulation": 1, "learning_rate": 3e-3}
    values["evaluation"] |= {"answer_tokens": 4}
    for group, fields in changes.items():
        values[group] = values[group] | fields
    return values


@pytest.fixture(scope="module")
def den(home, tmp_path_factory):
    folder = tiny_run.share(home, tmp_path_factory.mktemp("den"))
    tiny_run.make_passages(folder / "many.json", "El", 3)
    return folder


@pytest.fixture(scope="module")
def whole(den, actors, tmp_path_factory):
    """A run of full finetuning that nothing interrupted."""
    return tiny_run.finished(tiny_values(den), actors, tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def setup(whole, fast, tmp_path):
    made = assemble.prepare(config_lib.from_dict(whole[0]), epath.Path(tmp_path / "setup"))
    yield made
    made.recorder.close()


def test_rows_and_questions(whole):
    found = tiny_run.records(whole[1])
    rows = [(row["arm"], row["round"], row["name"]) for row in found["rows"]]
    assert rows == [("base", 0, "base"), ("passage in context", 0, "passage in context"),
                    ("passage only", 0, "passage only"), ("sentences", 0, "sentences"),
                    (keys.OWN, 1, "1 self-edit each"), (keys.OWN, 2, "2 self-edits each")]  # fmt: skip
    assert sum(len(item["questions"]) for item in found["items"]) == QUESTIONS
    assert {item["split"] for item in found["items"] if not item["questions"]} <= {"train"}
    for arm, number, _ in rows:
        assert sum(len(trial["answers"]) for trial in pick(found["trials"], arm=arm, round=number)) == QUESTIONS
    assert len(found["self_edits"]) == 3 * 2  # of every passage, whether it is asked about or not


def test_a_row_is_one_training_on_all_passages(whole, setup):
    """Rows of text put together by hand, taught once, merged, and asked."""
    found, sft = tiny_run.records(whole[1]), setup.config.pretraining.sft
    texts = []
    for item in [*setup.train, *setup.evaluation]:
        for k in (0, 1):
            [edit] = pick(found["self_edits"], item=item.id, sample=k)
            lines = [line.strip() for line in edit["text"].split("---")[0].split("\n") if line.strip()][:2]
            texts += [f"{item.title}\n{line}" for line in lines]
        texts.append(f"{item.title}\n{item.context}")
    edits = {item.id: [edit["text"] for edit in pick(found["self_edits"], item=item.id)]
             for item in [*setup.train, *setup.evaluation]}  # fmt: skip
    lesson = pretraining.examples(setup, setup.domain, edits)
    assert [example.text for example in lesson] == texts
    training = pretraining.with_warmup(sft, 0.3, len(lesson))
    assert training.warmup_steps == int(np.ceil(0.3 * 2 * len(lesson)))
    assert pretraining.with_warmup(replace(sft, accumulation=8), 0.5, 17).warmup_steps == 3  # of 2 x 3 steps
    learned, _ = teach(setup.policy, lesson, training, seeds.teach(0, 0))
    saved = checkpoint.load(whole[1] / "checkpoints" / keys.OWN, 2)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5), learned, saved)
    actor = setup.policy.with_base(setup.policy.engine.put_base(saved))
    said = ask(actor, None, [setup.domain.quiz(item, False) for item in setup.evaluation], 4)
    for item, one in zip(setup.evaluation, said, strict=True):
        [trial] = pick(found["trials"], arm=keys.OWN, round=2, item=item.id)
        [base] = pick(found["trials"], arm="base", item=item.id)
        assert trial["answers"] == one.texts
        np.testing.assert_allclose(trial["log_likelihood"], one.log_likelihood, atol=1e-3)
        assert np.abs(np.subtract(trial["log_likelihood"], base["log_likelihood"])).max() > 0.01


def test_the_passage_stands_in_a_lesson_once(setup):
    one, two = ([text for text in pretraining.examples(setup, setup.domain, {
        item.id: ["An edit."] * count for item in [*setup.train, *setup.evaluation]})] for count in (1, 2))  # fmt: skip
    assert len(one) == 3 * 2 and len(two) == 3 * 3
    bare = pretraining.examples(setup, setup.domain, {item.id: [""] for item in [*setup.train, *setup.evaluation]})
    assert [example.text for example in bare] == [example.text for example in one if "edit" not in example.text]


def test_killed_and_started_again(whole, fast, tmp_path, monkeypatch):
    values, workdir = whole
    taught, teach_one = [], Engine.teach
    monkeypatch.setattr(Engine, "teach", lambda self, *rest: taught.append(1) or teach_one(self, *rest))
    lost, save = [], checkpoint.save

    def dying(folder, step, tree):
        save(folder, step, tree)
        raise tiny_run.Killed

    for count in (3, 5, 0, 4, 2, 10_000):
        with monkeypatch.context() as patch:
            if count:
                tiny_run.kill_at(patch, count, bool(count % 2), lost)
            else:
                patch.setattr(checkpoint, "save", dying)
            try:
                tiny_run.run(values, tmp_path / "run")
            except tiny_run.Killed:
                continue
    assert tiny_run.records(tmp_path / "run") == tiny_run.records(workdir)
    assert len(taught) == 4 + sum(b'"lessons"' in group for group in lost)  # a phase that was lost: it was taught again
    for name in ("teach", "generate", "log_likelihood"):
        monkeypatch.setattr(Engine, name, None)
    tiny_run.run(values, tmp_path / "run")


def test_report(whole):
    folder = epath.Path(whole[1])
    text, page = terminal.summary(folder), html.render(folder)
    assert "2 self-edits each" in text and "all passages at once" in page
    assert "The run is not complete" not in page and "2 self-edits each, against the untrained student" in page
    assert len(read(folder / "updates.jsonl")) == 0


def test_the_losses_of_trainings_are_drawn_by_the_names_of_their_rows(whole, monkeypatch):
    drawn, real = [], figures.losses
    monkeypatch.setattr(figures, "losses", lambda *given: drawn.append(given) or real(*given))
    page = html.render(epath.Path(whole[1]))
    [(inner, outer)] = drawn
    assert not inner and "Loss in the last epoch of each training" in page
    assert [name for name, _ in outer] == ["passage only", "sentences", "1 self-edit each", "2 self-edits each"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"questions": 10}, "questions=10 asks for more than the 9 questions of 3 passages"),
        ({"author": "file"}, "many.json has no completions of any of the 3 items"),
        ({"samples": ()}, "config.pretraining.samples: is empty"),
        ({"samples": (0, 1)}, r"config.pretraining.samples: is \(0, 1\) and must be at least 1"),
        ({"samples": ("a",)}, "config.pretraining.samples: is .* must be a tuple of integers"),
    ],
)
def test_wrong_input_is_one_sentence(den, fast, tmp_path, changes, expected):
    values = tiny_values(den)
    values["pretraining"] |= changes
    with pytest.raises(UserError, match=expected):
        tiny_run.run(values, tmp_path / "run")
