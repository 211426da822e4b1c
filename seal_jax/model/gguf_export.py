"""Weights out as one GGUF file, for llama.cpp and Ollama: the inverse of gguf_file.py and gguf_tokenizer.py.

What llama.cpp's own converter changes is changed here too: the rows of q and k of the llama architecture are permuted,
and Llama 3's scaling of the rotary frequencies becomes a tensor of divisors, rope_freqs.weight.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from seal_jax.errors import UserError
from seal_jax.model.export import whole_file
from seal_jax.model.gguf_tokenizer import metadata_of
from seal_jax.model.layout import leaves, to_tensors
from seal_jax.model.pretrained import Pretrained
from seal_jax.model.rope import Llama3, Rope
from seal_jax.model.transformer import ModelConfig

TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0
}  # fmt: skip
_PLAIN = gguf.GGMLQuantizationType.F32
WRITTEN = ("llama", "qwen2", "qwen3")  # model_type


@dataclass(frozen=True)
class _Stored:
    """A tensor's name, its shape [out, in], and how its numbers are kept."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType


def save_gguf(path: str | Path, model: Pretrained, source: Path, kind: str = "f16") -> None:
    """Write `model` as one file; matrices in the numbers of `kind`, one of TYPES, and vectors in float32.

    source: where the model came from; of a GGUF file the tokenizer's fields are copied, else they are written from the
    tokenizer. The file appears when it is complete. UserError for an architecture or a scaling of positions that cannot
    be written, a tokenizer that GGUF has no name for, weights beyond the range of `kind`, and a place that cannot be
    written.
    """
    if kind not in TYPES:
        raise UserError(f"--gguf-type is {kind!r}; choose one of {', '.join(TYPES)}")
    arch = model.hf_config["model_type"]
    if arch not in WRITTEN:
        raise UserError(
            f"a model of type {arch!r} cannot be written as GGUF, only {', '.join(WRITTEN)} can; use --merged, and the "
            "converter of llama.cpp on that folder"
        )
    rope = _rope(model.config)
    words = _copied(source) if source.is_file() else _typed(metadata_of(model.tokenizer, model.config.vocab_size))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], model.config.num_layers)
    table = [_stored(name, shape, kind, names) for name, shape in _shapes(model.config)]
    with whole_file(path) as partial:
        writer = gguf.GGUFWriter(partial, arch)
        _describe(writer, model.config, TYPES[kind])
        writer.add_rope_freq_base(rope.theta)
        for key, value in words.items():
            writer.add_key_value(key, value.value, value.type, value.sub_type)
        divisors = _rope_divisors(rope, model.config.head_dim)
        if divisors is not None:
            writer.add_tensor_info("rope_freqs.weight", divisors.shape, divisors.dtype, divisors.nbytes)
        for one in table:
            block, size = gguf.GGML_QUANT_SIZES[one.kind]
            writer.add_tensor_info(one.name, one.shape, _dtype(), int(np.prod(one.shape)) // block * size, one.kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if divisors is not None:
            writer.write_tensor_data(divisors)
        for one, data in zip(table, _arrays(model, arch == "llama"), strict=True):
            writer.write_tensor_data(_numbers(one, data))
        writer.close()


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head (0, 1, ..., half, half+1, ...) in llama.cpp's order (0, half, 1, half+1, ...)."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _describe(writer: gguf.GGUFWriter, config: ModelConfig, kind: gguf.LlamaFileType) -> None:
    writer.add_type("model")
    writer.add_file_type(kind)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_position)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.mlp_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes [out, in] of what layout.to_tensors gives, in its order."""
    for leaf in leaves(config):
        for layer in range(config.num_layers if leaf.stacked else 1):
            yield leaf.name.format(layer), leaf.shape[::-1] if leaf.transposed else leaf.shape


def _stored(name: str, shape: tuple[int, ...], kind: str, names: gguf.TensorNameMap) -> _Stored:
    found = _Stored(names.get_name(name, try_suffixes=(".weight", ".bias")), shape, _PLAIN)
    if len(shape) == 1 or kind == "f32":
        return found
    blocks = kind == "q8_0" and shape[-1] % gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0][0] == 0
    return replace(found, kind=gguf.GGMLQuantizationType.Q8_0 if blocks else gguf.GGMLQuantizationType.F16)


def _arrays(model: Pretrained, permuted: bool) -> Iterator[np.ndarray]:
    """Tensors [out, in] in float32, one at a time."""
    heads = {"q_proj.weight": model.config.num_heads, "k_proj.weight": model.config.num_kv_heads}
    for name, array in to_tensors(model.config, model.params):
        kind = ".".join(name.split(".")[-2:])
        array = np.ascontiguousarray(array, np.float32)
        yield np.ascontiguousarray(permute(array, heads[kind])) if permuted and kind in heads else array


def _numbers(one: _Stored, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        data = gguf.quants.quantize(array, one.kind)
    if one.kind == gguf.GGMLQuantizationType.F16 and not np.isfinite(data).all():
        raise UserError(f"tensor {one.name} has numbers beyond the range of float16; write it with --gguf-type f32")
    return data


def _dtype() -> np.dtype:
    return np.dtype(np.float32)  # of a tensor whose shape counts numbers, not bytes


def _rope(config: ModelConfig) -> Rope:
    """The rotary positions of all layers, which are of one kind. UserError for a scaling that cannot be written."""
    [kind] = config.kinds
    if kind.window or not isinstance(kind.rope.scaling, Llama3 | None):
        raise UserError(
            "a model with windows, or whose positions are scaled in another way than Llama 3's, cannot be written as "
            "GGUF; use --merged"
        )
    return kind.rope


def _rope_divisors(rope: Rope, head_dim: int) -> np.ndarray | None:
    """[H/2], by how much the rotary frequencies are lowered; None where they are not."""
    if rope.scaling is None:
        return None
    plain = np.asarray(replace(rope, scaling=None).frequencies(head_dim), np.float64)
    return (plain / np.asarray(rope.frequencies(head_dim), np.float64)).astype(np.float32)


def _copied(path: Path) -> dict[str, Any]:
    """The tokenizer's fields of a GGUF file, as they are there."""
    array, found = gguf.GGUFValueType.ARRAY, {}
    for key, field in gguf.GGUFReader(path).fields.items():
        if key.startswith("tokenizer."):
            inner = field.types[-1] if field.types[0] == array else None
            found[key] = gguf.gguf_writer.GGUFValue(field.contents(), field.types[0], inner)
    return found


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """Values with the types that llama.cpp expects of them."""
    kind, found = gguf.GGUFValueType, {}
    for key, value in values.items():
        if isinstance(value, list):
            inner = kind.STRING if isinstance(value[0], str) else kind.INT32
            found[key] = gguf.gguf_writer.GGUFValue(value, kind.ARRAY, inner)
        else:
            plain = {bool: kind.BOOL, int: kind.UINT32, str: kind.STRING}[type(value)]
            found[key] = gguf.gguf_writer.GGUFValue(value, plain)
    return found
