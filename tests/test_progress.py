"""Progress of a phase: plain lines, a bar in a terminal, and nothing on hosts other than the first."""

import io

import pytest
from rich.console import Console

from seal_jax.runs import progress as module
from seal_jax.runs.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_at_most_one_per_ten_seconds_and_one_at_the_end():
    clock, out = Clock(), io.StringIO()
    plain = Console(file=out, width=40, force_terminal=False)
    with Progress("self-edits", 100, done=40, console=plain, clock=clock) as progress:
        for i in range(30):
            clock.now += 1
            progress.advance(2, reward=i / 100)
    lines = out.getvalue().splitlines()
    assert lines == [
        "self-edits: 60/100, 2.00/s, 0:20 left, reward 0.090",
        "self-edits: 80/100, 2.00/s, 0:10 left, reward 0.190",
        "self-edits: 100/100, 2.00/s, took 0:30, reward 0.290",
    ]


def test_slow_units_long_times_and_the_end_of_a_broken_phase():
    clock, out = Clock(), io.StringIO()
    plain = Console(file=out, force_terminal=False)
    with pytest.raises(KeyError), Progress("finetune [x]", 1000, console=plain, clock=clock) as progress:
        clock.now += 4
        progress.advance()
        raise KeyError
    assert out.getvalue() == "finetune [x]: 1/1000, 4.0 s each, 1:06:36 left\n"


def test_a_terminal_gets_a_bar():
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with Progress("answers [x]", 4, console=terminal) as progress:
        progress.advance(4, reward=0.5)
        progress.advance(0)  # keeps the reward that is shown
    shown = out.getvalue()
    assert "answers [x]" in shown and "4/4" in shown and "reward 0.500" in shown and "━" in shown


@pytest.mark.parametrize("first, shown, printed", [(True, None, True), (False, None, False), (True, False, False),
                                                   (False, True, True)])  # fmt: skip
def test_only_the_first_host_shows_progress_unless_told_otherwise(monkeypatch, first, shown, printed):
    monkeypatch.setattr(module, "is_first", lambda: first)
    for in_terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, force_terminal=in_terminal, width=100, _environ={"TERM": "xterm"})
        with Progress("answers", 4, shown=shown, console=console) as progress:
            progress.advance(4)
        assert ("4/4" in out.getvalue()) == printed == bool(out.getvalue()) and progress.done == 4
