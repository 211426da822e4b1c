"""Do two processes that share a run print the table of one, and does a run that lost one of them go on?

    python benchmarks/two_hosts.py --config=configs/quickstart.py:smoke [--share 0.5]

Runs the config alone, then by two processes of one CPU device each, of which the second is killed when `--share` of the
records are there: the first must end within a minute with a sentence. Both are started again, and the printed tables
of the evaluation must be those of the run alone. Ends with status 1 if anything differs. Further arguments, such as
--config.outer.samples=2, go to all runs.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill_resume import finish, size, start

from seal_jax.runs import table, terminal
from seal_jax.runs.records import read

MINUTE = 60


def start_both(arguments: list[str], workdir: Path) -> list[subprocess.Popen]:
    """Both processes of a run; the first one writes the records."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    command = [sys.executable, "-m", "seal_jax.main", *arguments, f"--workdir={workdir}"]
    return [
        subprocess.Popen(
            [*command, "--config.parallel.distributed=True"], env={**shared, "JAX_PROCESS_ID": str(rank)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip


def printed(workdir: Path) -> str:
    """The tables of the evaluation as a run prints them."""
    trials = read(workdir / "trials.jsonl")
    return terminal.show_rows(table.lines(trials), table.judge_of(trials))


def lose_one(processes: list[subprocess.Popen], workdir: Path, enough: float) -> None:
    """Kill the second process when there are `enough` bytes of records. Raises SystemExit if the first goes on."""
    while all(process.poll() is None for process in processes) and size(workdir) < enough:
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    processes[1].communicate()
    try:
        errors = processes[0].communicate(timeout=MINUTE)[1]
    except subprocess.TimeoutExpired:
        processes[0].kill()
        raise SystemExit("the first process still ran a minute after the second was killed") from None
    lines = errors.strip().splitlines()
    said = next((line for line in lines if "distributed service" in line), lines[-1] if lines else "nothing")
    print(f"{time.monotonic() - began:.0f} s after the kill, with status {processes[0].returncode}: {said}", flush=True)
    if not processes[0].returncode:
        raise SystemExit("the first process ended as if nothing had happened")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--share", type=float, default=0.5, help="of the records, after which one process is killed")
    parser.add_argument("--folder", type=Path, help="where both runs are kept; a temporary folder otherwise")
    options, further = parser.parse_known_args()
    arguments = [f"--config={options.config}", *further]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        alone, shared = folder / "alone", folder / "shared"
        finish(start(arguments, alone))
        lose_one(start_both(arguments, shared), shared, options.share * size(alone))
        for process in start_both(arguments, shared):
            finish(process)
        print(printed(shared))
        same = printed(alone) == printed(shared)
        print("the tables are the same" if same else f"the run alone has\n{printed(alone)}")
    raise SystemExit(not same)


if __name__ == "__main__":
    main()
