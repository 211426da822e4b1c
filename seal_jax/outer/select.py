"""Which self-edits teach the policy, from their rewards. Pure functions; indices refer to the samples of one passage."""

import random
from collections.abc import Sequence


def best_of(rewards: Sequence[float]) -> int:
    """The greatest reward's index, the first of equals: kept even when it does not beat the base (arXiv 2506.10943)."""
    return max(range(len(rewards)), key=lambda index: rewards[index])


def above_base(rewards: Sequence[float], base: float) -> list[int]:
    """All samples that did better than the untrained model."""
    return [index for index, reward in enumerate(rewards) if reward > base]


def random_choice(count: int, seed: str) -> int:
    """The control: one of `count` samples, whatever it earned; the same for the same seed."""
    return random.Random(seed).randrange(count)
