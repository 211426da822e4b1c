"""Self-edits that are written once and recorded, and rollouts: with what they earned, as improvers see them."""

from dataclasses import dataclass, field

import pytest
from plain_engine import Thing

from seal_jax.authors.author import SelfEdit
from seal_jax.domains.domain import Prompt
from seal_jax.outer.rollouts import Rollout, by_item, rollouts, write
from seal_jax.rewards.reward import Scores
from seal_jax.runs.keys import TRAIN, Stage
from seal_jax.runs.recorder import Recorder

X, Y = Thing("x", "One"), Thing("y", "Two")
STAGE, SEED = Stage(TRAIN, "SEAL", 3), (7, 3)


@dataclass
class Writer:
    """Writes item by item, in turned order; dies before the item of that id."""

    dies_at: str = ""
    asked: list = field(default_factory=list)

    def write(self, items, samples, seed):
        for item in reversed(items):
            if item.id == self.dies_at:
                raise RuntimeError("out of ink")
            self.asked.append((item.id, samples, seed))
            yield {item.id: [edit(item, k) for k in range(samples)]}


def edit(item, k):
    return SelfEdit(f"{item.id}{k}", (k, 2), (-0.5, -1.25), k == 0, "not allowed" if k else None, k + 1)


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(tmp_path, dict)
    yield made
    made.close()


def test_what_is_written_comes_back_whole_and_in_the_order_of_samples(recorder, tmp_path):
    found = write(Writer(), [X, Y], 2, STAGE, SEED, recorder)
    assert found == {item.id: [edit(item, 0), edit(item, 1)] for item in (X, Y)} and list(found) == ["x", "y"]
    again = Recorder(tmp_path, dict)
    writer = Writer()
    assert write(writer, [X, Y], 2, STAGE, SEED, again) == found and writer.asked == []
    assert again.edits[STAGE.edit("y", 1)] == {
        "split": "train", "arm": "SEAL", "round": 3, "item": "y", "sample": 1, "text": "y1", "tokens": [1, 2],
        "log_probs": [-0.5, -1.25], "finished": False, "problem": "not allowed", "attempts": 2,
    }  # fmt: skip
    assert len(again.phases.all()) == 1


def test_a_prompt_that_another_one_was_given_is_kept(recorder, tmp_path):
    edit = SelfEdit("x0", prompt="What it was asked.")

    class Other:
        def write(self, items, samples, seed):
            yield {"x": [edit]}

    assert write(Other(), [X], 1, STAGE, SEED, recorder) == {"x": [edit]}
    again = Recorder(tmp_path, dict)
    assert write(Writer(), [X], 1, STAGE, SEED, again) == {"x": [edit]}
    assert again.edits[STAGE.edit("x", 0)]["prompt"] == "What it was asked."


def test_only_what_is_missing_is_written(recorder):
    with pytest.raises(RuntimeError):
        write(Writer(dies_at="x"), [X, Y], 2, STAGE, SEED, recorder)
    writer = Writer()
    found = write(writer, [X, Y], 2, STAGE, SEED, recorder)
    assert writer.asked == [("x", 2, SEED)] and [one.text for one in found["y"]] == ["y0", "y1"]
    write(writer, [X, Y], 2, Stage(TRAIN, "SEAL", 4), (7, 4), recorder)  # another round writes anew
    assert len(writer.asked) == 3
    write(writer, [X], 3, STAGE, SEED, recorder)  # more samples of an item
    assert writer.asked[3:] == [("x", 3, SEED)]


def test_a_self_edit_of_nothing_stays_nothing(recorder):
    class Silent:
        def write(self, items, samples, seed):
            yield {item.id: [SelfEdit(None)] for item in items}

    assert write(Silent(), [X], 1, STAGE, SEED, recorder) == {"x": [SelfEdit(None)]}


PROMPTS = {"x": Prompt("about x", False), "y": Prompt("about y", False)}
EDITS = {item.id: [edit(item, 0), edit(item, 1)] for item in (X, Y)}


def test_rollouts_hold_what_was_asked_written_and_earned():
    scores = {"x": Scores([1.0, None], 0.5, accuracies=[0.25, None]), "y": Scores([3.0, 4.0], None)}
    assert rollouts([Y, X], PROMPTS, EDITS, scores) == [
        Rollout(Y, PROMPTS["y"], 0, EDITS["y"][0], 3.0, None, None),
        Rollout(Y, PROMPTS["y"], 1, EDITS["y"][1], 4.0, None, None),
        Rollout(X, PROMPTS["x"], 0, EDITS["x"][0], 1.0, 0.5, 0.25),
        Rollout(X, PROMPTS["x"], 1, EDITS["x"][1], None, 0.5, None),
    ]


def test_rollouts_without_scores_have_earned_nothing():
    found = rollouts([X], PROMPTS, EDITS, None)
    assert [one.sample for one in found] == [0, 1]
    assert all((one.reward, one.base, one.accuracy) == (None, None, None) for one in found)


def test_rollouts_by_item_keep_their_order():
    found = rollouts([Y, X], PROMPTS, EDITS, None)
    mixed = [found[2], found[0], found[3], found[1]]
    groups = by_item(mixed)
    assert list(groups) == ["x", "y"] and groups == {"x": [found[2], found[3]], "y": [found[0], found[1]]}
