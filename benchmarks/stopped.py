"""A run that was stopped in every phase is the run that was not: by SIGKILL, SIGTERM, Ctrl-C, and by a full disk.

    PYTHONPATH=.:tests python benchmarks/stopped.py                  # a tiny random model, minutes
    PYTHONPATH=.:tests python benchmarks/stopped.py --disk           # the disk is full instead
    PYTHONPATH=.:tests python benchmarks/stopped.py --experiment continual

Every phase is stopped twice, where it begins and behind its first records, each time by the next of the three signals.
The full disk is a tmpfs of 24 MiB (which needs root), mounted for the run that is stopped. It is filled to the last
byte once in every phase, in turn where it begins and behind its first records; the run ends by itself, at once or after
what still went into the last pages of its files, and what filled the disk is removed before it goes on. A phase that
went in whole is not stopped again.

Afterwards the run is finished, and records, tables and checkpoints are compared with those of a run without a stop.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import test_continual
import test_pretraining
import tiny_run
from kill_resume import differences

from seal_jax import config, main
from seal_jax.experiments import assemble, rounds  # noqa: F401  (imported once, before the processes part)
from seal_jax.report import watch  # noqa: F401
from seal_jax.runs import keys
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.recorder import Recorder

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LOG = Path(tempfile.gettempdir()) / f"stopped-{os.getpid()}.log"  # of the last start
AT_BEGIN, BEHIND_RECORDS = "where it begins", "behind its first records"


Stop = tuple[str, str]  # the title of a phase, and where in it


@contextmanager
def waiting_at(stops: set[Stop], reached):
    """In this process, call reached(stop) at the first of some stops that it comes to."""
    enter, append, inside, left = Recorder.phase, Ledger.append, [None], [1]

    def here(now: str) -> None:
        if left and (inside[0], now) in stops:
            left.clear()
            reached((inside[0], now))

    @contextmanager
    def entered(self, stage):
        inside[0] = keys.title(stage)
        here(AT_BEGIN)
        with enter(self, stage) as facts:
            yield facts
        inside[0] = None

    def appended(self, records):
        append(self, records)
        here(BEHIND_RECORDS)

    Recorder.phase, Ledger.append = entered, appended
    yield


def child(values: dict, folder: Path, stops: set[Stop], reached) -> int:
    """A run in a process of its own -> its id; it calls reached(stop) at the first of its stops."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(LOG, "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    main.read_flags = lambda argv: (values, str(folder))
    with waiting_at(stops, reached):
        os._exit(main.main(["seal_jax"]))


def signalled(values: dict, folder: Path, stop: Stop, number: int) -> str:
    """Start the run, stop it by a signal -> how it ended; '' where it never came to that point."""
    read_end, write_end = os.pipe()

    def reached(stop: Stop) -> None:
        os.write(write_end, b"x")
        time.sleep(3600)

    process = child(values, folder, {stop}, reached)
    os.close(write_end)
    came = os.read(read_end, 1)  # nothing where the process has ended
    os.close(read_end)
    if came:
        os.kill(process, SIGNALS[number % 3])
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    expected = {signal.SIGKILL: -9, signal.SIGTERM: -15, signal.SIGINT: 130}[SIGNALS[number % 3]]
    if came and status != expected:
        raise SystemExit(f"{stop}: ended with {status}, not {expected}:\n{LOG.read_text()[-2000:]}")
    return SIGNALS[number % 3].name if came else ""


def by_signals(values: dict, folder: Path, phases: list[str]) -> int:
    """Stop the run twice in every phase -> how often it was stopped."""
    count = 0
    for number, stop in enumerate((phase, point) for phase in phases for point in (AT_BEGIN, BEHIND_RECORDS)):
        ended = signalled(values, folder, stop, number)
        count += bool(ended)
        print(f"{stop[0]}, {stop[1]}: {ended or 'has no such point'}", flush=True)
    return count


