"""One GGUF file: its metadata as a config.json, its tensors dequantized, under Hugging Face's names and in its layout.

Three things that llama.cpp changes when it converts a checkpoint are undone here: the rows of q and k of Llama and
SmolLM3 are permuted (it rotates neighbouring pairs, Hugging Face rotates halves), the scaling of Llama 3's rotary
frequencies is kept as a tensor of divisors, rope_freqs.weight, instead of as four numbers, and 1 is added to the norms
of Gemma.
"""

from pathlib import Path

import gguf
import numpy as np

from seal_jax.errors import UserError
from seal_jax.model.hf_config import ARCHITECTURES, FAMILIES
from seal_jax.model.layout import Tensors

_KINDS = {kind.removesuffix("_text"): kind for kind in ARCHITECTURES}  # by general.architecture
_PERMUTED = ("llama", "smollm3")
_BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


class Metadata:
    """Key-value pairs of a GGUF file, read when asked for (token lists are long)."""

    def __init__(self, fields: dict, place: str):
        self._fields = fields
        self.place = place

    def get(self, key: str, default=None):
        try:
            return self._fields[key].contents() if key in self._fields else default
        except UnicodeDecodeError as error:
            raise UserError(f"{self.place}: metadata field {key} is damaged ({error}): get the file again.") from error

    def need(self, key: str):
        if key not in self._fields:
            raise UserError(
                f"{self.place} has no metadata field {key}: convert the model again with a current llama.cpp."
            )
        return self.get(key)

    def number(self, key: str, default: float | None = None):
        """A positive number, which `default` stands for if the field is not there."""
        value = self.need(key) if default is None else self.get(key, default)
        if not isinstance(value, int | float) or value <= 0:
            raise UserError(f"{self.place}: metadata field {key} is {value!r}; only one positive number is supported.")
        return value


def read(path: Path) -> tuple[Metadata, Tensors, dict]:
    """Metadata, tensors (dequantized to float32 as they are read) and the config.json that the metadata amounts to."""
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError, OSError) as error:
        raise UserError(
            f"{path} is not a complete GGUF file ({type(error).__name__}: {error}): get it again."
        ) from error
    metadata = Metadata(reader.fields, str(path))
    stored = {tensor.name: tensor for tensor in reader.tensors}
    config = _hf_config(metadata, stored)
    kind = config["model_type"]
    known = {_hf_name(name, kind): tensor for name, tensor in stored.items() if name != "rope_freqs.weight"}
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}

    def read_one(name: str) -> np.ndarray:
        array = _dequantize(known[name], str(path))
        if kind in _PERMUTED and name.endswith(("q_proj.weight", "k_proj.weight")):
            array = unpermute(array, heads[name.split(".")[-2]])
        return array - 1 if kind == "gemma3_text" and name.endswith("norm.weight") else array

    return metadata, Tensors(str(path), frozenset(known), read_one), config


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from llama.cpp's order (0, half, 1, half+1, ...) back to (0, 1, ..., half, half+1, ...)."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def rope_scaling(divisors: np.ndarray, theta: float, place: str) -> dict | None:
    """The four numbers of Llama 3's scaling from rope_freqs.weight [H/2], or None if it changes nothing.

    The tensor does not tell all four apart; the two limits are taken to be 1 and 4, as every published Llama 3 has
    them, and the length then follows from any divisor between. UserError if these numbers do not give the tensor back.
    """
    divisors = divisors.astype(np.float64)
    factor, low, high, length = round(float(divisors.max()), 4), 1.0, 4.0, 8192
    if factor == 1.0:
        return None
    turns = theta ** -(np.arange(divisors.size) / divisors.size) / (2 * np.pi)  # per token
    smooth = (1 / divisors - 1 / factor) / (1 - 1 / factor)
    between = (smooth > 1e-4) & (smooth < 1 - 1e-4)
    if between.any():
        length = round(float(np.median((low + smooth[between] * (high - low)) / turns[between])))
    again = np.clip((length * turns - low) / (high - low), 0, 1)
    if not np.allclose(1 / (again + (1 - again) / factor), divisors, rtol=1e-3):
        raise UserError(f"{place}: rope_freqs.weight is not of the Llama 3 kind, the only one supported.")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": length,
    }


