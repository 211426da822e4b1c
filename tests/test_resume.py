"""A run that was stopped and started again is the run that was not, whatever stopped it and whatever may change."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from seal_jax.engine.engine import Engine
from seal_jax.errors import UserError
from seal_jax.runs import checkpoint
from seal_jax.runs.records import read


@pytest.fixture
def trained(monkeypatch) -> dict[str, int]:
    """How many inner loops were trained, and how often the policy was taught, from now on."""
    counts = {"loops": 0, "lessons": 0}
    finetune, teach = Engine.finetune, Engine.teach

    def counted(self, base, candidates, recipe):
        counts["loops"] += len(candidates)
        return finetune(self, base, candidates, recipe)

    def taught(self, *args):
        counts["lessons"] += 1
        return teach(self, *args)

    monkeypatch.setattr(Engine, "finetune", counted)
    monkeypatch.setattr(Engine, "teach", taught)
    return counts


def work(found: list[dict]) -> dict[str, int]:
    """What it took to make these records; of a choice of self-edits the finetuning before it, and of its phase."""
    loops = sum(record.get("sequences", 0) > 0 for record in found)
    rounds = {(record["arm"], record["round"]) for record in found if record.get("chosen") or "lessons" in record}
    return {"loops": loops, "lessons": len(rounds)}


def lost_records(lost: list[bytes]) -> list[dict]:
    return [json.loads(line) for group in lost for line in group.splitlines()]


def same_checkpoints(one: Path, other: Path, arms=("SEAL", "random")) -> None:
    for arm in arms:
        assert checkpoint.steps(one / "checkpoints" / arm) == checkpoint.steps(other / "checkpoints" / arm) != []
        for step in checkpoint.steps(one / "checkpoints" / arm):
            trees = [checkpoint.load(run / "checkpoints" / arm, step) for run in (one, other)]
            jax.tree.map(np.testing.assert_array_equal, *trees)


def test_a_finished_run_computes_nothing_again(whole, fast, monkeypatch, capsys):
    values, workdir = whole
    before = {file: file.read_bytes() for file in workdir.glob("*.jsonl")}
    for name in ("finetune", "teach", "generate", "log_likelihood"):
        monkeypatch.setattr(Engine, name, None)
    tiny_run.run(values, workdir)
    assert before == {file: file.read_bytes() for file in workdir.glob("*.jsonl")}
    assert "continuing" in capsys.readouterr().out


@pytest.mark.parametrize("half", [False, True])
def test_killed_at_every_group_of_records(whole, fast, tmp_path, monkeypatch, trained, half):
    values, workdir = whole
    at_once = work([record for found in tiny_run.records(workdir).values() for record in found])
    lost = []
    for count in (1, 2, 3, 5, 4, 7, 6, 9, 10, 8, 12, 11, 10_000):
        with monkeypatch.context() as patch:
            tiny_run.kill_at(patch, count + half, half, lost)
            try:
                tiny_run.run(values, tmp_path / "run")
            except tiny_run.Killed:
                continue
        break
    assert len(lost) >= 8
    again = [work([record]) for record in lost_records(lost) if "chosen" not in record]
    choices = {(record["arm"], record["round"]) for record in lost_records(lost) if record.get("chosen")}
    assert trained["loops"] == at_once["loops"] + sum(each["loops"] for each in again)  # no loop was trained twice
    assert trained["lessons"] == at_once["lessons"] + sum(each["lessons"] for each in again) + len(choices)
    assert tiny_run.records(tmp_path / "run") == tiny_run.records(workdir)
    same_checkpoints(tmp_path / "run", workdir)


@pytest.mark.parametrize("saved", [False, True])
def test_killed_before_and_after_a_checkpoint(whole, fast, tmp_path, monkeypatch, saved):
    values, workdir = whole

    def dying(folder, step, tree):
        if saved:
            save(folder, step, tree)
        raise tiny_run.Killed

    save = checkpoint.save
    for _ in range(3 if saved else 1):  # each start makes one more checkpoint, and dies
        with monkeypatch.context() as patch, pytest.raises(tiny_run.Killed):
            patch.setattr(checkpoint, "save", dying)
            tiny_run.run(values, tmp_path / "run")
    tiny_run.run(values, tmp_path / "run")
    assert tiny_run.records(tmp_path / "run") == tiny_run.records(workdir)
    same_checkpoints(tmp_path / "run", workdir)


def test_records_and_checkpoints_that_were_lost_are_made_again(whole, fast, tmp_path):
    values, workdir = whole
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "random")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "SEAL" / "2")
    for name in ("self_edits", "trials", "rollouts"):
        file = tmp_path / "run" / f"{name}.jsonl"
        file.write_bytes(file.read_bytes()[: -len(file.read_bytes()) // 3])
    tiny_run.run(values, tmp_path / "run")
    assert tiny_run.records(tmp_path / "run") == tiny_run.records(workdir)
    same_checkpoints(tmp_path / "run", workdir)


@pytest.mark.parametrize("purpose, count", [(b'"reward"', 2), (b'"log_probs"', 6)])
def test_continued_with_another_machine_half_and_one_more_round(
    whole, fast, home, tmp_path, monkeypatch, trained, purpose, count
):
    """Stopped in the middle of a stage of the only round, in which less was held at once than in the whole run."""
    values, workdir = whole
    first = tiny_run.tiny_values(home, engine={"candidates": 1, "decode_rows": 2})
    lost: list[bytes] = []
    with monkeypatch.context() as patch, pytest.raises(tiny_run.Killed):
        tiny_run.kill_at(patch, count, False, lost, purpose)
        tiny_run.run(first, tmp_path / "run")
    kept = {name: (tmp_path / "run" / f"{name}.jsonl").read_bytes() for name in ("self_edits", "trials")}
    stages = [{record["round"] for record in map(json.loads, found.splitlines())} for found in kept.values()]
    assert stages[0] == {0, 1} and len(lost_records(lost)) == 2
    assert purpose in kept["trials"] + kept["self_edits"]
    tiny_run.run(values, tmp_path / "run")
    found, expected = tiny_run.records(tmp_path / "run"), tiny_run.records(workdir)
    tiny_run.same(tiny_run.by_key(found), tiny_run.by_key(expected))
    assert all((tmp_path / "run" / f"{name}.jsonl").read_bytes().startswith(data) for name, data in kept.items())
    total = work([record for each in expected.values() for record in each])
    again = work(lost_records(lost))
    assert trained == {"loops": total["loops"] + again["loops"], "lessons": total["lessons"]}


DYING = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from seal_jax import main
from seal_jax.runs.records import Records

append = Records._append_bytes

def dying(self, data):
    if b'"purpose": "reward"' in data and b'"loss"' in data:
        os.write(self._file, data[: len(data) * 2 // 3])
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, data)

Records._append_bytes = dying
sys.exit(main.main(["seal_jax", *sys.argv[2:]]))
"""


