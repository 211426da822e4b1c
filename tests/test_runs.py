"""The run directory: lock, config, environment, checkpoints, metrics, progress."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from seal_jax.errors import UserError
from seal_jax.runs import checkpoint, environment
from seal_jax.runs.directory import open_run
from seal_jax.runs.metrics import Metrics
from seal_jax.runs.progress import Progress

# ---------------------------------------------------------------- directory

CONFIG = {"seed": 1, "inner": {"learning_rate": 1e-3, "targets": ("q_proj", "v_proj")}, "judge": {"kind": "lexical"}}


def test_the_same_config_continues_and_each_start_is_described(tmp_path):
    with open_run(tmp_path / "a run", CONFIG, devices=["cpu:0"]) as run:
        assert not run.continued
    with open_run(tmp_path / "a run", CONFIG, devices=["cpu:0", "cpu:1"]) as run:
        assert run.continued
    assert json.loads((tmp_path / "a run" / "config.json").read_text())["inner"]["targets"] == ["q_proj", "v_proj"]
    starts = json.loads((tmp_path / "a run" / "environment.json").read_text())
    assert [start["devices"] for start in starts] == [["cpu:0"], ["cpu:0", "cpu:1"]]
    assert starts[0]["packages"]["jax"]


def test_a_different_config_is_refused_with_the_keys_and_both_values(tmp_path):
    open_run(tmp_path, CONFIG).close()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other = {"seed": 1, "inner": CONFIG["inner"] | {"learning_rate": 2e-3}, "judge": {"kind": "remote", "model": "m"}}
    with pytest.raises(UserError) as error:
        open_run(tmp_path, other)
    message = str(error.value)
    assert "inner.learning_rate: 0.001 -> 0.002" in message
    assert 'judge.kind: "lexical" -> "remote"' in message
    assert 'judge.model: (absent) -> "m"' in message
    assert "--workdir" in message and "seed" not in message and "targets" not in message
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert {**after, ".lock": b""} == {**before, ".lock": b""}
    open_run(tmp_path, CONFIG).close()  # the refusal released the lock


def test_records_without_a_config_are_not_taken_over(tmp_path):
    (tmp_path / "edits.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="no config.json"):
        open_run(tmp_path, CONFIG)
    assert not (tmp_path / "config.json").exists()


def test_a_log_file_in_the_folder_does_not_hinder(tmp_path):
    (tmp_path / "log.txt").write_text("started\n")
    open_run(tmp_path, CONFIG).close()


def test_broken_config_and_a_file_as_workdir_are_user_errors(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        open_run(tmp_path, CONFIG)
    with pytest.raises(UserError, match="cannot be a run directory"):
        open_run(tmp_path / "config.json", CONFIG)


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    code = "import sys; from seal_jax.runs import directory; r = directory.open_run(sys.argv[1], {}); print(1); input()"
    holder = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "1\n"
    with pytest.raises(UserError, match=f"in use by process {holder.pid}"):
        open_run(tmp_path, {})
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    open_run(tmp_path, {}).close()


# ---------------------------------------------------------------- environment


def test_secrets_are_hidden_and_the_rest_is_not():
    environ = {
        "OPENAI_API_KEY": "very-secret-value",
        "MY_TOKEN": "tok-en-12345",
        "TOKENIZERS_PARALLELISM": "false",
        "HOME": "/home/someone",
    }
    arguments = [
        "main.py", "--x=very-secret-value/tok-en-12345", "--api_key=abc", "--judge.api_key=abc", "--token", "abc",
        "--url=https://user:abc@host/v1?token=abc&n=1", "sk-abcdefghijkl", "--max_new_tokens=64", "--shuffle=false",
        "--key_variable=OPENAI_API_KEY", "/home/someone/keys.json",
    ]  # fmt: skip
    assert environment.hide_secrets(arguments, environ) == [
        "main.py", "--x=***/***", "--api_key=***", "--judge.api_key=***", "--token", "***",
        "--url=https://***@host/v1?token=***&n=1", "***", "--max_new_tokens=64", "--shuffle=false",
        "--key_variable=OPENAI_API_KEY", "/home/someone/keys.json",
    ]  # fmt: skip


def test_no_secret_variable_reaches_the_description(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret-value")
    monkeypatch.setenv("JAX_CLOUD_TOKEN", "other-secret")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/very-secret-value")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    text = json.dumps(environment.describe(["cpu:0"], argv=["main.py", "--x=very-secret-value"]))
    assert "very-secret-value" not in text and "other-secret" not in text and "JAX_CLOUD_TOKEN" not in text
    described = json.loads(text)
    assert described["variables"]["JAX_PLATFORMS"] == "cpu"
    assert described["variables"]["XLA_FLAGS"] == "--xla_dump_to=/tmp/***"
    assert described["packages"]["numpy"] == np.__version__


def test_the_commit_is_that_of_this_repository_only(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@e"]
    (tmp_path / "inside").mkdir()
    (tmp_path / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "m"]):
        subprocess.run([*git, *arguments], check=True)
    commit = environment._commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert environment._commit(tmp_path) == commit + "+changes"
    assert environment._commit(tmp_path / "inside") is None


# ---------------------------------------------------------------- checkpoint


def example_tree(value: float) -> dict:
    return {
        "adapter": {"A": np.full((2, 3), value, np.float32), "B": np.full(4, value, ml_dtypes.bfloat16)},
        "optimizer": optax.adamw(1e-3).init({"w": jnp.full(3, value)}),
        "round": 3,
    }


def test_a_checkpoint_comes_back_as_numpy(tmp_path):
    assert checkpoint.steps(tmp_path / "absent") == []
    folder = tmp_path / "check points"
    for step in (2, 10, 1, 30):
        checkpoint.save(folder, step, example_tree(step))
    assert checkpoint.steps(folder) == [1, 2, 10, 30]
    tree = checkpoint.load(folder, 10)
    assert isinstance(tree["adapter"]["A"], np.ndarray) and tree["adapter"]["B"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(tree["adapter"]["B"].astype(np.float32), np.full(4, 10))
    assert tree["round"] == 3
    like = example_tree(0.0)
    tree = checkpoint.load(folder, 2, like)
    assert type(tree["optimizer"][0]) is type(like["optimizer"][0])
    assert isinstance(tree["optimizer"][0].mu["w"], np.ndarray)
    np.testing.assert_array_equal(tree["adapter"]["A"], np.full((2, 3), 2.0))


def test_saving_a_step_again_replaces_it(tmp_path):
    for value in (1.0, 2.0):
        checkpoint.save(tmp_path, 1, {"x": np.full(2, value)})
    np.testing.assert_array_equal(checkpoint.load(tmp_path, 1)["x"], [2.0, 2.0])


def test_wrong_step_structure_and_shape_are_user_errors(tmp_path):
    checkpoint.save(tmp_path, 1, {"x": np.zeros(2)})
    with pytest.raises(UserError, match=r"step 7, only of \[1\]"):
        checkpoint.load(tmp_path, 7)
    with pytest.raises(UserError, match="structure"):
        checkpoint.load(tmp_path, 1, {"y": np.zeros(2)})
    with pytest.raises(UserError, match=r"\['x'\] has shape \(2,\), expected \(3,\)"):
        checkpoint.load(tmp_path, 1, {"x": np.zeros(3)})


KILLED_SAVER = """
import os, signal, sys
import numpy as np
from seal_jax.runs import checkpoint
checkpoint.save(sys.argv[1], 1, {"x": np.zeros(1000)})
rename = os.rename
def killed(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
os.rename = os.replace = killed   # the step that makes a checkpoint visible
checkpoint.save(sys.argv[1], 2, {"x": np.zeros(1000)})
"""


def test_a_save_killed_half_way_is_not_complete_and_can_be_made_again(tmp_path):
    result = subprocess.run([sys.executable, "-c", KILLED_SAVER, str(tmp_path)], capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    leftovers = [name for name in os.listdir(tmp_path) if name.startswith("2")]
    assert leftovers, "the kill came before anything was written: the test tests nothing"
    assert checkpoint.steps(tmp_path) == [1]
    with pytest.raises(UserError, match="no complete checkpoint of step 2"):
        checkpoint.load(tmp_path, 2)
    checkpoint.save(tmp_path, 3, {"x": np.zeros(1000)})
    assert sorted(os.listdir(tmp_path)) == ["1", "3"], "the next save sweeps the half-written one away"
    checkpoint.save(tmp_path, 2, {"x": np.ones(1000)})
    assert checkpoint.steps(tmp_path) == [1, 2, 3]
    np.testing.assert_array_equal(checkpoint.load(tmp_path, 2)["x"], np.ones(1000))


def test_checkpoints_leave_no_threads(tmp_path):
    gc.collect()
    before = set(threading.enumerate())
    for step in range(3):
        checkpoint.save(tmp_path, step, {"x": np.zeros(2)})
        checkpoint.load(tmp_path, step)
    gc.collect()
    assert not [thread.name for thread in set(threading.enumerate()) - before if not thread.daemon]


# ---------------------------------------------------------------- metrics


def read_events(folder: Path) -> list[Event]:
    """The events of the one file in `folder` (each: length, checksum, data, checksum)."""
    (file,) = folder.glob("events.*")
    data, events = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_scalars_and_texts_reach_tensorboard(tmp_path):
    with Metrics(tmp_path / "metrics") as metrics:
        metrics.scalars(3, {"reward/mean": np.float32(0.25)})
        metrics.text(3, "self-edit", "1. a\n* b")
    values = [(event.step, value) for event in read_events(tmp_path / "metrics") for value in event.summary.value]
    assert [(step, value.tag) for step, value in values] == [(3, "reward/mean"), (3, "self-edit/text_summary")]
    assert values[0][1].simple_value == 0.25
    assert values[1][1].tensor.string_val[0] == b"    1. a\n    * b\n"


def test_other_processes_write_no_metrics(tmp_path):
    with Metrics(tmp_path / "metrics", enabled=False, wandb_project="p") as metrics:
        metrics.scalars(1, {"x": 1.0})
        metrics.text(1, "x", "y")
        metrics.flush()
    assert not (tmp_path / "metrics").exists()


def test_wandb_only_when_asked_for_and_continued_under_the_same_id(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values):
            calls.append(values)

        def finish(self):
            calls.append("finish")

    fake = ModuleType("wandb")
    fake.__spec__ = ModuleSpec("wandb", None)
    fake.init = lambda **options: (calls.append(options), Run())[1]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with Metrics(tmp_path) as metrics:
        metrics.scalars(1, {"x": 1.0})
    assert calls == []
    for _ in range(2):
        with Metrics(tmp_path, wandb_project="p", config={"seed": 1}) as metrics:
            metrics.scalars(2, {"x": 1.0})
    first, second = calls[0], calls[3]
    assert first["project"] == "p" and first["config"] == {"seed": 1} and first["resume"] == "allow"
    assert first["id"] == second["id"] and calls[1] == {"step": 2, "x": 1.0} and calls[2] == "finish"


def test_wandb_asked_for_but_absent(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="wandb is not installed"):
        Metrics(tmp_path, wandb_project="p")


# ---------------------------------------------------------------- progress


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


def test_a_terminal_gets_a_bar_and_disabled_gets_nothing():
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with Progress("answers", 4, console=terminal) as progress:
        progress.advance(4, reward=0.5)
    assert "4/4" in out.getvalue() and "reward 0.500" in out.getvalue() and "━" in out.getvalue()
    silent = io.StringIO()
    with Progress("answers", 4, enabled=False, console=Console(file=silent, force_terminal=True)) as progress:
        progress.advance(4)
    assert silent.getvalue() == "" and progress.done == 4
