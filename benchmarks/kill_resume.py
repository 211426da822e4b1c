"""Is a run that was killed the run that was not? Kills one with SIGKILL at random moments and compares everything.

    python benchmarks/kill_resume.py --config=configs/quickstart.py:smoke --kills=5 --seed=0

Runs the config once without interruption, then again, killed `--kills` times and started anew each time. Compares the
records, the tables and the checkpoints exactly; ends with status 1 if anything differs. Further arguments, such as
--config.outer.samples=2, go to both runs.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from etils import epath

from seal_jax.report import tables, terminal
from seal_jax.report.recorded import load
from seal_jax.runs import checkpoint
from seal_jax.runs.records import read

RECORDS = ("rows", "items", "self_edits", "trials", "rollouts", "updates")  # phases and metrics hold times
POLL = 0.02  # seconds between two looks at the records
LAST = 0.95  # share of the records after which no kill is planned: the run might end first


def start(arguments: list[str], workdir: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "seal_jax.main", *arguments, f"--workdir={workdir}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    """Waits for the end of a run. Raises SystemExit, with what it wrote, if it failed."""
    errors = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"the run ended with status {process.returncode}:\n{errors}")


def size(workdir: Path) -> int:
    """Bytes of records that are on disk."""
    return sum((workdir / f"{name}.jsonl").stat().st_size for name in RECORDS if (workdir / f"{name}.jsonl").exists())


def kill_when(process: subprocess.Popen, workdir: Path, enough: float, delay: float) -> int:
    """Kills the run `delay` seconds after its records have grown to `enough` bytes; returns their size then."""
    while process.poll() is None and size(workdir) < enough:
        time.sleep(POLL)
    if process.poll() is None:
        time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    errors = process.communicate()[1]
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"the run ended by itself with status {process.returncode} before it was killed:\n{errors}")
    return size(workdir)


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in the two runs, in words."""
    found = [name for name in RECORDS if read(one / f"{name}.jsonl") != read(other / f"{name}.jsonl")]
    found += [] if numbers(one) == numbers(other) else ["the tables"]
    roots = [run / "checkpoints" for run in (one, other)]
    marks = [(root, mark) for root in roots for mark in root.rglob("_CHECKPOINT_METADATA")]
    for arm in sorted({mark.parents[1].relative_to(root) for root, mark in marks}):
        places = [root / arm for root in roots]
        steps, others = (checkpoint.steps(place) for place in places)
        if steps != others:
            found.append(f"the rounds of {arm} that have checkpoints")
        for step in set(steps) & set(others):
            trees = [jax.tree.leaves(checkpoint.load(place, step)) for place in places]
            if not all(np.array_equal(a, b) for a, b in zip(*trees, strict=True)):
                found.append(f"the checkpoint of {arm}, round {step}")
    return found


def evaluation(workdir: Path) -> str:
    """The tables of the evaluation as a run prints them."""
    recorded = load(epath.Path(workdir))
    return terminal.show_rows(recorded, tables.lines(recorded))


def numbers(workdir: Path) -> str:
    """What the tables of a run hold, with every digit."""
    recorded = load(epath.Path(workdir))
    return "\n".join(map(repr, [*tables.lines(recorded), *tables.rounds(recorded.rollouts)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where both runs are kept; a temporary folder otherwise")
    options, further = parser.parse_known_args()
    arguments = [f"--config={options.config}", *further]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        whole, killed = folder / "whole", folder / "killed"
        began = time.time()
        finish(start(arguments, whole))
        seconds, total = time.time() - began, size(whole)
        print(f"without interruption: {seconds:.0f} s, {total:,} bytes of records", flush=True)
        rng = random.Random(options.seed)
        for share in sorted(rng.uniform(0, LAST) for _ in range(options.kills)):
            delay = rng.uniform(0, seconds / 20)
            left = kill_when(start(arguments, killed), killed, share * total, delay)
            print(f"killed with {left / total:.0%} of the records written", flush=True)
        finish(start(arguments, killed))
        found = differences(whole, killed)
        print(evaluation(killed))
        print(f"different: {', '.join(found)}" if found else "records, tables and checkpoints are the same")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
