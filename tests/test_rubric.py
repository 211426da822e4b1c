"""The proxy reward: what is asked, how replies are read, and what becomes of self-edits that nobody could rate."""

import pytest
from plain_engine import plain_actor

from seal_jax.authors.author import SelfEdit
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.errors import UserError
from seal_jax.judges.rubric import CRITERIA, parse_ratings, rating_request, total
from seal_jax.report import agreement, cells
from seal_jax.report.recorded import Recorded
from seal_jax.rewards.reward import Scores
from seal_jax.rewards.rubric import Rubric
from seal_jax.runs.keys import TRAIN, Stage
from seal_jax.runs.recorder import Recorder

WEIR, MILL = (Passage(name, name, f"The {name} is old.", ()) for name in ("weir", "mill"))
STAGE = Stage(TRAIN, "SEAL", 1)


def rated(*values):
    return dict(zip(CRITERIA, map(float, values), strict=True))


@pytest.mark.parametrize(
    ("reply", "values"),
    [
        ("length: 4\ndiversity: 3\nquality: 5\ncorrectness: 2", (4, 3, 5, 2)),
        ("**Length** (1-5): 4/5\n**Diversity** (1 to 5): 3/5\n- Quality = 5\nCorrectness – 2", (4, 3, 5, 2)),
        ('{"length": 4, "diversity": 3, "quality": 5, "correctness": 2}', (4, 3, 5, 2)),
        ("Length is hard.\nlength: 1\nNo:\nlength: 4, diversity: 3, quality: 5, correctness: 2.5", (4, 3, 5, 2.5)),
        ("4 3 5 2", (4, 3, 5, 2)), ("4/5, 3/5, 5/5, 2/5", (4, 3, 5, 2)),
        ("length: 9\ndiversity: -3\nquality: 0\ncorrectness: 100", (5, 1, 1, 5)),  # clamped
    ],
)  # fmt: skip
def test_replies_that_are_read(reply, values):
    assert parse_ratings(reply) == rated(*values)


@pytest.mark.parametrize(
    "reply", ["", "good", "length: 4\ndiversity: 3\nquality: 5", "4 3 5", "4 3 5 2 1", "length: high\nquality: low"]
)
def test_replies_that_are_not(reply):
    assert parse_ratings(reply) is None


def test_the_sum_lies_between_4_and_20():
    assert total(rated(1, 1, 1, 1)) == 4 and total(rated(5, 5, 5, 5)) == 20 and total(rated(4, 3, 5, 2)) == 14


def test_the_request_shows_passage_and_text_and_every_criterion():
    request = rating_request("weir", "The weir is old.", "It is {old}.")
    assert "weir\nThe weir is old." in request and "It is {old}." in request
    assert all(f"'{name}: N'" in request for name in CRITERIA)


class Judge:
    """Gives as many points as the text has letters, and nothing for 'odd'."""

    def __init__(self):
        self.asked = []

    def __call__(self, requests):
        self.asked += requests
        texts = [request.partition("Notes:\n")[2].partition("\n\n")[0] for request in requests]
        return [(None, "timeout") if text == "odd" else (rated(len(text), 1, 1, 1), None) for text in texts]


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(tmp_path, dict)
    yield made
    made.close()


def edits(**texts):
    return {name: [SelfEdit(text) for text in of] for name, of in texts.items()}


