"""The command line of every entry point: each mistake with --config and its overrides is one sentence."""

import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from seal_jax.errors import UserError
from seal_jax.flags import read_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
QUICKSTART, FEWSHOT = (f"--config={CONFIGS / name}.py" for name in ("quickstart", "fewshot_smollm2"))


@pytest.fixture(autouse=True)
def no_module_of_another_file(monkeypatch):
    """ml_collections loads every config file as this one module, and keeps the names of the last one."""
    monkeypatch.delitem(sys.modules, "config_config", raising=False)


def read(*arguments):
    """(the config, the flags) from a command line with --config and --workdir."""
    values, argv = flags.FlagValues(), ["program", *arguments]
    config = config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=argv)
    flags.DEFINE_string("workdir", None, "Where the run is.", flag_values=values)
    return read_config(argv, values, config), values


def mistake(*arguments):
    with pytest.raises(UserError) as caught:
        read(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_overrides_change_the_file_and_other_flags_are_parsed():
    config, values = read(QUICKSTART, "--config.inner.rank=3", "--config.knowledge.closing=False", "--workdir=x")
    assert (config["inner"]["rank"], config["knowledge"]["closing"], config["domain"]) == (3, False, "knowledge")
    assert config["inner"]["epochs"] == 4 and values.workdir == "x"
    config, _ = read("--config", f"{CONFIGS / 'quickstart.py'}:smoke", "--noconfig.knowledge.closing")
    assert (config["outer"]["samples"], config["knowledge"]["closing"]) == (2, False)
    config, _ = read(FEWSHOT, "--config.arc.attempts=2", "--config.inner.targets=('q_proj',)")
    assert (config["arc"]["attempts"], config["inner"]["targets"], config["domain"]) == (2, ("q_proj",), "arc")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give --config=FILE, such as configs/quickstart.py"),
        (["--workdir=x"], "give --config=FILE"),
        (["--config"], "give --config=FILE"),
        (["--config="], "the config file '' cannot be read"),
        (["--config=nowhere.py"], "the config file 'nowhere.py' cannot be read; name one"),
        (["--config", "nowhere.py:smoke", "--config.inner.rank=3"], "the config file 'nowhere.py' cannot be read"),
        (["--config.inner.rank=3"], "give --config=FILE"),
        (["--config.inner.rank=3", QUICKSTART], "in argv before a value for --config"),
        ([f"{QUICKSTART}:nonsense"], "the config has no version 'nonsense'; there is :smoke"),
        ([QUICKSTART, "--config.inner.rnak=3"], "config.inner has no field 'rnak'; there are accumulation, alpha"),
        ([QUICKSTART, "--config.inner.rnak", "3"], "config.inner has no field 'rnak'; there are accumulation, alpha"),
        ([QUICKSTART, "--noconfig.inner.rnak"], "config.inner has no field 'rnak'"),
        ([QUICKSTART, "--config.iner.rank=3"], "config has no field 'iner'; there are authors, data, domain"),
        ([QUICKSTART, "--config.seed.x=3"], "config.seed has no field 'x'"),
        ([QUICKSTART, "--config.reward.judge=remote"], "config.reward.judge is a group of fields; set one of"),
        ([QUICKSTART, "--config.inner.rank=many"], "--config.inner.rank=many"),
        ([QUICKSTART, "--inner.rank=3"], "inner.rank"),
        (["--nonsense"], "nonsense"),
        ([QUICKSTART, "more"], "'more' is not a flag"),
        ([QUICKSTART, "--config.arc.attempts=3"], "config.arc.attempts is read by the domain 'arc' alone, and this "
                                                  "config is for 'knowledge'; leave the flag out"),
        ([FEWSHOT, "--config.knowledge.form=chat"], "config.knowledge.form is read by the domain 'knowledge' alone"),
        ([FEWSHOT, "--config.inner.epochs=3"], "config.inner.epochs is read by the domain 'knowledge' alone"),
        ([FEWSHOT, "--config.reward.judge.kind=local"], "config.reward.judge.kind is read by the domain 'knowledge'"),
        ([FEWSHOT, "--config.knowledge.frm=chat"], "config has no field 'knowledge'"),
    ],
)  # fmt: skip
def test_a_wrong_command_line(arguments, expected):
    assert expected in mistake(*arguments)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def get_config():\n    return 1 / 0\n", "the config file does not work (ZeroDivisionError: division by"),
        ("def get_config(:\n", "the config file does not work (SyntaxError"),
        ("x = 1\n", "the config file does not work (AttributeError"),
        ("def get_config():\n    return 5\n", "get_config of the config file must return a ConfigDict"),
        ("def get_config():\n    return open('/no/such/file')\n", "No such file"),
        ("def get_config():\n    raise ValueError('odd')\n", "odd"),
    ],
)
def test_a_config_file_that_fails(tmp_path, code, expected):
    (tmp_path / "c.py").write_text(code)
    assert expected in mistake(f"--config={tmp_path / 'c.py'}")
    assert expected in mistake(f"--config={tmp_path / 'c.py'}", "--config.inner.rank=3")


def test_a_failing_config_file_names_the_line(tmp_path):
    (tmp_path / "c.py").write_text("\n\ndef get_config():\n    return 1 / 0\n")
    assert f"{tmp_path / 'c.py'}, line 4" in mistake(f"--config={tmp_path / 'c.py'}")


def test_help_lists_the_flags_and_ends_the_program(capsys):
    with pytest.raises(SystemExit) as ended:
        read("--help", QUICKSTART)
    assert ended.value.code == 0 and "Flags:" in capsys.readouterr().out
