"""From records of trials to rewards: what counts, what is missing, what is a gain; and the reward on an engine."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_engine import PlainEngine, Thing, Things, likelihood, plain_actor, trained

from seal_jax import config, seeds
from seal_jax.authors.author import SelfEdit
from seal_jax.domains.domain import Prompt
from seal_jax.outer import select
from seal_jax.outer.rollouts import Rollout
from seal_jax.rewards.adapted import Adapted, accuracy, item_scores, log_likelihood, trial_reward
from seal_jax.rewards.reward import Scores, rounded
from seal_jax.runs.keys import TRAIN, Stage
from seal_jax.runs.recorder import Recorder
from seal_jax.student.train import Loop, candidate

LIKELIHOOD = config.Reward(accuracy_weight=0.0, likelihood_weight=2.0, retrains=2)
ACCURACY = config.Reward(retrains=2)
BOTH = config.Reward(accuracy_weight=1.0, likelihood_weight=0.5, retrains=2)


def trial(likelihoods, correct=None, heldout=(False, False, True), failure=None):
    return {"log_likelihood": list(likelihoods), "correct": correct, "heldout": list(heldout), "failure": failure}


BASE = trial([-4.0, -2.0, -9.0], [False, True, False])
BETTER = trial([-3.0, -1.0, -1.0], [True, True, None])
HARMFUL = trial([-30.0, -10.0, -1.0], [False, False, False])
FAILED = trial([-4.0, -2.0, -9.0], [False, False, False], failure="nothing to train on")
DIVERGED = trial([None, None, None], [False, False, False], failure="diverged: the loss of step 2 of 4 is not a number")

# ---------------------------------------------------------------- one trial


def test_accuracy_leaves_out_what_was_not_graded():
    assert accuracy(trial([0, 0, 0], [True, None, False]), False) == 1.0
    assert accuracy(trial([0, 0, 0], [True, None, False]), True) == 0.0
    assert accuracy(trial([0, 0, 0], [None, None, True]), False) is None
    assert accuracy(trial([0, 0, 0]), False) is None  # nobody asked


def test_questions_in_the_reward_and_held_out_are_kept_apart():
    assert log_likelihood(BASE, False) == -3.0 and log_likelihood(BASE, True) == -9.0
    assert accuracy(BETTER, False) == 1.0 and accuracy(BETTER, True) is None
    assert log_likelihood(trial([-1.0], heldout=[False]), True) is None


def test_a_likelihood_that_is_not_a_number_leaves_none():
    assert log_likelihood(trial([-1.0, None, -2.0]), False) is None
    assert log_likelihood(trial([-1.0, None, -2.0]), True) == -2.0


def test_reward_is_a_weighted_sum_of_accuracy_and_gain():
    assert trial_reward(BETTER, BASE, LIKELIHOOD) == pytest.approx(2.0 * (-2.0 + 3.0))
    assert trial_reward(BETTER, BASE, ACCURACY) == 1.0
    assert trial_reward(BETTER, BASE, BOTH) == pytest.approx(1.0 + 0.5)
    assert trial_reward(BETTER, BASE, replace(BOTH, accuracy_weight=3.0)) == pytest.approx(3.0 + 0.5)
    assert trial_reward(BASE, BASE, LIKELIHOOD) == 0.0 and trial_reward(BASE, BASE, ACCURACY) == 0.5


def test_the_reward_does_not_see_held_out_questions():
    other = trial([-3.0, -1.0, -100.0], [True, True, False])
    for weights in (LIKELIHOOD, ACCURACY, BOTH):
        assert trial_reward(other, BASE, weights) == trial_reward(BETTER, BASE, weights)
    assert trial_reward(other, BASE, LIKELIHOOD, heldout=True) == pytest.approx(2.0 * (-100.0 + 9.0))


def test_a_trial_without_verdicts_has_no_accuracy_reward_but_a_gain():
    blank = trial([-3.0, -1.0, -1.0], [None, None, True])
    assert trial_reward(blank, BASE, ACCURACY) is None and trial_reward(blank, BASE, BOTH) is None
    assert trial_reward(blank, BASE, LIKELIHOOD) == pytest.approx(2.0)


@pytest.mark.parametrize("weights", [LIKELIHOOD, ACCURACY, BOTH])
def test_what_failed_or_diverged_has_no_reward(weights):
    for lost in (FAILED, DIVERGED):
        assert trial_reward(lost, BASE, weights) is None


@pytest.mark.parametrize("weights", [LIKELIHOOD, BOTH])
def test_likelihoods_that_count_must_be_known(weights):
    unknown = trial([None, -1.0, -1.0], [True, True, True])
    assert trial_reward(unknown, BASE, weights) is None and trial_reward(BETTER, unknown, weights) is None


def test_likelihoods_that_do_not_count_need_not_be_measured():
    assert trial_reward(trial([], [True, False, True], heldout=[False] * 3), BASE, ACCURACY) == pytest.approx(2 / 3)


# ---------------------------------------------------------------- one item


def test_scores_of_an_item():
    assert item_scores(BASE, [[BETTER, BASE], [BETTER]], LIKELIHOOD) == Scores(
        [1.0, 2.0], 0.0, [8.0, 16.0], 0.0, [0.75, 1.0], [2, 1]
    )
    plain = trial([-1.0], heldout=[False])
    assert item_scores(plain, [[plain]], LIKELIHOOD) == Scores([0.0], 0.0, [None], None, [None], [1])


def test_a_failure_takes_no_reward_from_its_siblings_and_gets_none():
    found = item_scores(BASE, [[HARMFUL] * 2, [FAILED] * 2, [DIVERGED] * 2, [BETTER, DIVERGED]], LIKELIHOOD)
    assert found.rewards == [-34.0, None, None, None]
    assert found.heldout_rewards == [16.0, None, None, None]


@pytest.mark.parametrize("rule", ["best", "above_base", "correct"])
@pytest.mark.parametrize("weights", [LIKELIHOOD, ACCURACY, BOTH])
def test_a_failure_is_never_chosen_even_if_the_others_do_harm(rule, weights):
    found = item_scores(BASE, [[FAILED], [HARMFUL], [DIVERGED]], weights)
    edit, prompt = SelfEdit("text"), Prompt("p", False)
    rollouts = [
        Rollout("item", prompt, k, edit, reward, found.base, found.accuracies[k])
        for k, reward in enumerate(found.rewards)
    ]
    assert select.RULES[rule](rollouts) == ([1] if rule == "best" else [])


def test_retrains_that_nobody_could_grade_are_left_out_of_the_mean():
    blank = trial([-3.0, -1.0, -1.0], [None, None, None])
    found = item_scores(BASE, [[blank, BETTER], [blank, blank]], ACCURACY)
    assert found.rewards == [1.0, None] and found.accuracies == [1.0, None]


def test_rewards_are_rounded_to_nine_digits():
    assert (
        rounded(0.1 + 0.2) == 0.3
        and rounded(None) is None
        and rounded(1 + 2e-9) == 1.000000002
        and rounded(1 + 4e-10) == 1
    )
    near = trial([-3.0 + 1e-12, -1.0, -1.0], [True, True, None])
    assert len(set(item_scores(BASE, [[BETTER], [near]], LIKELIHOOD).rewards)) == 1


verdicts = st.sampled_from([True, False, None])
values = st.none() | st.floats(-9, 0)
trials = st.builds(
    trial,
    st.lists(values, min_size=4, max_size=4),
    st.none() | st.lists(verdicts, min_size=4, max_size=4),
    st.just((False, True, False, False)),
    st.sampled_from([None, None, None, "failed"]),
)


@given(trials, st.lists(trials, min_size=1, max_size=3), st.sampled_from([LIKELIHOOD, ACCURACY, BOTH]))
def test_rewards_by_their_definition(base, retrains, weights):
    """Against the formula written out question by question."""
    counted = [0, 2, 3]
    rewards = []
    for one in retrains:
        after = [one["log_likelihood"][i] for i in counted]
        before = [base["log_likelihood"][i] for i in counted]
        right = [v for v in (one["correct"][i] for i in counted) if v is not None] if one["correct"] else []
        unknown = weights.likelihood_weight and None in after + before
        if one["failure"] or unknown or (weights.accuracy_weight and not right):
            continue
        gain = weights.likelihood_weight * (sum(after) / 3 - sum(before) / 3) if weights.likelihood_weight else 0.0
        rewards.append(gain + (weights.accuracy_weight * sum(right) / len(right) if weights.accuracy_weight else 0))
    found = item_scores(base, [retrains], weights).rewards[0]
    if not rewards or any(one["failure"] for one in retrains):
        assert found is None
    else:
        assert found == pytest.approx(sum(rewards) / len(rewards), abs=1e-8) and round(found, 9) == found


# ---------------------------------------------------------------- trained, asked and scored

ITEMS = (Thing("x", "One", (("a", "b", False), ("c", "dd", True))), Thing("y", "Two"))
EDITS = {
    "x": [SelfEdit("good"), SelfEdit("fail"), SelfEdit("explode")],
    "y": [SelfEdit("other\nlines"), SelfEdit("good"), SelfEdit("good")],
}
TRAINING = config.Training(rank=2, alpha=4.0, epochs=2)
STAGE = Stage(TRAIN, "SEAL", 3)


def adapted(recorder, weights=LIKELIHOOD, asks=False, verdict=None):
    domain = Things() if verdict is None else Things(verdict)
    return Adapted(domain, weights, TRAINING, 7, asks, recorder)


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(tmp_path, dict)
    yield made
    made.close()


def test_rewards_are_gains_of_adapters_that_were_trained_on_the_self_edits(recorder, capsys):
    student = plain_actor()
    scores = adapted(recorder).score(student, ITEMS, EDITS, STAGE)

    def mean(item, weight):
        """Of the gold answers that count, by the engine's own formula."""
        rows = [student.row(gold) for gold, held in zip(*quiz(item), strict=True) if not held]
        return np.mean([likelihood(weight, row) / sum(row.weights) for row in rows])

    def quiz(item):
        asked = Things().quiz(item, False)
        return asked.gold, asked.heldout

    lone = {}
    for item in ITEMS:
        for k, edit in enumerate(EDITS[item.id]):
            lesson = Things().lesson(item, edit.text, (), len)
            gains = []
            for retrain in (0, 1):
                loop = Loop(lesson, seeds.adapter(7, 3, item, retrain), seeds.order(7, 3, retrain))
                adapter = trained(candidate(student, loop, TRAINING), 1.0)
                gains.append(2.0 * (mean(item, 1.0 + 2.0 * adapter) - mean(item, 1.0)))
            lone[item.id, k] = np.mean(gains)
    assert scores["x"].rewards == [pytest.approx(lone["x", 0]), None, None]
    assert scores["y"].rewards == [pytest.approx(lone["y", k]) for k in range(3)]
    assert scores["y"].rewards[1] == scores["y"].rewards[2]  # siblings differ in their texts alone
    assert scores["x"].base == scores["x"].heldout_base == 0.0 and scores["y"].heldout_base is None
    assert student.engine.count("generate") == 0 and scores["x"].accuracies == [None] * 3
    shown = [line for line in capsys.readouterr().err.splitlines() if "SEAL, round 3: inner loops: 12/12" in line]
    known = [lone[name] for name in lone if name not in (("x", 1), ("x", 2))]
    assert len(shown) == 1 and shown[0].endswith(f"reward {np.mean(known):.3f}")


