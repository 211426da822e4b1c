"""A whole run records on two and on four devices what it records on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

HERE = Path(__file__).parent
# Three candidates in a chunk: of two devices one has a lane that idles, of four one has nothing to train.
CHANGES = {
    "data": {"train_passages": 1, "evaluation_passages": 1},
    "engine": {"candidates": 3, "segment": 8},
    "reward": {"accuracy_weight": 1.0},
    "outer": {"samples": 3, "random_control": False},
    "evaluation": {"samples": 3},
}


@pytest.fixture(scope="module")
def runs(home, tmp_path_factory):
    """Records of the run on 1, 2 and 4 devices, each in a process of its own, as their number is fixed at start."""
    folder, found = tmp_path_factory.mktemp("devices"), {}
    values = folder / "values.json"
    values.write_text(json.dumps(tiny_run.tiny_values(home, **CHANGES)))
    for devices in (1, 2, 4):
        workdir = folder / f"on{devices}"
        threads = {"NPROC": "32", "PJRT_NPROC": "32"}  # devices wait for each other: each needs a thread, cores or not
        quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # to compile takes most of the time
        given = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        environment = {**os.environ, **threads, **quick, **given}
        command = [sys.executable, str(HERE / "run_on_devices.py"), str(values), str(workdir)]
        done = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        found[devices] = tiny_run.records(workdir)
    return found


def test_the_run_has_something_to_compare(runs):
    trained = [trial for trial in runs[1]["trials"] if trial["loss"] is not None]
    assert len({edit["text"] for edit in runs[1]["self_edits"]}) == len(runs[1]["self_edits"]) == 9
    assert len({trial["loss"] for trial in trained}) == len(trained) == 10
    assert len({answer for trial in trained for answer in trial["answers"]}) >= 4
    assert len(set(runs[1]["selections"][0]["rewards"])) == 3


@pytest.mark.parametrize("devices", [2, 4])
def test_the_same_records(runs, devices):
    """Texts, answers, verdicts and choices are equal, in the same order; losses and rewards to 1e-4 nats."""
    tiny_run.same(runs[1], runs[devices])