def test_kill_9_and_the_same_command_again(single, tmp_path):
    """In processes of their own, through the command line; the first dies with a part of a group of records written."""
    values, workdir = single
    config = tiny_run.config_file(tmp_path / "config.py", values)
    arguments = [f"--config={config}", f"--workdir={tmp_path / 'run'}"]
    command = [sys.executable, "-c", DYING, str(Path(__file__).parent), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert len(read(tmp_path / "run" / "trials.jsonl")) == 14  # four rules 2 each, no RL 4, untrained of round 1 2
    result = subprocess.run([sys.executable, "-m", "seal_jax.main", *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert tiny_run.records(tmp_path / "run") == tiny_run.records(workdir)
    same_checkpoints(tmp_path / "run", workdir, arms=("SEAL",))
    # What a user sees: tables on stdout, plain lines of progress and nothing else on stderr.
    assert "Difference in log-likelihood" in result.stdout and "report.html" in result.stdout
    assert "continuing" in result.stdout and max(map(len, result.stdout.splitlines())) < 200
    lines = result.stderr.splitlines()
    assert all(": " in line and ("/" in line or ": took 0:" in line) for line in lines), result.stderr


def test_another_config_and_other_items_are_refused(whole, fast, home, tmp_path):
    _, workdir = whole
    shutil.copytree(workdir, tmp_path / "run")
    for outer, expected in (({"rounds": 2, "samples": 3}, "outer.samples: 2 -> 3"), ({"rounds": 1}, "rounds: 2 -> 1")):
        with pytest.raises(UserError, match=expected):
            tiny_run.run(tiny_run.tiny_values(home, outer=outer), tmp_path / "run")
    elsewhere = tmp_path / "train.json"
    shutil.copy(home / "train.json", elsewhere)
    moved = tiny_run.tiny_values(home, outer={"rounds": 0}, data={"train": str(elsewhere)})
    tiny_run.run(moved, tmp_path / "other")
    items = json.loads(elsewhere.read_text())
    items[0]["questions"][0]["answer"] = "Zinc"
    elsewhere.write_text(json.dumps(items))
    with pytest.raises(UserError, match="items are not those in"):
        tiny_run.run(moved, tmp_path / "other")