def test_trials_are_recorded_by_their_fields_and_not_computed_again(recorder):
    engine = PlainEngine()
    first = adapted(recorder).score(plain_actor(engine), ITEMS, EDITS, STAGE)
    found = {(t["purpose"], t["item"], t["sample"], t["retrain"]) for t in recorder.trials.all()}
    assert found == {("untrained", item, 0, 0) for item in "xy"} | {
        ("reward", item, k, retrain) for item in "xy" for k in range(3) for retrain in (0, 1)
    }
    assert all((t["split"], t["arm"], t["round"]) == ("train", "SEAL", 3) for t in recorder.trials.all())
    failures = {t["failure"] for t in recorder.trials.all() if t["item"] == "x" and t["sample"] == 2}
    assert failures == {"diverged: the loss of step 2 of 2 is not a number"}
    assert {t["sequences"] for t in recorder.trials.all() if t["purpose"] == "untrained"} == {0}
    before = len(engine.calls)
    assert adapted(recorder).score(plain_actor(engine), ITEMS, EDITS, STAGE) == first
    assert len(engine.calls) == before


def test_answers_are_graded_where_they_count(recorder):
    student = plain_actor(PlainEngine(lambda weight, prompt, seed: "b"))
    scores = adapted(recorder, ACCURACY, True).score(student, ITEMS[:1], {"x": EDITS["x"][:2]}, STAGE)["x"]
    assert scores.rewards == [1.0, None] and scores.base == 1.0
    assert scores.heldout_rewards == [0.0, None] and scores.heldout_base == 0.0
    assert scores.accuracies[0] == 1.0
    generations = [call[2] for call in student.engine.calls if call[0] == "generate"]
    assert generations and all(one.max_new == ACCURACY.answer_tokens for one in generations)


def test_the_other_rounds_and_seeds_train_other_adapters(recorder):
    one = adapted(recorder).score(plain_actor(), ITEMS[1:], EDITS, STAGE)
    other = adapted(recorder).score(plain_actor(), ITEMS[1:], EDITS, replace(STAGE, round=4))
    third = replace(adapted(recorder), seed=8).score(plain_actor(), ITEMS[1:], EDITS, replace(STAGE, arm="b"))
    assert len({scores["y"].rewards[0] for scores in (one, other, third)}) == 3
