"""Pairs of sequences of which one is preferred, as the engine takes them for DPO. Host code, numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seal_jax.engine.packing import Candidate, Row


@dataclass(frozen=True)
class Pairs:
    """A learner whose rows are preferred to the `rejected` ones in the same places.

    reference: by how many nats the reference model's log-likelihood of the preferred one is greater.
    """

    learner: Candidate
    rejected: tuple[Row, ...]
    reference: tuple[float, ...]

    def slots(self) -> tuple[list[list[Row]], list[float]]:
        """([preferred rows, rejected rows], reference), pairs with the longest sequence first."""
        rows = zip(self.learner.rows, self.rejected, self.reference, strict=True)
        ordered = sorted(rows, key=lambda pair: -max(len(pair[0].tokens), len(pair[1].tokens)))
        preferred, rejected, reference = (list(part) for part in zip(*ordered, strict=True))
        return [preferred, rejected], reference


def pairs_of(slots: Sequence[int], reference: Sequence[float], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(reference, counts) of a step, float32 [A, B]: the pairs of these slots, then padding that does not count."""
    values, counts = (np.zeros(shape[0] * shape[1], np.float32) for _ in range(2))
    for place, slot in enumerate(slots):
        values[place], counts[place] = reference[slot], 1.0
    return values.reshape(shape), counts.reshape(shape)
