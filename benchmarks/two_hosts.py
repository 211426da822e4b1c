"""Do two processes that share a run print the table of one, and does a run that lost one of them go on?

    python benchmarks/two_hosts.py --config=configs/quickstart.py:smoke [--share 0.5] [--lost 1]

Runs the config alone, then by two processes of one CPU device each, of which the one numbered `--lost` is killed when
`--share` of the records are there (number 0 is the one that writes them): the other must end within a minute with a
sentence. Both are started again, and the printed tables of the evaluation must be those of the run alone. Ends with
status 1 if anything differs. Further arguments, such as --config.outer.samples=2, go to all runs.
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

from kill_resume import evaluation, finish, size, start

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


def lose_one(processes: list[subprocess.Popen], lost: int, workdir: Path, enough: float) -> None:
    """Kill one process when there are `enough` bytes of records. Raises SystemExit if the other goes on."""
    while all(process.poll() is None for process in processes) and size(workdir) < enough:
        time.sleep(0.1)
    other = processes[1 - lost]
    processes[lost].send_signal(signal.SIGKILL)
    began = time.monotonic()
    processes[lost].communicate()
    try:
        errors = other.communicate(timeout=MINUTE)[1]
    except subprocess.TimeoutExpired:
        other.kill()
        raise SystemExit("the other process still ran a minute after one was killed") from None
    lines = errors.strip().splitlines()
    said = next((line for line in lines if "distributed service" in line), lines[-1] if lines else "nothing")
    print(f"{time.monotonic() - began:.0f} s after the kill, with status {other.returncode}: {said}", flush=True)
    if not other.returncode:
        raise SystemExit("the other process ended as if nothing had happened")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--share", type=float, default=0.5, help="of the records, after which one process is killed")
    parser.add_argument("--lost", type=int, choices=(0, 1), default=1, help="which process is killed")
    parser.add_argument("--folder", type=Path, help="where both runs are kept; a temporary folder otherwise")
    options, further = parser.parse_known_args()
    arguments = [f"--config={options.config}", *further]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        alone, shared = folder / "alone", folder / "shared"
        finish(start(arguments, alone))
        lose_one(start_both(arguments, shared), options.lost, shared, options.share * size(alone))
        for process in start_both(arguments, shared):
            finish(process)
        print(evaluation(shared))
        same = evaluation(alone) == evaluation(shared)
        print("the tables are the same" if same else f"the run alone has\n{evaluation(alone)}")
    raise SystemExit(not same)


if __name__ == "__main__":
    main()
