"""Two processes that share a run write what one writes; if one is lost the other says so and ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_run

ROOT = Path(__file__).resolve().parents[1]
MINUTE = 60


@pytest.fixture(scope="module")
def values(home):
    return tiny_run.tiny_values(home, outer={"rounds": 1, "random_control": False})


def start(values, folder, workdir):
    """Both processes of a run, one device each."""
    config = tiny_run.config_file(folder / "config.py", values | {"parallel": {"distributed": True}})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    command = [sys.executable, "-m", "seal_jax.main", f"--config={config}", f"--workdir={workdir}"]
    return [
        subprocess.Popen(
            command, env={**shared, "JAX_PROCESS_ID": str(rank)}, cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip


def finish(processes):
    outcomes = [process.communicate(timeout=10 * MINUTE) for process in processes]
    for process, (_, errors) in zip(processes, outcomes, strict=True):
        assert process.returncode == 0, errors[-4000:]
    return [out for out, _ in outcomes]


def by_key(records):
    """A stage's records stand in the order of its chunks, which depends on how many lanes there are."""
    return {name: sorted(found, key=lambda r: repr({**r, "loss": 0})) for name, found in records.items()}


def test_a_lost_process_ends_the_other_and_both_finish_the_run_later(values, tmp_path):
    alone = tmp_path / "alone"
    tiny_run.run(values, alone)
    workdir = tmp_path / "run"
    processes = start(values, tmp_path, workdir)
    edits = workdir / "self_edits.jsonl"
    while all(p.poll() is None for p in processes) and not (edits.exists() and edits.stat().st_size):
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)  # what schedulers send first
    killed = time.monotonic()
    _, errors = processes[0].communicate(timeout=2 * MINUTE)
    processes[1].communicate()
    assert processes[0].returncode not in (0, None) and time.monotonic() - killed < MINUTE
    assert "host" in errors.splitlines()[-1] or "distributed service" in errors, errors[-2000:]
    first, second = finish(start(values, tmp_path, workdir))
    assert "SEAL, round 1" in first and "SEAL, round 1" not in second
    tiny_run.same(by_key(tiny_run.records(workdir)), by_key(tiny_run.records(alone)))
