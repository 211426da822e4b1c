"""Five verbs over many self-edits at once: each gives what it gives alone, and nothing given to them is changed."""

import jax
import numpy as np
import pytest

from seal_jax import lab
from seal_jax.domains.domain import Example
from seal_jax.errors import UserError
from seal_jax.model.lora import merge

EDITS = ["The ferry to Bo leaves at noon.\nIt is blue.", "Bo is an island. The ferry is old.", "The ferry leaves."]
QUESTIONS = ["What leaves?", "What is blue?"]


@pytest.fixture(scope="module")
def model(home):
    cache = str((home / "cache").resolve())
    return lab.load(
        str(home / "policy"), engine={"cache": cache}, inner={"rank": 2, "learning_rate": 3e-2, "epochs": 3},
        outer={"sft": {"rank": 2, "learning_rate": 3e-2}}, evaluation={"answer_tokens": 6},
        sampling={"max_new_tokens": 12},
    )  # fmt: skip


@pytest.fixture(scope="module")
def about():
    return lab.passage("Bo", "The ferry to Bo is blue. It leaves at noon.")


@pytest.fixture(scope="module")
def trained(model, about):
    return lab.train(model, about, EDITS)


def test_many_are_what_each_is_alone(model, about, trained):
    assert [len(losses) for losses in trained.losses] == [6, 6, 3]
    together = lab.ask(model, trained.adapters, about, QUESTIONS)
    assert len(together) == 3 and all(len(row) == 2 for row in together)
    for number, edit in enumerate(EDITS):
        adapters, losses = lab.train(model, about, [edit])
        np.testing.assert_allclose(losses[0], trained.losses[number], rtol=1e-4)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
            lab.adapter(model, adapters, 0), lab.adapter(model, trained.adapters, number),
        )  # fmt: skip
        assert lab.ask(model, adapters, about, QUESTIONS) == [together[number]]


def test_training_changes_answers_and_not_the_model(model, about, trained):
    before = lab.ask(model, None, about, QUESTIONS)
    assert len(before) == 1 and before[0] != lab.ask(model, trained.adapters, about, QUESTIONS)[0]
    for losses in trained.losses:
        assert losses[-1] < losses[0]
    assert lab.ask(model, None, about, QUESTIONS) == before
    shown = lab.ask(model, None, about, QUESTIONS, shown=True)
    assert shown != before


def test_an_adapter_from_the_host_answers_the_same(model, about, trained):
    kept = lab.adapter(model, trained.adapters, 1)
    again = lab.restore(model, kept, trained.adapters.lora)
    assert lab.ask(model, again, about, QUESTIONS) == [lab.ask(model, trained.adapters, about, QUESTIONS)[1]]


def test_a_reply_is_that_of_the_merged_weights(model, about, trained):
    turns = ["What leaves?", "The ferry.", "When?"]
    adapter = lab.adapter(model, trained.adapters, 0)
    one = lab.restore(model, adapter, trained.adapters.lora)
    merged = model.actor.with_base(merge(model.actor.base, adapter, trained.adapters.lora))
    expected = lab.reply(lab.Model(merged, model.config, model.domain), None, turns)
    assert lab.reply(model, one, turns) == expected != lab.reply(model, None, turns)
    with pytest.raises(UserError, match=r"the chat has \d+ tokens, and the model reads 512 with 6 more"):
        lab.reply(model, None, ["word " * 600])


def test_several_passages_go_into_one_adapter(model, about):
    other = lab.passage("Cu", "Cu is a hill. It is steep.")
    _, [losses] = lab.train_on(model, [[(about, lab.split(about)), (other, lab.split(other))]])
    assert len(losses) == 3 * 4


def test_self_edits_are_sampled_together_and_differ(model, about):
    edits = lab.write(model, about, 3)
    assert len(edits) == 3 and len(set(edits)) > 1
    assert edits == lab.write(model, about, 3) != lab.write(model, about, 3, seed=1)


def test_scores():
    answers = [["The ferry to Bo.", "no idea"], ["", "The ferry is blue"]]
    assert lab.score(QUESTIONS, ["ferry", "ferry"], answers) == [[True, False], [False, True]]


def test_what_does_not_go(model, about):
    with pytest.raises(UserError, match="knows no settings 'iner'"):
        lab.load("x", iner={})
    with pytest.raises(UserError, match="self-edit 2 of 2 holds no text"):
        lab.train(model, about, ["One.", " \n"])
    with pytest.raises(UserError, match="nothing to train on"):
        lab.train(model, about, [])
    with pytest.raises(UserError, match=r"a line of self-edit 1 has \d+ tokens, and the model reads 512"):
        lab.train(model, about, ["word " * 600])
    with pytest.raises(UserError, match=r"the question 'word word .* has \d+ tokens, and the model reads 512 with 6"):
        lab.ask(model, None, about, ["word " * 600])
    with pytest.raises(UserError, match=r"Long has \d+ tokens, and the model reads 512 with 12 more"):
        lab.write(model, lab.passage("Long", "word " * 600), 1)
    with pytest.raises(UserError, match="asked for 0 self-edits"):
        lab.write(model, about, 0)
    with pytest.raises(UserError, match="lab.score got 2 questions"):
        lab.score(QUESTIONS, ["ferry"], [["a", "b"]])
    with pytest.raises(UserError, match="needs a title and a text"):
        lab.passage("A", " ")


def test_what_was_chosen_is_written_more_often(model, about):
    """The outer loop's step makes the chosen self-edit likelier, and leaves the model that it began with alone."""
    text = "The ferry to Bo leaves at noon."
    asked = Example(model.domain.edit_prompt(about, model.actor.chat), text, closing=True)

    def likely(one):
        return one.actor.log_likelihoods([one.actor.row(asked)])[0]

    before = likely(model)
    writer = lab.teach(model, [(about, text)] * 4)
    assert likely(writer) > before + 1 and likely(model) == before
    with pytest.raises(UserError, match="nothing to teach"):
        lab.teach(model, [])
    with pytest.raises(UserError, match=r"the longest self-edit with its prompt has \d+ tokens, and the mo"):
        lab.teach(model, [(about, "word " * 600)])


def test_what_the_engine_does_is_told(model, about, monkeypatch):
    """How many steps or tokens there are, none at first and all of them at the end, and nothing when it is over."""
    activity, told = model.actor.engine.programs.activity, []
    show = type(activity).show

    def spy(self, words, total, done, even=True):
        told.append((words, total, done(), done))
        return show(self, words, total, done, even)

    monkeypatch.setattr(type(activity), "show", spy)
    _, [losses] = lab.train(model, about, EDITS[:1])
    lab.teach(model, [(about, EDITS[1])])
    lab.reply(model, None, ["What leaves?"])
    found = {words: (total, first, done()) for words, total, first, done in told if words != "compiling"}
    assert next(total for words, total, *_ in told if words == "training step") == len(losses)
    assert found["training step"][1:] == (0, found["training step"][0]) and found["token"][0] == 6
    assert activity() == ""
