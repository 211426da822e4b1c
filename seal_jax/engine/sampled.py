"""Texts that a policy sampled and what they earned, as the engine takes them for policy gradients. Host code, numpy
only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seal_jax.engine.packing import Candidate


@dataclass(frozen=True)
class Objective:
    """clip, kl, normaliser and longest as in inner/policy_gradient.Program."""

    clip: float
    kl: float
    normaliser: str
    longest: int


@dataclass(frozen=True)
class Sampled:
    """A learner whose rows are prompts with sampled texts, whose tokens alone have weights.

    advantages: of each row; behaviour, reference: log-probabilities in nats of the weighted tokens of each row, under
    the policy that sampled it and under the one that must not be left.
    """

    learner: Candidate
    advantages: tuple[float, ...]
    behaviour: tuple[np.ndarray, ...]
    reference: tuple[np.ndarray, ...]

    def ordered(self) -> "Sampled":
        """The same with the longest rows first."""
        rows = self.learner.rows
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place].tokens))

        def sort(values: Sequence) -> tuple:
            return tuple(values[place] for place in order)

        learner = replace(self.learner, rows=sort(rows))
        return Sampled(learner, sort(self.advantages), sort(self.behaviour), sort(self.reference))

    def arrays(self, slots: Sequence[int], shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(behaviour [A, B, T], reference [A, B, T], advantages [A, B]) of a step with the rows of these slots."""
        micro, batch, length = shape
        behaviour, reference = (np.zeros((micro * batch, length), np.float32) for _ in range(2))
        advantages = np.zeros(micro * batch, np.float32)
        for place, slot in enumerate(slots):
            counts = np.flatnonzero(self.learner.rows[slot].weights)
            behaviour[place, counts], reference[place, counts] = self.behaviour[slot], self.reference[slot]
            advantages[place] = self.advantages[slot]
        return behaviour.reshape(shape), reference.reshape(shape), advantages.reshape(micro, batch)
