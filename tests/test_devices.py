"""A whole run records on four devices what it records on one, and may be continued on two of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import tiny_run
from tiny_run import pick

from seal_jax.runs.keys import EVALUATION, REWARD, TRAIN, UNTRAINED
from seal_jax.runs.records import Records, read

HERE = Path(__file__).parent
# Three candidates in a chunk: of two devices one has a lane that idles, of four one has nothing to train.
CHANGES = {
    "data": {"train_items": 1, "evaluation_items": 1},
    "engine": {"candidates": 3, "segment": 8},
    "reward": {"accuracy_weight": 1.0},
    "outer": {"samples": 3, "random_control": False},
    "evaluation": {"samples": 3},
}


def run_on(devices: int, values: dict, workdir: Path) -> int:
    """Run a config in a process of its own, as the number of devices is fixed at start -> inner loops it trained."""
    file = workdir.parent / f"{workdir.name}.json"
    file.write_text(json.dumps(values))
    threads = {"NPROC": "32", "PJRT_NPROC": "32"}  # devices wait for each other: each needs a thread, cores or not
    environment = {**os.environ, **threads, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, str(HERE / "run_on_devices.py"), str(file), str(workdir)]
    done = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return int(done.stdout.splitlines()[-1].split()[0])


@pytest.fixture(scope="module")
def runs(home, actors, tmp_path_factory) -> dict[int, Path]:
    """The folders of the run on 1 device, in this process, and on 4."""
    assert jax.device_count() == 1
    folder, values = tmp_path_factory.mktemp("devices"), tiny_run.tiny_values(home, **CHANGES)
    tiny_run.finished(values, actors, folder / "on1")
    run_on(4, values, folder / "on4")
    return {devices: folder / f"on{devices}" for devices in (1, 4)}


def test_the_run_has_something_to_compare(runs):
    found = tiny_run.records(runs[1])
    trained = [trial for trial in found["trials"] if trial["loss"] is not None]
    assert len({edit["text"] for edit in found["self_edits"] if edit["text"]}) == len(found["self_edits"]) - 1 == 10
    assert len({trial["loss"] for trial in trained}) == len(trained) == 11
    assert len({answer for trial in trained for answer in trial["answers"]}) >= 3
    assert len(set(found["rollouts"][0]["rewards"])) == 3


def test_the_same_records(runs):
    """Texts, answers, verdicts and choices are equal, in the same order; losses and rewards to 1e-4 nats."""
    tiny_run.same(tiny_run.records(runs[1]), tiny_run.records(runs[4]))


def test_continued_on_other_devices_with_other_chunks(runs, home, tmp_path):
    """A run on one device that stopped after the first of three inner loops of the reward goes on with two devices."""
    workdir, whole = tmp_path / "run", tiny_run.records(runs[1])
    kept = {
        "rows": pick(whole["rows"], round=0),
        "self_edits": pick(whole["self_edits"], round=0) + pick(whole["self_edits"], split=TRAIN),
        "trials": pick(whole["trials"], split=EVALUATION, round=0)
        + pick(whole["trials"], purpose=UNTRAINED)
        + pick(whole["trials"], purpose=REWARD)[:1],
        "rollouts": [],
    }
    shutil.copytree(runs[1], workdir)
    shutil.rmtree(workdir / "checkpoints")
    for name, found in kept.items():
        (workdir / f"{name}.jsonl").unlink()
        with Records(workdir / f"{name}.jsonl") as file:
            file.append_many(found)
    engine = CHANGES["engine"] | {"candidates": 2, "decode_rows": 4}
    trained = run_on(2, tiny_run.tiny_values(home, **CHANGES | {"engine": engine}), workdir)
    assert trained == 2 + 3  # the other loops of the reward, and those of the row of round 1
    assert all(read(workdir / f"{name}.jsonl")[: len(found)] == found for name, found in kept.items())
    tiny_run.same(tiny_run.by_key(tiny_run.records(workdir)), tiny_run.by_key(whole))
