"""Continued pretraining over an engine in plain Python, against rows written out: what a lesson on many passages is,
which model learns it and is asked, and every record. No model is loaded."""

from dataclasses import replace

import numpy as np
import pytest
from etils import epath
from plain_engine import (
    TOKENIZER,
    PlainEngine,
    Shelf,
    Thing,
    Things,
    likelihood,
    losses_of,
    plain_actor,
    speaks,
    trained,
)
from tiny_run import pick

from seal_jax import config, seeds
from seal_jax.domains.domain import Control, Example, Lesson
from seal_jax.engine.packing import Candidate
from seal_jax.experiments import assemble, pretraining
from seal_jax.experiments.world import World
from seal_jax.runs.keys import OWN

UNASKED = (Thing("u", "Five", (), ("Five is one.", "Five is two.", "Five is three.")),)
ASKED = tuple(
    Thing(name, title, completions=tuple(f"{title} is {k}.\nIt is." for k in "xyz"))
    for name, title in (("a", "One"), ("b", "Two"))
)
WEIGHTS = {"policy": 1.0, "student": 5.0}


class Kept(Things):
    """What every lesson on a thing ends with is its title, the seed of its lesson and a length."""

    def lesson(self, item, text, seed, length):
        made = super().lesson(item, text, seed, length)
        ending = Example(None, f"{item.title} {seed} {length(Example(None, item.title, False))}", closing=False)
        return Lesson((*made.examples, ending), made.learning_rate, made.epochs)

    def controls(self):
        [base, title] = super().controls()
        return [base, replace(title, domain=Asks()), Control("shouted", lambda item, k: f"{item.title.upper()} {k}")]


