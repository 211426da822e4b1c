"""Weights out: a PEFT adapter folder, and a Hugging Face folder with the adapter (or the training) merged in.

PEFT, transformers and vLLM load both; so does model/pretrained.py the second.
"""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from seal_jax.errors import UserError
from seal_jax.model.hf_config import plain_rope
from seal_jax.model.layout import DTYPES, leaf_of, leaves, to_tensors
from seal_jax.model.lora import LoraConfig
from seal_jax.model.tokenizer import Tokenizer
from seal_jax.model.transformer import ModelConfig

SHARD_BYTES = 5 * 10**9
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_METADATA = {"format": "pt"}  # transformers refuses a safetensors file that does not say so


def save_adapter(folder: str | Path, adapter: dict, lora: LoraConfig, base_name: str) -> None:
    """Write one adapter ({'layers': {proj: {'A': [L, in, R], 'B': [L, R, out]}}}) as PEFT reads it.

    `base_name` is the hub id or folder of the model it belongs to. UserError if the adapter does not fit `lora`.
    """
    tensors = {}
    for name, factors in adapter["layers"].items():
        a, b = np.asarray(factors["A"], np.float32), np.asarray(factors["B"], np.float32)
        if a.ndim != 3 or b.ndim != 3 or a.shape[2] != lora.rank or b.shape[1] != lora.rank:
            raise UserError(
                f"the adapter of {name} has shapes {a.shape} and {b.shape}, not [L, in, {lora.rank}] and "
                f"[L, {lora.rank}, out]: save one candidate's adapter, with the configuration it was trained with."
            )
        part = "self_attn" if name in _ATTENTION else "mlp"
        for layer in range(a.shape[0]):
            stem = f"base_model.model.model.layers.{layer}.{part}.{name}"
            tensors[f"{stem}.lora_A.weight"] = np.ascontiguousarray(a[layer].T)
            tensors[f"{stem}.lora_B.weight"] = np.ascontiguousarray(b[layer].T)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": sorted(adapter["layers"]),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": lora.rslora,
        "use_dora": False,
        "modules_to_save": None,
    }
    with _whole(folder) as partial:
        save_file(tensors, partial / "adapter_model.safetensors", metadata=_METADATA)
        _write_json(partial / "adapter_config.json", config)


def save_merged(folder: str | Path, params: dict, config: ModelConfig, tokenizer: Tokenizer, hf_config: dict) -> None:
    """Write a whole model as a Hugging Face folder, in the dtype of `params` (merge an adapter first: lora.merge).

    More than 5 GB go into several shards; the host holds at most one stacked leaf and one shard at a time. The folder
    appears when it is complete. UserError if it already holds something.
    """
    dtype = np.dtype(params["embed"]["embedding"].dtype)
    described = {key: value for key, value in hf_config.items() if key not in ("dtype", "quantization_config")}
    described = plain_rope(described) | {
        "torch_dtype": next(name for name, known in DTYPES.items() if dtype == known),
        "tie_word_embeddings": config.tie_embeddings,
    }
    generation = {
        "bos_token_id": tokenizer.hf.bos_token_id,
        "eos_token_id": [tokenizer.eos_id, *sorted(tokenizer.stop_ids - {tokenizer.eos_id})],
        "pad_token_id": tokenizer.pad_id,
    }
    with _whole(folder) as partial:
        _save_weights(partial, params, config)
        _write_json(partial / "config.json", described)
        _write_json(partial / "generation_config.json", generation)
        tokenizer.save(partial)


def _save_weights(folder: Path, params: dict, config: ModelConfig) -> None:
    table = leaves(config)
    sizes = [(leaf_of(params, leaf).nbytes, config.num_layers if leaf.stacked else 1) for leaf in table]
    plan = _shards(sizes)
    tensors = to_tensors(config, params)
    if len(plan) == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata=_METADATA)
        return
    weight_map = {}
    for number, count in enumerate(plan, 1):
        shard = f"model-{number:05d}-of-{len(plan):05d}.safetensors"
        held = dict(next(tensors) for _ in range(count))
        save_file(held, folder / shard, metadata=_METADATA)
        weight_map |= dict.fromkeys(held, shard)
    total = sum(size for size, _ in sizes)
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(leaf_sizes: list[tuple[int, int]]) -> list[int]:
    """How many tensors go into each shard, from (bytes, tensors) of each leaf."""
    counts, used = [0], 0
    for size, tensors in leaf_sizes:
        each = math.ceil(size / tensors)
        for _ in range(tensors):
            if counts[-1] and used + each > SHARD_BYTES:
                counts.append(0)
                used = 0
            counts[-1] += 1
            used += each
    return counts


def check_free(path: str | Path) -> None:
    """Raises UserError where something is that an export would write over."""
    path = Path(path)
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path} exists and is not empty: choose another folder to export to, or remove it.")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} exists: choose another name to export to, or remove it.")


@contextmanager
def _whole(folder: str | Path) -> Iterator[Path]:
    """A folder that appears under its name only when all of it is written, and never over another one."""
    with whole_file(folder) as partial:
        partial.mkdir()
        yield partial


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A name beside `path` for what takes that name when all of it is written; nothing is left of what was not.

    Raises UserError where something is there, and where it cannot be written, such as on a full disk.
    """
    path = Path(path)
    check_free(path)
    partial = path.with_name(path.name + ".partial")
    try:
        _remove(partial)
        partial.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be made ({error}): choose a place that can be written and has room.") from error
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.unlink()


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