def test_rewards_are_sums_and_what_cannot_be_rated_has_none(recorder, tmp_path):
    judge = Judge()
    reward = Rubric(judge, "remote:m", recorder)
    found = edits(weir=["abcd", "odd"], mill=["ab", " "]) | {"lost": [SelfEdit(None, problem="no answer: HTTP 500")]}
    lost = Passage("lost", "lost", "It is lost.", ())
    scores = reward.score(plain_actor(), [WEIR, MILL, lost], found, STAGE)
    assert scores == {"weir": Scores([7.0, None]), "mill": Scores([5.0, None]), "lost": Scores([None])}
    assert len(judge.asked) == 3  # no text, no request
    records = recorder.ratings.all()
    assert records[0] == {
        "split": "train", "arm": "SEAL", "round": 1, "item": "weir", "sample": 0, "judge": "remote:m",
        "ratings": rated(4, 1, 1, 1), "total": 7.0, "problem": None,
    }  # fmt: skip
    assert [record["problem"] for record in records[1:]] == ["timeout", None, "it holds no text", "no answer: HTTP 500"]
    again = Recorder(tmp_path, dict)
    assert Rubric(None, "remote:m", again).score(plain_actor(), [WEIR, MILL, lost], found, STAGE) == scores
    [note] = cells.round_notes(Recorded({}, ratings=records), [])
    assert note == (
        "Self-edits without a rating, which have no reward: 3 of 5 (timeout: 1, it holds no text: 1, "
        "no answer: HTTP 500: 1) in SEAL, round 1, training."
    )


def test_only_what_was_not_rated_yet_is_rated_and_32_at_a_time(recorder):
    judge = Judge()
    calls = []
    some = edits(weir=["x" * (1 + k % 5) for k in range(40)])

    def rate(requests):
        calls.append(len(requests))
        return judge(requests)

    first = {"weir": some["weir"][:3]}
    Rubric(judge, "remote:m", recorder).score(plain_actor(), [WEIR], first, STAGE)
    Rubric(rate, "remote:m", recorder).score(plain_actor(), [WEIR], some, STAGE)
    assert calls == [32, 5]


def test_a_judge_that_rates_nothing_ends_the_run(recorder):
    with pytest.raises(UserError, match=r"the judge remote:m rated none of 2 self-edits \(timeout\)"):
        Rubric(Judge(), "remote:m", recorder).score(plain_actor(), [WEIR], edits(weir=["odd", "odd"]), STAGE)
    assert recorder.ratings.all() == []


def agreeing(ratings, rewards, kind="answers"):
    """A run of three passages with four self-edits each."""
    rollouts = [{"arm": "SEAL", "round": 1, "item": item, "rewards": values, "retrains": None}
                for item, values in rewards.items()]  # fmt: skip
    records = [{"split": "train", "arm": "SEAL", "round": 1, "item": item, "sample": k, "total": value,
                "problem": None}
               for item, values in ratings.items() for k, value in enumerate(values)]  # fmt: skip
    return Recorded({"reward": {"kind": kind}}, ratings=records, rollouts=rollouts)


def test_agreement_is_the_rank_correlation_within_a_passage():
    ratings = {"a": [4, 9, 9, 20], "b": [5, 6, 7, 8], "c": [8, 8, 8, 8], "d": [1, 2, None, 3]}
    rewards = {"a": [0.1, 0.3, 0.2, 0.9], "b": [0.9, 0.8, 0.7, 0.6], "c": [0.1, 0.2, 0.3, 0.4], "d": [None, 1, 5, 2]}
    found = agreement.of_run(agreeing(ratings, rewards))
    # a: ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4; b: reversed; c: nothing to rank; d: two are left, in the same order
    assert found.count == 3 and found.mean == pytest.approx((4.5 / (4.5 * 5) ** 0.5 - 1 + 1) / 3)
    assert found.low < found.mean < found.high
    assert agreement.of_run(agreeing(ratings, rewards, "rubric")) is None  # the ratings are the rewards
    assert agreement.of_run(agreeing({}, rewards)) is None and agreement.of_run(agreeing(ratings, {"a": None})) is None
    notes = cells.round_notes(agreeing(ratings, rewards), [])
    assert notes == ["Rank correlation of the rubric's ratings with these rewards, within one of the passages: "
                     f"0.32 (95% interval {found.low:.2f} to {found.high:.2f}), mean over 3."]  # fmt: skip


def test_groups_that_say_nothing_are_left_out():
    assert agreement.within([[(1, 2)], [(1, 2), (1, 3)], [(1, 2), (2, 2)], [(1, 2), (2, 3)]]) == [pytest.approx(1.0)]
