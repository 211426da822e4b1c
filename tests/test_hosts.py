"""Two processes that share a run write what one writes; if one is lost the other says so and ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import tiny_run

from seal_jax.runs.records import read

ROOT = Path(__file__).resolve().parents[1]
MINUTE = 60

RUN = """
import sys
from seal_jax import main
sys.exit(main.main(["seal_jax", *sys.argv[1:]]))
"""
# Ends itself as by a scheduler once the first inner loops of a policy's row are recorded, where the other process
# needs it to go on.
LOST = """
import os, signal, sys
from seal_jax import main
from seal_jax.runs.ledger import Ledger

append = Ledger.append

def losing(self, records):
    append(self, records)
    if any(record.get("arm") == "SEAL" and "retrain" in record for record in records):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

Ledger.append = losing
sys.exit(main.main(["seal_jax", *sys.argv[1:]]))
"""


def start(values: dict, folder: Path, workdir: Path, second: str = RUN) -> list[subprocess.Popen]:
    """Both processes of a run, one device each; `second`: the code of the second one."""
    config = tiny_run.config_file(folder / "config.py", values | {"parallel": {"distributed": True}})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, f"--config={config}", f"--workdir={workdir}"],
            env={**shared, "JAX_PROCESS_ID": str(rank)}, cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank, code in enumerate((RUN, second))
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen]) -> list[str]:
    """What they printed."""
    outcomes = [process.communicate(timeout=10 * MINUTE) for process in processes]
    for process, (_, errors) in zip(processes, outcomes, strict=True):
        assert process.returncode == 0, errors[-4000:]
    return [out for out, _ in outcomes]


def test_a_lost_process_ends_the_other_and_both_finish_the_run_later(single, tmp_path):
    values, alone = single
    workdir = tmp_path / "run"
    first, second = start(values, tmp_path, workdir, LOST)
    second.communicate(timeout=10 * MINUTE)
    assert second.returncode == -signal.SIGTERM
    _, errors = first.communicate(timeout=2 * MINUTE)
    assert first.returncode not in (0, None)
    assert "host" in errors.splitlines()[-1] or "distributed service" in errors, errors[-2000:]
    kept = read(workdir / "trials.jsonl")
    first_out, second_out = finish(start(values, tmp_path, workdir))
    assert "SEAL, round 1" in first_out
    assert all(line.startswith("[Gloo]") for line in second_out.splitlines())  # the second shows nothing of its own
    assert kept and read(workdir / "trials.jsonl")[: len(kept)] == kept
    tiny_run.same(tiny_run.by_key(tiny_run.records(workdir)), tiny_run.by_key(tiny_run.records(alone)))
    assert (workdir / "report.html").exists()