def _hf_config(metadata: Metadata, stored: dict) -> dict:
    place, kind = metadata.place, metadata.need("general.architecture")
    if kind not in _KINDS:
        raise UserError(
            f"{place}: general.architecture is {kind!r}; supported are {', '.join(_KINDS)}, which are {FAMILIES}."
        )
    if metadata.get("split.count", 1) > 1:
        raise UserError(f"{place} is one part of a split model: merge the parts with llama-gguf-split --merge first.")
    if "token_embd.weight" not in stored:
        raise UserError(f"{place} has no tensor token_embd.weight: get a complete copy.")
    if metadata.get(f"{kind}.expert_count", 0):
        raise UserError(f"{place} is a mixture of experts ({kind}.expert_count), which is not supported.")
    scaling = metadata.get(f"{kind}.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise UserError(f"{place}: {kind}.rope.scaling.type is {scaling!r}; only 'linear' and Llama 3's are supported.")
    linear = {"rope_type": scaling, "factor": metadata.number(f"{kind}.rope.scaling.factor", 1.0)}
    width, heads = metadata.number(f"{kind}.embedding_length"), metadata.number(f"{kind}.attention.head_count")
    head_dim = metadata.number(f"{kind}.attention.key_length", width // heads)
    if metadata.number(f"{kind}.rope.dimension_count", head_dim) != head_dim:
        raise UserError(f"{place}: {kind}.rope.dimension_count must be the head size {head_dim}: use another file.")
    theta = _short(metadata.number(f"{kind}.rope.freq_base", 10000.0))
    divisors = stored.get("rope_freqs.weight")
    config = {
        "architectures": [ARCHITECTURES[_KINDS[kind]]],
        "model_type": _KINDS[kind],
        "vocab_size": int(stored["token_embd.weight"].shape[1]),
        "hidden_size": width,
        "intermediate_size": metadata.number(f"{kind}.feed_forward_length"),
        "num_hidden_layers": metadata.number(f"{kind}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.number(f"{kind}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": metadata.number(f"{kind}.context_length"),
        "rms_norm_eps": _short(metadata.number(f"{kind}.attention.layer_norm_rms_epsilon")),
        "rope_theta": theta,
        "rope_scaling": rope_scaling(_dequantize(divisors, place), theta, place) if divisors else None,
        "tie_word_embeddings": "output.weight" not in stored,
    }
    if scaling == "linear":
        config["rope_scaling"] = linear
    config |= _gemma(metadata, config) if kind == "gemma3" else {"hidden_act": "silu"}
    for field in ("bos", "eos", "padding"):
        config[f"{field[:3]}_token_id"] = metadata.get(f"tokenizer.ggml.{field}_token_id")
    return config


def _gemma(metadata: Metadata, config: dict) -> dict:
    """The fields that only Gemma 3 has. llama.cpp knows the divisor of attention scores by the number of layers: that
    of the 27B is width / heads (https://github.com/google/gemma_pytorch, gemma/config.py), of the others the head
    size."""
    largest = config["num_hidden_layers"] == 62
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": metadata.number("gemma3.attention.sliding_window"),
        "sliding_window_pattern": metadata.number("gemma3.attention.sliding_window_pattern", 6),
        "rope_local_base_freq": _short(metadata.number("gemma3.rope.freq_base_swa", 10000.0)),
        "query_pre_attn_scalar": (
            config["hidden_size"] // config["num_attention_heads"] if largest else config["head_dim"]
        ),
        "final_logit_softcapping": metadata.get("gemma3.final_logit_softcapping") or None,
    }


def _hf_name(name: str, model: str) -> str:
    """Hugging Face's name of a GGUF tensor, or its own if it has none (the layout then refuses it)."""
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    parts = stem.split(".")
    block = _BLOCK | _GEMMA if model == "gemma3_text" else _BLOCK
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in block:
        return f"model.layers.{parts[1]}.{block[parts[2]]}.{kind}"
    return name


def _dequantize(tensor, place: str) -> np.ndarray:
    """float32 [out, in] (or [n])."""
    try:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise UserError(
            f"{place}: tensor {tensor.name} is quantized as {tensor.tensor_type.name}, which cannot be read: use one "
            "in F32, F16, BF16, Q8_0, Q4_0, Q4_1 or a K-quant."
        ) from error
    return array.astype(np.float32, copy=False)


def _short(value: float) -> float:
    """The shortest decimal that is this float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
