"""Architectures without weights: of a folder, of a published model, or of one on the hub."""

import json
import re
from pathlib import Path

import huggingface_hub

from seal_jax.errors import UserError
from seal_jax.model.hf_config import model_config, read_json
from seal_jax.model.transformer import ModelConfig


def _hf(kind: str, widths: tuple[int, int, int, int, int], vocab: int, **more) -> dict:
    """A config.json of (layers, width, heads, key heads, MLP width) and whatever else memory and FLOPs depend on."""
    names = (
        "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size"
    )  # fmt: skip
    sizes = dict(zip(names, widths, strict=True))
    return {"model_type": kind, "vocab_size": vocab, "max_position_embeddings": 131072, **sizes, **more}


QWEN = {"rope_theta": 1e6, "rms_norm_eps": 1e-6}
LLAMA = {"rope_theta": 5e5, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
GEMMA = {"head_dim": 256, "sliding_window": 512, "max_position_embeddings": 32768}
PUBLISHED = {  # from the config.json of each on the hub
    "google/gemma-3-270m": _hf("gemma3_text", (18, 640, 4, 1, 2048), 262144, **GEMMA),
    "google/gemma-3-1b": _hf("gemma3_text", (26, 1152, 4, 1, 6912), 262144, **GEMMA),
    "HuggingFaceTB/SmolLM3-3B": _hf("smollm3", (36, 2048, 16, 4, 11008), 128256, rope_theta=5e6),
    "mistralai/Mistral-7B-v0.3": _hf("mistral", (32, 4096, 32, 8, 14336), 32768, rope_theta=1e6, sliding_window=None),
    "Qwen/Qwen2.5-0.5B": _hf("qwen2", (24, 896, 14, 2, 4864), 151936, tie_word_embeddings=True, **QWEN),
    "Qwen/Qwen2.5-1.5B": _hf("qwen2", (28, 1536, 12, 2, 8960), 151936, tie_word_embeddings=True, **QWEN),
    "Qwen/Qwen2.5-3B": _hf("qwen2", (36, 2048, 16, 2, 11008), 151936, tie_word_embeddings=True, **QWEN),
    "Qwen/Qwen2.5-7B": _hf("qwen2", (28, 3584, 28, 4, 18944), 152064, **QWEN),
    "Qwen/Qwen2.5-72B": _hf("qwen2", (80, 8192, 64, 8, 29568), 152064, **QWEN),
    "meta-llama/Llama-3.2-1B": _hf("llama", (16, 2048, 32, 8, 8192), 128256, **LLAMA),
    "meta-llama/Llama-3.2-3B": _hf("llama", (28, 3072, 24, 8, 8192), 128256, head_dim=128, **LLAMA),
    "smollm2-135m-instruct": _hf(
        "llama", (30, 576, 9, 3, 1536), 49152, rope_theta=1e5, rms_norm_eps=1e-5, tie_word_embeddings=True
    ),
}


def known(source: str) -> ModelConfig | None:
    """The configuration of a model in a folder or in PUBLISHED; None for any other, because nothing is downloaded."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return model_config(read_json(folder / "config.json"), str(folder / "config.json"))
    base = re.sub(r"-Instruct(?=-|$)|-(it|pt|Base)$", "", source)
    published = PUBLISHED.get(base, PUBLISHED.get(source.lower()))
    return None if published is None else model_config(published, source)


def architecture(source: str) -> ModelConfig:
    """The configuration of a model, from the hub if it is not known here. Raises UserError where it cannot be had."""
    config = known(source)
    if config is not None:
        return config
    try:
        path = huggingface_hub.hf_hub_download(source, "config.json")
        return model_config(json.loads(Path(path).read_text(encoding="utf-8")), source)
    except UserError:
        raise
    except Exception as error:  # the hub client raises many kinds; each means that the file could not be had
        raise UserError(
            f"config.model.policy: the config.json of {source} could not be had ({type(error).__name__}); name a folder"
            f" that has it, a model on the hub, or one of {', '.join(PUBLISHED)}"
        ) from error
