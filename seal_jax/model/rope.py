"""Rotary positions (arXiv 2104.09864): how fast each pair of features turns, and how published models slow that down
for texts longer than those of their pretraining."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Llama3:
    """Scaling of Llama 3: slow pairs are slowed by the factor, fast ones not, with a ramp between."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int

    def slower(self, frequencies: np.ndarray, theta: float) -> np.ndarray:
        """Frequencies [H/2] in radians per token -> the scaled ones."""
        turns = self.original_max_position * frequencies / (2 * math.pi)
        smooth = np.clip((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0.0, 1.0)
        return frequencies * (smooth + (1 - smooth) / self.factor)


@dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071, section 3.4): a ramp over the pairs, between those that turn `fast` and `slow` times in
    the original context, and `magnitude` by which queries and keys are lengthened. `whole`: the ramp begins and ends at
    whole pairs."""

    factor: float
    fast: float
    slow: float
    original_max_position: int
    magnitude: float
    whole: bool = True

    def slower(self, frequencies: np.ndarray, theta: float) -> np.ndarray:
        """Frequencies [H/2] in radians per token -> the scaled ones."""
        half = frequencies.size

        def pair_that_turns(times: float) -> float:
            return half * math.log(self.original_max_position / (times * 2 * math.pi)) / math.log(theta)

        low, high = pair_that_turns(self.fast), pair_that_turns(self.slow)
        if self.whole:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * half - 1)
        ramp = np.clip((np.arange(half) - low) / (high - low or 0.001), 0.0, 1.0)
        return frequencies * (1 - ramp + ramp / self.factor)


@dataclass(frozen=True)
class Linear:
    """All pairs are slowed by the same factor."""

    factor: float

    def slower(self, frequencies: np.ndarray, theta: float) -> np.ndarray:
        """Frequencies [H/2] in radians per token -> the scaled ones."""
        return frequencies / self.factor


@dataclass(frozen=True)
class Rope:
    """Rotary positions of base `theta`, with or without a scaling."""

    theta: float
    scaling: Llama3 | Yarn | Linear | None = None

    def frequencies(self, head_dim: int) -> np.ndarray:
        """Float32 [H/2], in radians per token."""
        plain = self.theta ** (-np.arange(0, head_dim, 2) / head_dim)
        found = plain if self.scaling is None else self.scaling.slower(plain, self.theta)
        return found.astype(np.float32)

    @property
    def magnitude(self) -> float:
        """By what queries and keys are multiplied as they are turned."""
        return self.scaling.magnitude if isinstance(self.scaling, Yarn) else 1.0
