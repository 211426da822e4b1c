"""What several test files share: a tiny model, and runs of it."""

import functools
import os
from pathlib import Path

import jax
import jaxlib
import pytest
import tiny_run

from seal_jax.experiments import assemble, judging
from seal_jax.report.watch import Watch
from seal_jax.student.actor import load_actor

# To compile takes most of the time of the tests, and twice as much with all optimizations. Also in their processes.
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# The emitters that XLA before 0.11 can go back to compile small programs in half the time; later ones lack the flag.
if jaxlib.version.__version_info__ < (0, 11):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"

# Files that take minutes begin first, so that no core waits for another at the end.
LONGEST = ("parallel", "devices", "hosts", "fewshot", "one_file", "resume", "peft_parity", "m_steps", "rounds")


def pytest_collection_modifyitems(items):
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A folder with two tiny models, passages to learn from and to evaluate on, and a cache of compiled programs.

    SEAL_JAX_TEST_CACHE names a folder that keeps the programs from one call of pytest to the next.
    """
    folder = tmp_path_factory.mktemp("home")
    kept = os.environ.get("SEAL_JAX_TEST_CACHE")
    if kept:
        (folder / "cache").symlink_to(kept, target_is_directory=True)
    tiny_run.make_model(folder / "policy")
    tiny_run.make_model(folder / "student", seed=1)
    tiny_run.make_passages(folder / "train.json", "Bo")
    tiny_run.make_passages(folder / "evaluation.json", "Cu")
    return folder


@pytest.fixture(scope="session")
def actors():
    """`load_actor` that loads each model once for all tests, so that its programs are compiled once."""
    loaded = functools.cache(lambda source, model, engine, config: load_actor(source, config.value))

    class Same:  # a config that stands aside in the comparison of keys
        def __init__(self, value):
            self.value = value

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 0

    def chat(config):
        return config.model.dtype, config.model.chat, config.model.system

    return lambda source, config: loaded(source, chat(config), config.engine, Same(config))


@pytest.fixture
def fast(monkeypatch, actors):
    """Runs in this process that share compiled programs and write no report."""
    monkeypatch.setattr(assemble, "load_actor", actors)
    monkeypatch.setattr(judging, "load_actor", actors)
    monkeypatch.setattr(Watch, "after_rows", lambda self, rows: None)


@pytest.fixture(scope="session")
def whole(home, actors, tmp_path_factory):
    """(config, folder) of a run of two rounds with the control that nothing interrupted."""
    values = tiny_run.tiny_values(home, outer={"rounds": 2})
    return tiny_run.uninterrupted(values, actors, tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="session")
def single(home, actors, tmp_path_factory):
    """(config, folder) of a run of one round without the control that nothing interrupted."""
    values = tiny_run.tiny_values(home, outer={"random_control": False})
    return tiny_run.uninterrupted(values, actors, tmp_path_factory.mktemp("runs") / "single")
