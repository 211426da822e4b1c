"""An adapter that was written as PEFT reads it is read back as it was; what is no such folder is one sentence."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_training import LORA, random_adapter, tiny_model

from seal_jax.errors import UserError
from seal_jax.model.adapter_file import read_adapter
from seal_jax.model.pretrained import save_adapter


@pytest.fixture
def folder(tmp_path):
    adapter = random_adapter(tiny_model()[1])
    save_adapter(tmp_path / "adapter", adapter, LORA, "a/base")
    return tmp_path / "adapter", adapter


def test_read_back(folder, tmp_path):
    read, lora, base = read_adapter(folder[0])
    jax.tree.map(np.testing.assert_array_equal, read, folder[1])
    assert (lora, base) == (LORA, "a/base")
    stabilised = replace(LORA, rslora=True)
    assert stabilised.scale == LORA.alpha / LORA.rank**0.5 != LORA.scale
    save_adapter(tmp_path / "stabilised", folder[1], stabilised, "a/base")
    assert read_adapter(tmp_path / "stabilised")[1] == stabilised


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("use_dora", True, "use_dora is True, which is not known here"),
        ("rank_pattern", {"q_proj": 4}, "rank_pattern is"),
        ("peft_type", "IA3", "describes no LoRA"),
        ("r", "eight", "describes no LoRA"),
    ],
)
def test_other_kinds_are_refused(folder, field, value, says):
    file = folder[0] / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(UserError, match=says):
        read_adapter(folder[0])


def test_what_is_not_there(folder, tmp_path):
    with pytest.raises(UserError, match=r"holds no adapter_config.json"):
        read_adapter(tmp_path)
    weights = folder[0] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="missing, incomplete or no safetensors"):
        read_adapter(folder[0])
