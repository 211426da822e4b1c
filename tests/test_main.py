"""The command line: whatever is wrong with it is one sentence, without a traceback, and ends with status 2."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

from seal_jax import main
from seal_jax.errors import UserError
from seal_jax.runs.directory import open_run
from seal_jax.runs.records import read

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = f"--config={ROOT / 'configs' / 'quickstart.py'}"


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "seal_jax.main", *arguments], capture_output=True, text=True, cwd=ROOT)


def one_sentence(text: str) -> str:
    assert "Traceback" not in text and text.startswith("seal_jax: ") and len(text.splitlines()) == 1, text
    return text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give --config=FILE"),
        ([QUICKSTART], "give --workdir=FOLDER"),
        (["--config=nowhere.py", "--workdir=x"], "'nowhere.py' cannot be read"),
        (["--config", "nowhere.py", "--config.inner.rank=3", "--workdir=x"], "'nowhere.py' cannot be read"),
        ([f"{QUICKSTART}:nonsense", "--workdir=x"], "no version 'nonsense'"),
        ([QUICKSTART, "--config.inner.rnak=3", "--workdir=x"], "config.inner has no field 'rnak'; there are accum"),
        ([QUICKSTART, "--config.iner.rank=3", "--workdir=x"], "config has no field 'iner'; there are authors, data"),
        ([QUICKSTART, "--config.seed.x=3", "--workdir=x"], "config.seed has no field 'x'"),
        ([QUICKSTART, "--config.inner.rank=many", "--workdir=x"], "--config.inner.rank=many"),
        ([QUICKSTART, "--inner.rank=3", "--workdir=x"], "inner.rank"),
        ([QUICKSTART, "--workdir=x", "more"], "'more' is not a flag"),
        ([f"--config={ROOT / 'seal_jax' / 'errors.py'}", "--workdir=x"], "the config file does not work"),
    ],
)  # fmt: skip
def test_a_wrong_command_line(arguments, expected):
    result = command(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert expected in one_sentence(result.stderr)


def test_a_config_with_a_mistake_in_its_code(tmp_path):
    (tmp_path / "c.py").write_text("def get_config():\n    return 1 / 0\n")
    result = command(f"--config={tmp_path / 'c.py'}", "--workdir=x")
    assert result.returncode == 2 and "ZeroDivisionError" in one_sentence(result.stderr) and "line 2" in result.stderr


def test_a_value_that_the_config_does_not_take():
    result = command(QUICKSTART, "--config.inner.rank=-3", "--workdir=x")
    assert result.returncode == 2 and "config.inner.rank: is -3 and must be at least 0" in result.stderr
    assert "Traceback" not in result.stderr and not (ROOT / "x").exists()


def test_help_names_the_flags():
    result = command("--help")
    assert "--workdir" in result.stdout and "--config" in result.stdout and "Ctrl-C" in result.stdout


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"policy": "no/where/at-all"}}, "no/where/at-all does not exist"),
        ({"model": {"policy": "missing.gguf"}}, "missing.gguf does not exist"),
        ({"model": {"student": "missing.gguf"}}, "missing.gguf does not exist"),
        ({"data": {"train": "missing.json"}}, "missing.json cannot be read"),
        ({"data": {"evaluation": "shipped:tset"}}, "no split 'tset'"),
        ({"data": {"train_items": 3}}, "train.json has 2 passages and --config.data.train_items=3 asks for more"),
        ({"knowledge": {"prompt": "improvise"}}, "improvise"),
        ({"knowledge": {"form": "chat"}}, "model's prompts are not"),
        ({"reward": {"judge": {"kind": "remote", "model": "m", "key": "NO_SUCH_KEY"}}}, "NO_SUCH_KEY"),
        ({"evaluation": {"judge": {"kind": "remote", "model": "m", "key": "NO_SUCH_KEY"}}}, "NO_SUCH_KEY"),
    ],
)
def test_wrong_input_is_found_before_anything_is_computed(fast, home, tmp_path, monkeypatch, changes, expected):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    values = tiny_run.tiny_values(home, outer={"rounds": 0}, **changes)
    with pytest.raises(UserError, match=re.escape(expected)):
        main.run(values, str(tmp_path))
    assert not (tmp_path / "trials.jsonl").exists()
    right = tiny_run.tiny_values(home, outer={"rounds": 0})
    open_run(tmp_path, right).close()  # the mistake can be mended in the same folder


def test_a_passages_file_of_another_kind(fast, home, tmp_path):
    (tmp_path / "p.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"p\.json is neither a list of passages nor a SQuAD file"):
        main.run(tiny_run.tiny_values(home, data={"train": str(tmp_path / "p.json")}), str(tmp_path / "run"))


def test_another_config_or_process_in_the_folder(home, tmp_path):
    values = tiny_run.tiny_values(home)
    with open_run(tmp_path, values), pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        main.run(values, str(tmp_path))
    with pytest.raises(UserError, match="seed: 0 -> 7"):
        main.run(tiny_run.tiny_values(home, seed=7), str(tmp_path))


WAITING = """
import signal, sys, time
from seal_jax import main
from seal_jax.runs.ledger import Ledger

append = Ledger.append

def waiting(self, records):
    append(self, records)
    if "retrain" in self.fields:
        print("waiting", flush=True)
        time.sleep(3600)

Ledger.append = waiting
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
sys.exit(main.main(["seal_jax", *sys.argv[1:]]))
"""


def test_ctrl_c_stops_with_one_line_and_the_run_goes_on_afterwards(fast, home, tmp_path):
    """The run waits behind its first trials until the signal is there, so that it cannot have ended before."""
    values = tiny_run.tiny_values(home, outer={"rounds": 0})
    config = tiny_run.config_file(tmp_path / "config.py", values)
    command = [sys.executable, "-c", WAITING, f"--config={config}", f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert any(line == "waiting\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "seal_jax: stopped; start the same command again to continue."
    assert "Traceback" not in errors
    first = read(tmp_path / "run" / "trials.jsonl")
    tiny_run.run(values, tmp_path / "run")
    assert read(tmp_path / "run" / "trials.jsonl")[: len(first)] == first and len(first) < 8


@pytest.mark.parametrize("failure", [RuntimeError("Unable to initialize backend 'tpu'"), AssertionError()])
def test_no_device_is_a_sentence(home, tmp_path, monkeypatch, failure):
    monkeypatch.setattr("jax.devices", lambda: (_ for _ in ()).throw(failure))
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    with pytest.raises(UserError, match=r"no device \(JAX_PLATFORMS=tpu\)"):
        main.run(tiny_run.tiny_values(home), str(tmp_path))
