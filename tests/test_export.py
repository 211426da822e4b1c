"""Weights out: PEFT and transformers compute from the exported files what we compute."""

import json

import jax
import numpy as np
import pytest
from tiny_checkpoint import random_params, tiny_config, tiny_tokenizer

from seal_jax.errors import UserError
from seal_jax.model import export
from seal_jax.model.hf_config import model_config
from seal_jax.model.lora import PROJECTIONS, LoraConfig, init_adapter, merge
from seal_jax.model.pretrained import load, save_adapter, save_merged
from seal_jax.model.transformer import Transformer

LORA = LoraConfig(rank=4, alpha=10.0, targets=PROJECTIONS)  # alpha / rank is not 1
IDS = np.random.default_rng(2).integers(3, 400, (2, 20))


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def adapted(kind, lora=LORA):
    """config.json, parameters, and an adapter whose B is not zero."""
    hf = tiny_config(kind)
    params = random_params(hf)
    adapter = init_adapter(jax.random.key(0), params, lora)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    adapter = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), adapter)
    return hf, params, adapter


def logits(hf, params, adapter=None, scale=1.0):
    variables = {"params": params} if adapter is None else {"params": params, "lora": adapter}
    model = Transformer(model_config(hf, "config"), lora_scale=scale)
    return np.asarray(model.apply(variables, IDS, method="full"))


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("llama", PROJECTIONS),
        ("qwen2", PROJECTIONS),
        ("qwen2", ("q_proj", "v_proj")),
        ("qwen3", PROJECTIONS),
        ("smollm3", PROJECTIONS),
        ("gemma3_text", PROJECTIONS),
    ],
)
def test_adapter_in_peft_gives_our_logits(tmp_path, tokenizer, kind, targets):
    torch = pytest.importorskip("torch", reason="PEFT runs on torch")
    peft = pytest.importorskip("peft", reason="the reference for adapters")
    transformers = pytest.importorskip("transformers")
    lora = LoraConfig(4, 10.0, targets, rslora=kind == "smollm3")
    hf, params, adapter = adapted(kind, lora)
    save_merged(tmp_path / "base", params, model_config(hf, "config"), tokenizer, hf)
    save_adapter(tmp_path / "adapter", adapter, lora, str(tmp_path / "base"))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert set(model.peft_config["default"].target_modules) == set(targets)
    with torch.no_grad():
        theirs = model(torch.tensor(IDS)).logits.numpy()
    ours = logits(hf, params, adapter, lora.scale)
    assert np.abs(ours - theirs).max() < 1e-3
    assert np.abs(ours - logits(hf, params)).max() > 0.1  # it does something


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma3_text"])
def test_merged_in_transformers_gives_our_logits(tmp_path, tokenizer, kind):
    torch = pytest.importorskip("torch", reason="the reference is torch's")
    transformers = pytest.importorskip("transformers")
    hf, params, adapter = adapted(kind)
    save_merged(tmp_path / "merged", merge(params, adapter, LORA), model_config(hf, "config"), tokenizer, hf)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        theirs = model(torch.tensor(IDS)).logits.numpy()
    ours = logits(hf, params, adapter, LORA.scale)
    assert np.abs(ours - theirs).max() < 1e-3
    assert np.abs(ours - logits(hf, load(str(tmp_path / "merged"), "float32").params)).max() < 1e-3
    assert model.generation_config.eos_token_id == [2]
    if kind == "qwen2":  # for it transformers always takes Qwen2's own rule, which the tiny tokenizer does not have
        return
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert words.encode("Arlo 12<|im_end|>") == tokenizer.encode("Arlo 12<|im_end|>")
    assert words.chat_template == tokenizer.hf.chat_template


def test_sharded_export_in_transformers(tmp_path, tokenizer, monkeypatch):
    pytest.importorskip("torch", reason="the reference is torch's")
    transformers = pytest.importorskip("transformers")
    hf = tiny_config("qwen3", tied=True)
    params = random_params(hf, dtype="bfloat16")
    monkeypatch.setattr(export, "SHARD_BYTES", 50_000)
    save_merged(tmp_path / "m", params, model_config(hf, "config"), tokenizer, hf)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2 and index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert all((tmp_path / "m" / name).stat().st_size < 60_000 for name in files)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert str(model.dtype) == "torch.bfloat16"
    ours = params["layers"]["down_proj"]["kernel"][1].T.astype(np.float32)
    np.testing.assert_array_equal(model.model.layers[1].mlp.down_proj.weight.detach().float().numpy(), ours)


def test_config_keeps_what_it_came_with_and_the_spelling_that_all_read(tmp_path, tokenizer):
    hf = tiny_config("llama")
    config, params = model_config(hf, "config"), random_params(hf)
    newer = {key: value for key, value in hf.items() if key not in ("rope_theta", "rope_scaling")}
    newer |= {"rope_parameters": hf["rope_scaling"] | {"rope_theta": 1000.0}, "dtype": "bfloat16", "custom": [1]}
    assert model_config(newer, "config") == config
    save_merged(tmp_path / "m", params, config, tokenizer, newer)
    saved = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config == model_config(saved, "config") and saved.pop("rope_scaling")["factor"] == 8
    assert saved | {"rope_scaling": hf["rope_scaling"]} == hf | {"torch_dtype": "float32", "custom": [1]}
    tokens = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    assert tokens["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_exports_are_whole_and_overwrite_nothing(tmp_path, tokenizer, monkeypatch):
    hf, params, adapter = adapted("llama")
    save_adapter(tmp_path / "a", adapter, LORA, "base")
    with pytest.raises(UserError, match="not empty"):
        save_adapter(tmp_path / "a", adapter, LORA, "base")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        save_adapter(tmp_path / "file" / "a", adapter, LORA, "base")
    monkeypatch.setattr(type(tokenizer), "save", lambda self, folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # killed half-way
        save_merged(tmp_path / "m", params, model_config(hf, "config"), tokenizer, hf)
    assert not (tmp_path / "m").exists()
    monkeypatch.undo()
    save_merged(tmp_path / "m", params, model_config(hf, "config"), tokenizer, hf)
    assert (tmp_path / "m" / "config.json").exists() and not (tmp_path / "m.partial").exists()


def test_an_adapter_that_does_not_fit_is_refused(tmp_path):
    _, _, adapter = adapted("llama")
    with pytest.raises(UserError, match="down_proj"):
        save_adapter(tmp_path / "a", adapter, LoraConfig(8, 8.0, PROJECTIONS), "base")
    candidates = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), adapter)
    with pytest.raises(UserError, match="one candidate"):
        save_adapter(tmp_path / "a", candidates, LORA, "base")
    assert not (tmp_path / "a").exists()
