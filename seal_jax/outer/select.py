"""Which self-edits teach the policy, from their rewards. Pure functions; indices are of the samples of one item."""

import random
from collections.abc import Sequence


def best_of(rewards: Sequence[float | None]) -> list[int]:
    """The one with the greatest reward, the first of equals, even when it does not beat the base (arXiv 2506.10943).

    A reward of None could not be graded and is never chosen.
    """
    known = [index for index, reward in enumerate(rewards) if reward is not None]
    return [max(known, key=lambda index: rewards[index])] if known else []


def above_base(rewards: Sequence[float | None], base: float | None) -> list[int]:
    """All samples that did better than the untrained model; none where its reward is not known."""
    if base is None:
        return []
    return [index for index, reward in enumerate(rewards) if reward is not None and reward > base]


def correct(accuracies: Sequence[float | None]) -> list[int]:
    """All samples after which every answer was right, in every retrain (the paper's rule for few-shot learning)."""
    return [index for index, accuracy in enumerate(accuracies) if accuracy == 1]


def random_choice(count: int, seed: str) -> int:
    """The control: one of `count` samples, whatever it earned; the same for the same seed."""
    return random.Random(seed).randrange(count)
