"""What an engine is doing right now, in words for the person who waits; another thread may ask at any time."""

import time
from collections.abc import Callable

from seal_jax.text import duration


class Activity:
    """One thing at a time, of so many parts: 'compiling (2 of 5)', 'training step (31 of 120), 0:42 left'."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._now: tuple | None = None

    def show(self, words: str, total: int, done: Callable[[], int], even: bool = True) -> tuple | None:
        """From now on `words` is what is done. done() -> how many of the `total` parts are finished; even: whether they
        take equally long, so that the time left can be told. Returns what was shown before, for `restore`."""
        before, self._now = self._now, (words, total, done, even, self._clock())
        return before

    def restore(self, before: tuple | None = None) -> None:
        """Show again what `show` returned; nothing without it."""
        self._now = before

    def __call__(self) -> str:
        """The words; empty where nothing is shown."""
        now = self._now
        if now is None:
            return ""
        words, total, done, even, began = now
        count, elapsed = min(done(), total), self._clock() - began
        left = f", {duration(elapsed / count * (total - count))} left" if even and 0 < count < total else ""
        return f"{words} ({count} of {total}){left}"
