"""Which self-edits of one item teach the policy. Pure functions: the item's rollouts that could -> their samples.

Where rewards decide, a rollout without one is never chosen.
"""

import random
from collections.abc import Callable, Sequence

from seal_jax.outer.rollouts import Rollout
from seal_jax.rewards.reward import rounded

Rule = Callable[[Sequence[Rollout]], list[int]]


def best(found: Sequence[Rollout]) -> list[int]:
    """The one with the greatest reward, the first of equals, even if it does not beat the base (arXiv 2506.10943).

    One that was dropped from a race, and so was trained less often, is chosen only where no other has a reward.
    """
    known = [rollout for rollout in found if rollout.reward is not None]
    return [max(known, key=lambda rollout: (rollout.retrains, rounded(rollout.reward))).sample] if known else []


def above_base(found: Sequence[Rollout]) -> list[int]:
    """All that did better than the untrained student; none where its reward is not known."""
    known = [r for r in found if r.reward is not None and r.base is not None]
    return [rollout.sample for rollout in known if rounded(rollout.reward) > rounded(rollout.base)]


def correct(found: Sequence[Rollout]) -> list[int]:
    """All after which every answer was right, in every retrain (the paper's rule for few-shot learning)."""
    return [rollout.sample for rollout in found if rollout.reward is not None and rollout.accuracy == 1]


def best_and_worst(found: Sequence[Rollout]) -> list[int]:
    """[best, worst]: the best by `best`, and the first of those with the least reward; nothing unless it is less."""
    known = {rollout.sample: rounded(rollout.reward) for rollout in found if rollout.reward is not None}
    if not known:
        return []
    [top], least = best(found), min(known, key=known.__getitem__)
    return [top, least] if known[least] < known[top] else []


def pair_at_random(found: Sequence[Rollout], seed: str) -> list[int]:
    """Two of them in random order, whatever they earned; nothing where there is but one. The same for the same seed."""
    samples = [rollout.sample for rollout in found]
    return random.Random(seed).sample(samples, 2) if len(samples) > 1 else []


def at_random(found: Sequence[Rollout], count: int, seed: str) -> list[int]:
    """`count` of them (all if there are fewer), whatever they earned; the same for the same seed."""
    samples = [rollout.sample for rollout in found]
    return sorted(random.Random(seed).sample(samples, min(count, len(samples))))


RULES: dict[str, Rule] = {"best": best, "above_base": above_base, "correct": correct}
