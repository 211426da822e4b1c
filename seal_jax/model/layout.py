"""Two layouts of the same weights: our tree, stacked over layers with kernels [in, out], and Hugging Face's tensors,
one of each kind per layer with weights [out, in]. Readers and writers of every format go through this table.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import ml_dtypes
import numpy as np

from seal_jax.errors import UserError
from seal_jax.model.transformer import ModelConfig

NORMS = {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
NORMS_ON_BOTH_SIDES = {
    "attn_norm": "input_layernorm",
    "attn_out_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


class Leaf(NamedTuple):
    """One leaf of our tree. `name` is Hugging Face's, with {} where the layer's number goes if the leaf is stacked."""

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]  # ours, of one layer
    transposed: bool

    @property
    def stacked(self) -> bool:
        return self.path[0] == "layers"


class Tensors(NamedTuple):
    """Hugging Face-shaped tensors that are read one at a time: where from, which names, and how."""

    place: str
    names: frozenset[str]
    read: Callable[[str], np.ndarray]


def leaves(config: ModelConfig) -> list[Leaf]:
    """Every leaf that a model of this configuration has."""
    width, query, kv = config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    kernels = {
        "q_proj": ("self_attn", width, query),
        "k_proj": ("self_attn", width, kv),
        "v_proj": ("self_attn", width, kv),
        "o_proj": ("self_attn", query, width),
        "gate_proj": ("mlp", width, config.mlp_dim),
        "up_proj": ("mlp", width, config.mlp_dim),
        "down_proj": ("mlp", config.mlp_dim, width),
    }
    out = [Leaf(("embed", "embedding"), "model.embed_tokens.weight", (config.vocab_size, width), False)]
    for ours, theirs in (NORMS_ON_BOTH_SIDES if config.post_norms else NORMS).items():
        out.append(Leaf(("layers", ours, "scale"), f"model.layers.{{}}.{theirs}.weight", (width,), False))
    for name, (part, fan_in, fan_out) in kernels.items():
        stem = f"model.layers.{{}}.{part}.{name}"
        out.append(Leaf(("layers", name, "kernel"), f"{stem}.weight", (fan_in, fan_out), True))
        if config.qkv_bias and name in ("q_proj", "k_proj", "v_proj"):
            out.append(Leaf(("layers", name, "bias"), f"{stem}.bias", (fan_out,), False))
    if config.qk_norm:
        for name in ("q_norm", "k_norm"):
            stem = f"model.layers.{{}}.self_attn.{name}"
            out.append(Leaf(("layers", name, "scale"), f"{stem}.weight", (config.head_dim,), False))
    out.append(Leaf(("final_norm", "scale"), "model.norm.weight", (width,), False))
    if not config.tie_embeddings:
        out.append(Leaf(("lm_head", "kernel"), "lm_head.weight", (width, config.vocab_size), True))
    return out


def from_tensors(config: ModelConfig, tensors: Tensors, dtype: str) -> dict:
    """Our parameter tree in numpy, cast to `dtype`; reads one tensor at a time. UserError if one is missing or odd."""
    table = leaves(config)
    _refuse_unknown(config, table, tensors)
    tree: dict = {}
    for leaf in table:
        depth = (config.num_layers,) if leaf.stacked else ()
        array = np.empty((*depth, *leaf.shape), DTYPES[dtype])
        for layer in range(config.num_layers if leaf.stacked else 1):
            array[layer if leaf.stacked else ...] = _read(leaf, leaf.name.format(layer), tensors)
        node = tree
        for key in leaf.path[:-1]:
            node = node.setdefault(key, {})
        node[leaf.path[-1]] = array
    return tree


def to_tensors(config: ModelConfig, tree: dict) -> Iterator[tuple[str, np.ndarray]]:
    """The inverse: Hugging Face names and contiguous arrays in the tree's own dtype, one at a time, leaf by leaf."""
    for leaf in leaves(config):
        array = np.asarray(leaf_of(tree, leaf))
        for layer in range(config.num_layers if leaf.stacked else 1):
            one = array[layer] if leaf.stacked else array
            yield leaf.name.format(layer), np.ascontiguousarray(one.T if leaf.transposed else one)


def leaf_of(tree: dict, leaf: Leaf):
    """The array at a leaf's path."""
    for key in leaf.path:
        tree = tree[key]
    return tree


def _read(leaf: Leaf, name: str, tensors: Tensors) -> np.ndarray:
    if name not in tensors.names:
        raise UserError(
            f"{tensors.place} has no tensor {name}, which its configuration calls for: get a complete copy."
        )
    array = tensors.read(name)
    if array.dtype not in (*DTYPES.values(), np.float64):
        raise UserError(
            f"{tensors.place}: tensor {name} is {array.dtype}; only floating-point weights of 16 bits or more can be "
            "read from safetensors, so use the unquantized checkpoint."
        )
    array = array.T if leaf.transposed else array
    if array.shape != leaf.shape:
        raise UserError(
            f"{tensors.place}: tensor {name} has shape {array.shape} where the configuration calls for {leaf.shape} "
            "(both as [in, out]): the weights and the configuration are not of the same model."
        )
    return array


def _refuse_unknown(config: ModelConfig, table: list[Leaf], tensors: Tensors) -> None:
    """A tensor that we would silently leave out is a model that we would silently get wrong."""
    known = {leaf.name.format(layer) for leaf in table for layer in range(config.num_layers)} | {"lm_head.weight"}
    odd = sorted(name for name in tensors.names - known if not name.endswith("rotary_emb.inv_freq"))
    if odd:
        raise UserError(
            f"{tensors.place}: tensor {odd[0]} (of {len(odd)} like it) has no place in this architecture: use a plain "
            "checkpoint of a supported model."
        )
