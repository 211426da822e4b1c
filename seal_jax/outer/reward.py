"""From a trial's record to its reward."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seal_jax.config import Reward


def accuracy(trial: dict, heldout: bool | None = None) -> float | None:
    """Share of right answers among those that could be graded; None if there are none.

    `heldout` True or False counts only the questions that are, or are not, kept out of the reward.
    """
    if trial["correct"] is None:
        return None
    graded = [
        correct
        for correct, held in zip(trial["correct"], trial["heldout"], strict=True)
        if correct is not None and heldout in (None, held)
    ]
    return float(np.mean(graded)) if graded else None


def log_likelihood(trial: dict, heldout: bool | None = None) -> float | None:
    """Mean over questions of the gold answer's log-likelihood, in nats per token; `heldout` as in `accuracy`."""
    kept = [v for v, held in zip(trial["log_likelihood"], trial["heldout"], strict=True) if heldout in (None, held)]
    return float(np.mean(kept)) if kept else None


def reward(trial: dict, base: dict, weights: Reward, heldout: bool = False) -> float | None:
    """accuracy_weight × accuracy + likelihood_weight × gain over `base`, the untrained student's trial.

    Over the questions in the reward (or, with `heldout`, over the others); None if accuracy counts and nothing could be
    graded, or no question is held out.
    """
    gain = log_likelihood(trial, heldout)
    if gain is None:
        return None
    total = weights.likelihood_weight * (gain - log_likelihood(base, heldout))
    if weights.accuracy_weight == 0:
        return total
    right = accuracy(trial, heldout)
    return None if right is None else total + weights.accuracy_weight * right


def mean_reward(rewards: Sequence[float | None]) -> float | None:
    """Mean over the retrains that have a reward; None if none has."""
    known = [value for value in rewards if value is not None]
    return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class Scores:
    """What the self-edits of one item earned and what the untrained student would have; None where it is not known.

    `heldout_`: the same on the questions that are kept out of the reward, for the report alone. `accuracies`: of each
    self-edit on the questions in the reward, whatever their part in it.
    """

    rewards: list[float | None]
    base: float | None
    heldout_rewards: list[float | None]
    heldout_base: float | None
    accuracies: list[float | None]


def scores(base: dict, samples: Sequence[Sequence[dict]], weights: Reward) -> Scores:
    """From the trials of one item: that of the untrained student, and those of its self-edits, [sample][retrain]."""

    def mean(trials: Sequence[dict], heldout: bool) -> float | None:
        return mean_reward([reward(trial, base, weights, heldout) for trial in trials])

    return Scores(
        [mean(trials, False) for trials in samples],
        mean([base], False),
        [mean(trials, True) for trials in samples],
        mean([base], True),
        [mean_reward([accuracy(trial, False) for trial in trials]) for trials in samples],
    )
