"""The run directory: lock, config, environment, checkpoints."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from seal_jax.config import MACHINE, defaults
from seal_jax.errors import UserError
from seal_jax.runs import checkpoint, environment
from seal_jax.runs.directory import open_run

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


def test_a_run_begun_before_a_field_existed_continues_with_its_default_alone(tmp_path):
    config = json.loads(json.dumps(defaults("knowledge", "continual")))
    old = {name: dict(group) if isinstance(group, dict) else group for name, group in config.items()}
    del old["knowledge"]["least_words"], old["continual"]
    open_run(tmp_path, old).close()
    with pytest.raises(UserError, match=r"knowledge.least_words: 0 -> 3$"):
        open_run(tmp_path, config | {"knowledge": config["knowledge"] | {"least_words": 3}})
    with open_run(tmp_path, config) as run:
        assert run.continued
    assert written(tmp_path) == config


RUN = {"outer": {"rounds": 2, "samples": 5}} | {group: {"x": 1} for group in MACHINE}


def written(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("group", MACHINE)
def test_a_run_continues_on_another_machine(tmp_path, group):
    open_run(tmp_path, RUN).close()
    for changed in (RUN | {group: {"x": 2, "y": (3,)}}, {k: v for k, v in RUN.items() if k != group}):
        with open_run(tmp_path, changed) as run:
            assert run.continued
        assert written(tmp_path) == json.loads(json.dumps(changed))
    assert len(json.loads((tmp_path / "environment.json").read_text())) == 3


def test_a_run_continues_with_more_rounds_and_not_with_fewer(tmp_path):
    open_run(tmp_path, RUN).close()
    more = RUN | {"outer": {"rounds": 3, "samples": 5}, "engine": {"x": 9}}
    with open_run(tmp_path, more) as run:
        assert run.continued
    assert written(tmp_path) == more
    with pytest.raises(UserError) as error:
        open_run(tmp_path, RUN)
    assert "outer.rounds: 3 -> 2" in str(error.value) and "engine" not in str(error.value)
    assert written(tmp_path) == more


def test_more_rounds_with_another_change_are_refused_for_that_change_alone(tmp_path):
    open_run(tmp_path, RUN).close()
    with pytest.raises(UserError) as error:
        open_run(tmp_path, RUN | {"outer": {"rounds": 3, "samples": 6}})
    assert "outer.samples: 5 -> 6" in str(error.value) and "outer.rounds" not in str(error.value)
    with pytest.raises(UserError, match="outer.rounds: 2 -> null"):
        open_run(tmp_path, RUN | {"outer": {"rounds": None, "samples": 5}})
    assert written(tmp_path) == RUN
    open_run(tmp_path, RUN | {"outer": {"rounds": 3, "samples": 5}}).close()
    with pytest.raises(UserError, match="outer.rounds: 3 -> 2"):  # which it is where it is not named
        open_run(tmp_path, RUN | {"outer": {"samples": 5}})


def test_a_start_that_computed_nothing_takes_its_config_back(tmp_path):
    with open_run(tmp_path, RUN) as run:
        run.forget()
    assert not (tmp_path / "config.json").exists()
    open_run(tmp_path, RUN).close()
    with open_run(tmp_path, RUN | {"outer": {"rounds": 3, "samples": 5}}) as run:
        run.forget()
    assert written(tmp_path) == RUN
    with open_run(tmp_path, RUN) as run:
        run.forget()
    assert written(tmp_path) == RUN


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
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json holds no config"):
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
