"""From a trial's record to its reward."""

from collections.abc import Sequence

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


def mean_reward(rewards: Sequence[float | None]) -> float:
    """Mean over the retrains that have a reward; minus infinity if none has, so that it is never the best."""
    known = [value for value in rewards if value is not None]
    return float(np.mean(known)) if known else float("-inf")
