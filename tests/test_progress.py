"""Progress of a phase: plain lines, a bar in a terminal, and nothing on hosts other than the first."""

import io
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from seal_jax.engine.activity import Activity
from seal_jax.engine.programs import Programs
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


def test_a_line_comes_while_a_unit_takes_long_and_says_what_is_done(monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", 0.01)
    clock, out = Clock(), io.StringIO()
    plain = Console(file=out, force_terminal=False)
    with Progress("inner loops", 8, activity=lambda: "compiling (2 of 5)", console=plain, clock=clock) as progress:
        clock.now += 11
        deadline = time.monotonic() + 20
        while not out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        progress.advance(8)
    first, last = out.getvalue().splitlines()
    assert (first, last) == ("inner loops: 0/8, compiling (2 of 5)", "inner loops: 8/8, 1.4 s each, took 0:11")


def test_a_phase_without_units_shows_its_time():
    clock, out = Clock(), io.StringIO()
    with Progress("training", console=Console(file=out, force_terminal=False), clock=clock):
        clock.now += 75
    assert out.getvalue() == "training: took 1:15\n"


def test_what_an_engine_does_is_told_with_the_time_left_where_parts_are_even():
    clock, done = Clock(), [0]
    activity = Activity(clock)
    assert activity() == ""
    activity.show("training step", 4, lambda: done[0])
    assert activity() == "training step (0 of 4)"
    done[0], clock.now = 1, clock.now + 20
    before = activity.show("compiling", 3, lambda: 2, even=False)
    assert activity() == "compiling (2 of 3)"
    activity.restore(before)
    assert activity() == "training step (1 of 4), 1:00 left"
    activity.restore()
    assert activity() == ""


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_host_shows_progress(monkeypatch, first):
    monkeypatch.setattr(module, "is_first", lambda: first)
    for in_terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, force_terminal=in_terminal, width=100, _environ={"TERM": "xterm"})
        with Progress("answers", 4, console=console) as progress:
            progress.advance(4)
        assert ("4/4" in out.getvalue()) == first == bool(out.getvalue()) and progress.done == 4


def test_programs_tell_how_many_of_them_are_compiled():
    programs, told = Programs(), []
    calls = [SimpleNamespace(key=number, compile=lambda: told.append(programs.activity())) for number in range(3)]
    programs.prepare(calls)
    assert sorted(told)[0] == "compiling (0 of 3)" and set(told) <= {f"compiling ({n} of 3)" for n in range(3)}
    assert programs.activity() == "" and programs.count == 3