def by_full_disk(values: dict, folder: Path, phases: list[str]) -> int:
    """Fill the disk once in every phase that then still comes -> how often it was filled."""
    count, left = 0, list(phases)
    while left:
        stop = filled(values, folder, {(phase, point_in(phase, count)) for phase in left})
        if stop is None:
            print(f"finished; went into the last pages: {', '.join(left)}")
            return count
        count += 1
        print(f"{stop[0]}, {stop[1]}: full disk, status 2", flush=True)
        left = left[left.index(stop[0]) + 1 :]
    return count


def point_in(phase: str, number: int) -> str:
    """In turn the one and the other; in some phases nothing is recorded before their end."""
    whole = phase.endswith(("finetuning the policy", ": training", ": learning"))
    return BEHIND_RECORDS if number % 2 and not whole else AT_BEGIN


def filled(values: dict, folder: Path, stops: set[Stop]) -> Stop | None:
    """Start the run, fill its disk at the first stop that it comes to, and see it end with status 2 -> that stop."""
    filler, told = folder.parent / "filler", folder.parents[1] / "stop"

    def reached(stop: Stop) -> None:
        told.write_text("\n".join(stop))
        with open(filler, "ab", buffering=0) as file:
            size = 1 << 20
            while size:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    size //= 2

    told.unlink(missing_ok=True)
    status = os.waitstatus_to_exitcode(os.waitpid(child(values, folder, stops, reached), 0)[1])
    filler.unlink(missing_ok=True)
    stop = tuple(told.read_text().split("\n")) if told.exists() else None
    if status != (0 if stop is None else 2):
        raise SystemExit(f"{stop or 'without a stop'}: ended with {status}:\n{LOG.read_text()[-2000:]}")
    return stop


def finished(values: dict, folder: Path) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(child(values, folder, set(), None), 0)[1])
    if status:
        raise SystemExit(f"the run ended with status {status}:\n{LOG.read_text()[-2000:]}")


def make(home: Path, experiment: str) -> dict:
    """The config of a tiny run, with its model and passages in `home`."""
    (home / "cache").mkdir()
    tiny_run.make_model(home / "policy")
    tiny_run.make_passages(home / "train.json", "Bo")
    tiny_run.make_passages(home / "evaluation.json", "Cu", 2 if experiment == "rounds" else 4)
    tiny_run.make_passages(home / "many.json", "El", 3)
    if experiment == "rounds":
        return tiny_run.tiny_values(home, outer={"rounds": 1})
    if experiment == "continual":
        return test_continual.tiny_values(home, continual=test_continual.CONTROLS)
    if experiment == "grid":
        values, usual = config.defaults("knowledge", "grid"), test_pretraining.tiny_values(home)
        values |= {group: usual[group] for group in ("model", "sampling", "engine", "knowledge", "data", "evaluation")}
        values["inner"] |= {"rank": 2, "alpha": 4.0}
        values["grid"] |= {"rates": (1e-3, 1e-2), "epochs": (1, 2)}
        return values
    return test_pretraining.tiny_values(home)


def compare(values: dict, home: Path, disk: Path, how) -> None:
    """Stop a tiny run everywhere, print what happened, and end with status 1 where anything differs."""
    whole, stopped = home / "runs" / "whole", disk / "stopped"
    whole.parent.mkdir()
    finished(values, whole)
    titles = list(dict.fromkeys(keys.title(keys.Stage(r["split"], r["arm"], r["round"], r["purpose"]))
                                for r in tiny_run.read(whole / "phases.jsonl")))  # fmt: skip
    stops = how(values, stopped, titles)
    finished(values, stopped)
    found = differences(whole, stopped)
    print(f"{stops} stops in {len(titles)} phases: " + (f"different: {', '.join(found)}" if found else "no difference"))
    raise SystemExit(bool(found))


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disk", action="store_true", help="fill the disk instead of sending signals")
    parser.add_argument("--experiment", choices=("rounds", "pretraining", "continual", "grid"), default="rounds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        disk = home / "disk"
        disk.mkdir()
        values = make(home, options.experiment)
        if not options.disk:
            compare(values, home, disk, by_signals)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
        try:
            compare(values, home, disk, by_full_disk)
        finally:
            LOG.unlink(missing_ok=True)
            subprocess.run(["umount", str(disk)], check=True)


if __name__ == "__main__":
    run()