class Asks(Kept):
    """As one row sees it: with other lessons and another question."""

    def lesson(self, item, text, seed, length):
        return Things.lesson(self, item, f"{text}\nof another domain", seed, length)

    def quiz(self, item, chat):
        return super().quiz(replace(item, title=f"{item.title}, please"), chat)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(fields of config.pretraining, **others) -> (setup, last model, rows); a second call continues the first."""
    monkeypatch.setattr(pretraining, "checkpoint", Shelf())

    def start(says=speaks, student="", asked=ASKED, authors=(), sft=(), seed=0, domain=None, **how):
        engine = PlainEngine(says)
        values = config.defaults("knowledge", "pretraining") | {"seed": seed}
        values["model"] |= {"policy": "policy", "student": student}
        values["sampling"] |= {"max_new_tokens": 12}
        values["evaluation"] |= {"answer_tokens": 8}
        values["authors"] |= dict(authors)
        values["pretraining"] |= {"samples": (1, 2), "warmup_share": 0.3} | how
        values["pretraining"]["sft"] |= {"epochs": 2, "accumulation": 2, "learning_rate": 0.5, **dict(sft)}
        load = lambda name, setting: plain_actor(engine, weight=WEIGHTS[name])  # noqa: E731
        monkeypatch.setattr(assemble, "load_actor", load)
        world, rows = World(UNASKED, asked, lambda judge: domain or Kept()), []
        setup = assemble.assemble(config.from_dict(values), epath.Path(tmp_path), world)
        try:
            last = pretraining.run(setup, rows.extend)
        finally:
            setup.recorder.close()
        return setup, last, rows

    return start


def said(weight, item, k, seed=0):
    """A self-edit, of at most 12 tokens."""
    tokens = TOKENIZER.encode(speaks(weight, f"Write about {item.title}:", seeds.sample(seed, 0, item, k)))
    return TOKENIZER.decode(tokens[:12])


def weight_of(setup, texts, domain, start):
    """The student after its training on the self-edits of all items, put together by hand; and its lesson's rows."""
    actor, rows, seed = plain_actor(), [], setup.config.seed
    for item in (*UNASKED, *setup.evaluation):
        key = seeds.lesson(seed, 0, item, 0)
        lessons = [domain.lesson(item, text, key, actor.length).examples for text in texts(item)]
        always = domain.lesson(item, "", key, actor.length).examples
        rows += [actor.row(one) for lesson in lessons for one in lesson if one not in always]
        rows += [actor.row(one) for one in always]
    sft = setup.config.pretraining.sft
    steps = sft.epochs * -(-len(rows) // 2)
    warmup = sft.warmup_steps or int(np.ceil(0.3 * steps))
    loop = Candidate(tuple(rows), sft.learning_rate, sft.epochs, warmup, seeds.teach(seed, 0), seeds.teach(seed, 0))
    value = trained(loop, start)
    return (start + sft.alpha / sft.rank * value if sft.rank else value), loop


def check(setup, arm, count, weight, domain):
    """The row of a model asked about all items that have questions."""
    trials = pick(setup.recorder.trials.all(), arm=arm, round=count)
    assert [trial["item"] for trial in trials] == [item.id for item in setup.evaluation]
    for trial, item in zip(trials, setup.evaluation, strict=True):
        quiz = domain.quiz(item, False)
        rows = [plain_actor().row(example) for example in quiz.gold]
        assert trial["log_likelihood"] == pytest.approx([likelihood(weight, row) / sum(row.weights) for row in rows])
        said = [TOKENIZER.encode(speaks(weight, prompt.text, (0,)))[:8] for prompt in quiz.prompts]
        assert trial["answers"] == [TOKENIZER.decode(tokens).strip() for tokens in said]
        names = ("split", "purpose", "sample", "retrain", "steps")
        assert [trial[name] for name in names] == ["evaluation", "answers", 0, 0, 0]


def texts_of(setup, count):
    return lambda item: [edit["text"] for edit in pick(setup.recorder.edits.all(), item=item.id)[:count]]


@pytest.mark.parametrize("sft", [{"rank": 0}, {"rank": 2, "alpha": 6.0}, {"rank": 0, "warmup_steps": 3}], ids=str)
@pytest.mark.parametrize("student", ["", "student"])
def test_every_row_is_one_training_on_all_items(run, sft, student):
    setup, last, rows = run(samples=(3, 1, 3), student=student, sft=sft, seed=4)
    assert rows == [("base", 0), ("title only", 0), ("shouted", 0), (OWN, 1), (OWN, 3)]
    start = WEIGHTS[student or "policy"]
    check(setup, "base", 0, start, Kept())
    check(setup, "title only", 0, weight_of(setup, lambda item: [item.title], Asks(), start)[0], Asks())
    check(setup, "shouted", 0, weight_of(setup, lambda item: [f"{item.title.upper()} 0"], Kept(), start)[0], Kept())
    for item in (*UNASKED, *ASKED):
        assert texts_of(setup, 9)(item) == [said(1.0, item, k, 4) for k in range(3)]
    for count in (1, 3):
        weight, loop = weight_of(setup, texts_of(setup, count), Kept(), start)
        check(setup, OWN, count, weight, Kept())
        [phase] = pick(setup.recorder.phases.all(), arm=OWN, round=count, purpose="finetuning")
        losses = losses_of(loop, 2)
        assert (phase["lessons"], phase["split"]) == (len(loop.rows), "evaluation")
        assert phase["loss"] == pytest.approx(losses[len(losses) // 2 :].mean())
    assert float(last.base["w"]) == pytest.approx(weight)


def test_rows_say_what_they_are(run):
    setup, _, _ = run()
    assert [(row["arm"], row["round"], row["name"], row["kind"], row["same_as"])
            for row in setup.recorder.rows.all()] == [
        ("base", 0, "base", "untrained", None), ("title only", 0, "title only", "control", None),
        ("shouted", 0, "shouted", "control", None), (OWN, 1, "1 self-edit each", "policy", None),
        (OWN, 2, "2 self-edits each", "policy", None),
    ]  # fmt: skip
    edits = {(edit["split"], edit["arm"], edit["round"]) for edit in setup.recorder.edits.all()}
    assert edits == {("evaluation", OWN, 0)}


def test_warm_up_is_a_share_of_the_steps_where_none_is_named():
    sft = config.Pretraining().sft  # one epoch, steps of 8
    assert pretraining.with_warmup(sft, 0.5, 17).warmup_steps == 2  # of 3
    assert pretraining.with_warmup(replace(sft, epochs=3), 0.5, 16).warmup_steps == 3  # of 6
    assert pretraining.with_warmup(replace(sft, batch_size=2), 0.5, 17).warmup_steps == 1  # of 2
    assert pretraining.with_warmup(replace(sft, warmup_steps=7), 0.5, 17).warmup_steps == 7
    assert pretraining.with_warmup(sft, 0.0, 17) == sft


def test_a_training_that_diverges_is_said_with_its_mend(run, capsys):
    setup, _, _ = run(samples=(1,), sft={"learning_rate": 1e7})
    out = capsys.readouterr().out
    for name in ("title only", "shouted", "1 self-edit each"):
        assert (f"{name}: its training diverged, and it is asked as it was before; lower "
                "config.pretraining.sft.learning_rate\n") in out  # fmt: skip
    assert {phase["loss"] for phase in pick(setup.recorder.phases.all(), purpose="finetuning")} == {None}
    run(samples=(2,))
    assert capsys.readouterr().out.count("diverged") == 0


def test_a_finished_row_is_not_computed_again_nor_a_training_that_is_on_disk(run, monkeypatch):
    def stop(*rest):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "measure", stop)  # after the first training
        with pytest.raises(KeyboardInterrupt):
            run()
    setup, last, rows = run()
    engine = setup.policy.engine
    assert engine.count("teach") == 3 and len(rows) == 5  # of title only, shouted, 1 and 2 self-edits all but the first
    weight, _ = weight_of(setup, texts_of(setup, 2), Kept(), 1.0)
    assert float(last.base["w"]) == weight
    again, same, rows_again = run()
    assert again.policy.engine.calls == [] and same.base["w"] == last.base["w"] and rows_again == rows


def test_items_of_which_nothing_was_written_are_asked_and_learned_as_far_as_they_are_known(run):
    asked = (replace(ASKED[0], completions=()), ASKED[1])
    setup, _, _ = run(asked=asked, author="file", samples=(1, 2))
    problems = {(edit["item"], edit["problem"]) for edit in setup.recorder.edits.all()}
    assert problems == {("u", None), ("a", "the file has none"), ("b", None)}
    for count in (1, 2):
        weight, _ = weight_of(setup, lambda item, count=count: item.completions[:count], Kept(), 1.0)
        check(setup, OWN, count, weight, Kept())
