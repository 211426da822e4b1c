"""Progress of one phase: a live bar in a terminal, a plain line every ten seconds or so elsewhere."""

import time
from collections.abc import Callable

import rich.progress
from rich.console import Console

from seal_jax.parallel import is_first
from seal_jax.text import duration

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts `done` of `total` units of a phase and shows them with rate, time left and the current reward.

    with Progress("self-edits", total=250, done=40) as progress:   # 40 were on disk already
        progress.advance(10, reward=0.31)
    """

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        shown: bool | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`shown`: whether anything is printed; None: on the first host only. `console` and `clock` are for tests."""
        self.title, self.total, self.done = title, total, done
        self.reward: float | None = None
        self._shown = is_first() if shown is None else shown
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._begin, self._done_before = clock(), done
        self._last_line = self._begin
        self._bar = _bar(self._console) if self._shown and self._console.is_terminal else None
        self._bar_task = None

    def advance(self, units: int = 1, reward: float | None = None) -> None:
        """Counts `units` more as done; `reward` replaces the one that is shown."""
        self.done += units
        self.reward = self.reward if reward is None else reward
        if self._bar is not None:
            self._update_bar()
        elif self._clock() - self._last_line >= SECONDS_BETWEEN_LINES and self.done < self.total:
            self._print_line()

    def figures(self) -> str:
        """Rate, time left (time taken, at the end) and reward, as text; the rate is of this process's work only."""
        elapsed = self._clock() - self._begin
        fresh = self.done - self._done_before
        figures = []
        if fresh > 0 and elapsed > 0:
            rate = fresh / elapsed
            figures.append(f"{rate:.2f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
            if self.done < self.total:
                figures.append(f"{duration((self.total - self.done) / rate)} left")
        if self.done >= self.total:
            figures.append(f"took {duration(elapsed)}")
        if self.reward is not None:
            figures.append(f"reward {self.reward:.3f}")
        return ", ".join(figures)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
            self._bar_task = self._bar.add_task(self.title, total=self.total, completed=self.done, figures="")
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._update_bar()
            self._bar.stop()
        else:
            self._print_line()

    def _update_bar(self) -> None:
        self._bar.update(self._bar_task, completed=self.done, figures=self.figures())

    def _print_line(self) -> None:
        if self._shown:
            self._last_line = self._clock()
            figures = self.figures()
            line = f"{self.title}: {self.done}/{self.total}" + (f", {figures}" if figures else "")
            self._console.print(line, soft_wrap=True, markup=False, highlight=False)


def _bar(console: Console) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[figures]}", markup=False),
        console=console,
    )
