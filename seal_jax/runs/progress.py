"""Progress of one phase: a live bar in a terminal, a plain line every ten seconds or so elsewhere."""

import threading
import time
from collections.abc import Callable

import rich.progress
from rich.console import Console

from seal_jax.parallel import is_first
from seal_jax.text import duration

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_LOOKS = 1.0


class Progress:
    """Counts `done` of `total` units of a phase and shows them with rate, time left, the current reward and what the
    engine does, all the time: also while a unit takes long. Nothing is shown on hosts other than the first.

    with Progress("self-edits", total=250, done=40) as progress:   # 40 were on disk already
        progress.advance(10, reward=0.31)
    """

    def __init__(
        self,
        title: str,
        total: int = 0,
        done: int = 0,
        activity: Callable[[], str] = str,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """total: 0 for a phase without units, of which the time is shown. activity() -> what is done right now, or an
        empty text. `console` and `clock` are for tests."""
        self.title, self.total, self.done = title, total, done
        self.reward: float | None = None
        self._activity = activity
        self._shown = is_first()
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._begin, self._done_before = clock(), done
        self._last_line = self._begin
        self._bar = _bar(self._console, total) if self._shown and self._console.is_terminal else None
        self._bar_task = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._watcher = threading.Thread(target=self._look, daemon=True)

    def advance(self, units: int = 1, reward: float | None = None) -> None:
        """Counts `units` more as done; `reward` replaces the one that is shown."""
        self.done += units
        self.reward = self.reward if reward is None else reward
        if self.done < self.total or self._bar is not None:
            self._show()

    def figures(self) -> str:
        """Rate of this process's work, time left (time taken, at the end), reward and activity, as text."""
        elapsed = self._clock() - self._begin
        fresh, over = self.done - self._done_before, self._ended.is_set() or 0 < self.total <= self.done
        figures = []
        if fresh > 0 and elapsed > 0:
            rate = fresh / elapsed
            figures.append(f"{rate:.2f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
            if self.done < self.total:
                figures.append(f"{duration((self.total - self.done) / rate)} left")
        if 0 < self.total <= self.done:
            figures.append(f"took {duration(elapsed)}")
        if not self.total:
            figures.append(f"took {duration(elapsed)}" if over else duration(elapsed))
        if self.reward is not None:
            figures.append(f"reward {self.reward:.3f}")
        doing = "" if over else self._activity()
        return ", ".join([*figures, *([doing] if doing else [])])

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
            self._bar_task = self._bar.add_task(self.title, total=self.total, completed=self.done, figures="")
        if self._shown:
            self._watcher.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        if self._watcher.is_alive():
            self._watcher.join()
        if self._bar is not None:
            self._update_bar()
            self._bar.stop()
        else:
            self._print_line()

    def _look(self) -> None:
        """Shows what goes on between two calls of `advance`, in a thread of its own."""
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            self._show()

    def _show(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._update_bar()
            elif self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
                self._print_line()

    def _update_bar(self) -> None:
        self._bar.update(self._bar_task, completed=self.done, figures=self.figures())

    def _print_line(self) -> None:
        if self._shown:
            self._last_line = self._clock()
            count, figures = f"{self.done}/{self.total}" if self.total else "", self.figures()
            line = f"{self.title}: {', '.join(part for part in (count, figures) if part)}"
            self._console.print(line, soft_wrap=True, markup=False, highlight=False)


def _bar(console: Console, total: int) -> rich.progress.Progress:
    counted = [rich.progress.BarColumn(), rich.progress.MofNCompleteColumn()] if total else []
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}", markup=False),
        *counted,
        rich.progress.TextColumn("{task.fields[figures]}", markup=False),
        console=console,
    )
