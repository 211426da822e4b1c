"""Means over items with their 95% intervals."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
Z = float(stats.norm.ppf((1 + LEVEL) / 2))
DIGITS = 9  # values that agree in these are equal: what differs further behind is rounding error


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` items with its 95% interval [low, high], which is nan where nothing is known of it."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def has_interval(self) -> bool:
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def symmetric(self) -> bool:
        """Whether the interval reaches equally far to both sides of the mean, so that ± can be written."""
        return self.has_interval and round(self.high - self.mean, DIGITS) == round(self.mean - self.low, DIGITS)

    @property
    def includes_zero(self) -> bool:
        return round(self.low, DIGITS) <= 0 <= round(self.high, DIGITS)


def estimate(values: Iterable[float], bounds: tuple[float, float] | None = None) -> Estimate:
    """The mean of independent values, one of each item, and its 95% interval.

    Values that differ have Student's t-interval. One value has no interval. Where two or more values all agree, their
    spread says nothing: a measure that lies within `bounds` has Wilson's bounds for an event that never occurred in
    `count` trials, applied to the distance from each bound; a measure without bounds has no interval.
    """
    found = np.asarray(list(values), float)
    count = len(found)
    mean = float(found.mean()) if count else float("nan")
    if count < 2:
        return Estimate(mean, float("nan"), float("nan"), count)
    if np.ptp(found.round(DIGITS)) > 0:
        half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * found.std(ddof=1) / np.sqrt(count))
        return Estimate(mean, mean - half, mean + half, count)
    if bounds is None:
        return Estimate(mean, float("nan"), float("nan"), count)
    share = Z**2 / (count + Z**2)
    return Estimate(mean, mean - share * (mean - bounds[0]), mean + share * (bounds[1] - mean), count)
