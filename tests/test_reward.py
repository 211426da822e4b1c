"""From a trial's record to its reward: which questions count, what is missing, and what is a gain."""

import pytest

from seal_jax.config import Reward
from seal_jax.outer.reward import Scores, accuracy, log_likelihood, mean_reward, reward, scores

LIKELIHOOD, ACCURACY = Reward(accuracy_weight=0.0, likelihood_weight=2.0), Reward()
BOTH = Reward(accuracy_weight=1.0, likelihood_weight=0.5)


def trial(likelihoods, correct=None, heldout=(False, False, True)):
    return {"log_likelihood": list(likelihoods), "correct": correct, "heldout": list(heldout)}


BASE = trial([-4.0, -2.0, -9.0], [False, True, False])
BETTER = trial([-3.0, -1.0, -1.0], [True, True, None])


def test_accuracy_leaves_out_what_was_not_graded():
    assert accuracy(trial([0, 0, 0], [True, None, False])) == 0.5
    assert accuracy(trial([0, 0, 0], [None, None, None])) is None
    assert accuracy(trial([0, 0, 0])) is None  # nobody asked


def test_questions_in_the_reward_and_held_out_are_kept_apart():
    assert log_likelihood(BASE) == -5.0
    assert log_likelihood(BASE, heldout=False) == -3.0 and log_likelihood(BASE, heldout=True) == -9.0
    assert accuracy(BETTER, heldout=False) == 1.0 and accuracy(BETTER, heldout=True) is None
    assert log_likelihood(trial([-1.0], heldout=[False]), heldout=True) is None


def test_reward_is_a_weighted_sum_of_accuracy_and_gain():
    assert reward(BETTER, BASE, LIKELIHOOD) == pytest.approx(2.0 * (-2.0 + 3.0))
    assert reward(BETTER, BASE, ACCURACY) == 1.0
    assert reward(BETTER, BASE, BOTH) == pytest.approx(1.0 + 0.5)
    assert reward(BASE, BASE, LIKELIHOOD) == 0.0 and reward(BASE, BASE, ACCURACY) == 0.5


def test_the_reward_does_not_see_held_out_questions():
    other = trial([-3.0, -1.0, -100.0], [True, True, False])
    for weights in (LIKELIHOOD, ACCURACY, BOTH):
        assert reward(other, BASE, weights) == reward(BETTER, BASE, weights)
    assert reward(other, BASE, LIKELIHOOD, heldout=True) == pytest.approx(2.0 * (-100.0 + 9.0))


def test_a_trial_without_verdicts_has_no_accuracy_reward_but_a_gain():
    blank = trial([-3.0, -1.0, -1.0], [None, None, True])
    assert reward(blank, BASE, ACCURACY) is None and reward(blank, BASE, BOTH) is None
    assert reward(blank, BASE, LIKELIHOOD) == pytest.approx(2.0)


def test_the_mean_over_retrains_leaves_out_what_is_not_known():
    assert mean_reward([1.0, None, 2.0]) == 1.5
    assert mean_reward([None]) is None and mean_reward([]) is None


def test_scores_of_a_passage():
    found = scores(BASE, [[BETTER, BASE], [BETTER]], LIKELIHOOD)
    assert found == Scores([1.0, 2.0], 0.0, [8.0, 16.0], 0.0, [0.75, 1.0])
    nothing_held_out = trial([-1.0], heldout=[False])
    assert scores(nothing_held_out, [[nothing_held_out]], LIKELIHOOD) == Scores([0.0], 0.0, [None], None, [None])
