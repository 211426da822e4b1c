"""The memory check before weights are loaded: sizes against whole trees, and what a user is told."""

import json
import os

import jax
import ml_dtypes
import numpy as np
import pytest
from tiny_checkpoint import random_params, tiny_config

from seal_jax.errors import UserError
from seal_jax.model import memory
from seal_jax.model.hf_config import model_config
from seal_jax.model.published import PUBLISHED, known

QWEN = "Qwen/Qwen2.5-7B"


@pytest.fixture
def machine(monkeypatch):
    """A function that sets the memory of this machine and of one device in GiB; None: it is not told."""

    def has(host, device):
        monkeypatch.setattr(memory, "host_gib", lambda: host)
        monkeypatch.setattr(memory, "device_gib", lambda: device)

    return has


def refused(*arguments):
    with pytest.raises(UserError) as caught:
        memory.check(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_what_is_needed_is_what_the_arrays_take(kind, dtype):
    hf = tiny_config(kind)
    params = jax.tree.map(lambda array: array.astype(dtype), random_params(hf, 0))
    taken = sum(array.nbytes for array in jax.tree.leaves(params))
    config, name = model_config(hf, "config"), np.dtype(dtype).name
    assert memory.needed_gib(config, name) * 2**30 == taken
    assert memory.needed_gib(config, name, 2.5) * 2**30 == pytest.approx(2.5 * taken)


def test_quantized_weights_take_what_is_stored():
    pytest.importorskip("qwix")
    config = known("Qwen/Qwen2.5-0.5B")
    from seal_jax.fitting.models import abstract_weights

    tree = abstract_weights(config, "bfloat16", "int8")
    taken = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    assert memory.needed_gib(config, "bfloat16", quantization="int8") * 2**30 == pytest.approx(taken, rel=0.02)


def test_a_model_larger_than_the_machine_names_both_sizes_and_a_way_out(machine):
    machine(23.54, None)
    text = refused(QWEN, "float32", 1)
    assert text.startswith("Qwen/Qwen2.5-7B takes 28.4 GiB as float32 and this machine has 23.5 GiB; ")
    assert text.endswith("to try the method here run --config=configs/quickstart.py:smoke (SmolLM2-135M)")
    memory.check(QWEN, "bfloat16", 1)
    memory.check("smollm2-135m-instruct", "float32", 1)
    assert "this machine has 23.5 GiB" in refused(QWEN, "float32", 8)  # the host reads all of it


def test_a_model_larger_than_its_devices_names_them(machine):
    machine(100.0, 7.5)
    assert "takes 14.2 GiB as bfloat16 and one device has 7.5 GiB; split it over more" in refused(QWEN, "bfloat16", 1)
    memory.check(QWEN, "bfloat16", 2)
    assert "takes 28.4 GiB as float32 and 2 devices have 15.0 GiB" in refused(QWEN, "float32", 2)
    machine(100.0, 9.0)
    memory.check(QWEN, "bfloat16", 1, "int8")
    machine(100.0, 8.0)
    assert "as int8 and one device has 8.0 GiB" in refused(QWEN, "bfloat16", 1, "int8")


def test_what_is_not_known_is_not_checked(machine):
    machine(0.001, 0.001)
    memory.check("someone/her-model", "float32", 1)
    memory.check("model.gguf", "float32", 1)
    machine(None, None)
    memory.check(QWEN, "float32", 1)


def test_a_folder_is_checked_by_its_config(machine, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[QWEN]))
    machine(20.0, None)
    assert refused(str(tmp_path), "float32", 1).startswith(f"{tmp_path} takes 28.4 GiB")


def test_the_memory_of_the_machine_is_the_least_that_the_system_tells(monkeypatch, tmp_path):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**20}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    files = (str(tmp_path / "absent"), str(tmp_path / "limit"))
    monkeypatch.setattr(memory, "CGROUPS", files)
    assert memory.host_gib() == 4
    for text, expected in (("max\n", 4), (f"{2**31}\n", 2), (f"{2**62}\n", 4)):
        (tmp_path / "limit").write_text(text)
        assert memory.host_gib() == expected
    monkeypatch.delattr(os, "sysconf")
    assert memory.host_gib() is None


@pytest.mark.parametrize(("stats", "expected"), [(None, None), ({}, None), ({"bytes_limit": 2**34}, 16.0)])
def test_the_memory_of_a_device_is_what_jax_may_use(monkeypatch, stats, expected):
    class Device:
        def memory_stats(self):
            return stats

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert memory.device_gib() == expected
