"""One Flax Linen decoder for Llama 3, Mistral, SmolLM2, SmolLM3, Qwen2, Qwen2.5, Qwen3 and Gemma 3.

Shape legend, used in every einsum of the project:
  C candidates · S steps · B batch · P prompts · M = B/P rows of a prompt · T query length · S_kv key length · D model ·
  N heads · K kv heads · G = N/K · H head dim · F mlp · V vocab · R rank · L layers

The weights are `{'params': base}` and, beside them, `{'lora': adapter}`; without the second collection the model is the
base. Kernels are [in, out], and model/quantized.py may store them in fewer bits; the leaves under `layers` carry a
leading L axis, because nn.scan runs the blocks. Layers differ in nothing but their `LayerKind`; what each kind goes by
is computed once, before the scan, and every layer takes that of its own.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from seal_jax.model import precision
from seal_jax.model.attention import Causal, Kernel, attend, sees
from seal_jax.model.quantized import product
from seal_jax.model.rope import Rope

PROJECTED = "projected"  # the outputs of a block's projections, and of the first factors of adapters on them
REMAT = {  # what of a block the backward pass computes again, as keywords of jax.checkpoint, from least to most
    "none": None,
    "minimal": {"policy": jax.checkpoint_policies.save_only_these_names(PROJECTED)},
    "full": {},
}
ACTIVATIONS = {"silu": nn.silu, "gelu_pytorch_tanh": functools.partial(nn.gelu, approximate=True)}


@dataclass(frozen=True)
class LayerKind:
    """What tells layers apart: their rotary positions (None: they have none), and how many tokens a token sees, itself
    and those before it (None: all)."""

    rope: Rope | None
    window: int | None = None


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a decoder; the fields say all that differs between the supported families.

    layers: the kind of each layer, first to last. query_pre_attn_scalar: attention scores are divided by its root.
    norm_offset: what is added to the weights of all norms. post_norms: attention and MLP end in a norm as well.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    layers: tuple[LayerKind, ...]
    rms_norm_eps: float
    qkv_bias: bool
    qk_norm: bool
    tie_embeddings: bool
    max_position: int
    query_pre_attn_scalar: float
    activation: str = "silu"
    embed_scale: float = 1.0
    norm_offset: float = 0.0
    post_norms: bool = False

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """Every kind of layer once."""
        return tuple(dict.fromkeys(self.layers))


class Prompts(NamedTuple):
    """Keys and values of prompts that were read, k and v [L, P, K, S_kv, H]. They are never written to again."""

    k: jax.Array
    v: jax.Array
    start: jax.Array  # [P] int32: prompts are padded on the left, their first token sits in this slot


class Cache(NamedTuple):
    """Prompts, each shared by B/P rows that lie side by side, and behind them every row's own keys and values, k and v
    [L, S_kv, B, K, H], of which the first `filled` slots are in use. What a step writes for all rows lies together."""

    prompts: Prompts
    k: jax.Array
    v: jax.Array
    filled: jax.Array  # [] int32


def make_room(prompts: Prompts, rows: int, slots: int) -> Cache:
    """A cache in which so many rows, a multiple of the prompts, go on from them for so many tokens."""
    layers, _, heads, _, dim = prompts.k.shape
    shape = layers, slots, rows, heads, dim
    return Cache(prompts, jnp.zeros(shape, prompts.k.dtype), jnp.zeros(shape, prompts.v.dtype), jnp.int32(0))


def turns(rope: Rope | None, positions: jax.Array, head_dim: int) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) [B, 1, T, H/2] by which tokens at positions [B, T] are turned; 1 and 0 without rotary positions."""
    frequencies = np.zeros(head_dim // 2, np.float32) if rope is None else rope.frequencies(head_dim)
    angles = positions[:, None, :, None].astype(jnp.float32) * frequencies
    magnitude = 1.0 if rope is None else rope.magnitude
    return jnp.cos(angles) * magnitude, jnp.sin(angles) * magnitude


def rotate(x: jax.Array, turn: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Apply rotary embedding to x [B, heads, T, H], by `turns`; halves are rotated against each other."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = turn
    out = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return out.astype(x.dtype)


class RMSNorm(nn.Module):
    eps: float
    offset: float = 0.0

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.constant(1 - self.offset), (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return (x32 * (scale.astype(jnp.float32) + self.offset)).astype(x.dtype)


class Dense(nn.Module):
    """A projection, with a LoRA adapter on it where the `lora` collection has one."""

    features: int
    lora_scale: float
    use_bias: bool = False

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.normal(0.02), (x.shape[-1], self.features))
        y = product(x, kernel)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))
        if self.has_variable("lora", "A"):
            a, b = self.get_variable("lora", "A"), self.get_variable("lora", "B")
            y = y + checkpoint_name(x @ a.astype(x.dtype), PROJECTED) @ b.astype(x.dtype) * self.lora_scale
        return checkpoint_name(y, PROJECTED)


class Head(nn.Module):
    """From hidden states to logits in float32, where these have weights of their own."""

    vocab_size: int

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.normal(0.02), (x.shape[-1], self.vocab_size))
        return precision.einsum("...D,DV->...V", x, kernel)


class Block(nn.Module):
    """Attention and gated MLP with pre-norms, and with post-norms where the model has them. `place` is (the number of
    the layer, that of its kind); `by_kind` has (turns, masks) for each kind.

    The carry is (hidden state, the cache's k and v of all layers, or None); the new keys and values are written to the
    cache, in place, before they are attended to, or returned where there is none.
    """

    config: ModelConfig
    lora_scale: float

    @nn.compact
    def __call__(self, carry, place, prompts, filled, by_kind):
        (x, own), (layer, kind) = carry, place
        cfg = self.config
        turn, masks = of_kind(by_kind, kind)

        def dense(features, name, bias=False):
            return Dense(features, self.lora_scale, bias, name=name)

        def norm(name):
            return RMSNorm(cfg.rms_norm_eps, cfg.norm_offset, name=name)

        h = norm("attn_norm")(x)
        q = dense(cfg.num_heads * cfg.head_dim, "q_proj", cfg.qkv_bias)(h)
        k = dense(cfg.num_kv_heads * cfg.head_dim, "k_proj", cfg.qkv_bias)(h)
        v = dense(cfg.num_kv_heads * cfg.head_dim, "v_proj", cfg.qkv_bias)(h)
        q, k, v = (rearrange(t, "B T (N H) -> B N T H", H=cfg.head_dim) for t in (q, k, v))
        if cfg.qk_norm:
            q, k = norm("q_norm")(q), norm("k_norm")(k)
        q, k = rotate(q, turn), rotate(k, turn)
        new = k, v
        if prompts is None:
            parts = [new]
        else:
            own = tuple(write(t, value, layer, filled) for t, value in zip(own, new, strict=True))
            written = tuple(rearrange(t, "S B K H -> B K S H") for t in of_layer(own, layer))
            parts, new = [of_layer((prompts.k, prompts.v), layer), written], None
        h = dense(cfg.hidden_size, "o_proj")(attend(q, parts, masks, cfg.query_pre_attn_scalar**-0.5))
        x = x + (norm("attn_out_norm")(h) if cfg.post_norms else h)
        h = norm("mlp_norm")(x)
        h = ACTIVATIONS[cfg.activation](dense(cfg.mlp_dim, "gate_proj")(h)) * dense(cfg.mlp_dim, "up_proj")(h)
        h = dense(cfg.hidden_size, "down_proj")(h)
        return (x + (norm("mlp_out_norm")(h) if cfg.post_norms else h), own), new


class Transformer(nn.Module):
    """The decoder. `lora_scale` is the scale of the adapters it will be applied with; `remat` is one of REMAT, what of
    each block the backward pass computes again to save memory: 'none'; 'minimal', all but the products of its
    projections; or 'full', for about a third more FLOPs. `kernel` reads long sequences where it can, and where all
    layers are of one kind."""

    config: ModelConfig
    lora_scale: float = 1.0
    remat: str = "none"
    kernel: Kernel | None = None

    def setup(self):
        cfg = self.config
        how = REMAT[self.remat]
        block = Block if how is None else nn.remat(Block, prevent_cse=False, **how)
        scanned = nn.scan(
            block,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=cfg.num_layers,
        )
        self.embed = nn.Embed(cfg.vocab_size, cfg.hidden_size, embedding_init=nn.initializers.normal(0.02))
        self.layers = scanned(cfg, self.lora_scale)
        self.final_norm = RMSNorm(cfg.rms_norm_eps, cfg.norm_offset)
        if not cfg.tie_embeddings:
            self.lm_head = Head(cfg.vocab_size)

    def __call__(self, tokens: jax.Array, cache: Cache | None = None, start: jax.Array | None = None):
        """Hidden states of tokens [B, T] -> ([B, T, D], what to go on from).

        With a cache the tokens follow what it holds, and the second result is the cache with them in it. Without one
        they begin the sequence, `start` [B] tells how many slots of left padding each row has (default: none), and the
        second result is their `Prompts`.
        """
        cfg, (batch, length) = self.config, tokens.shape
        slots, padded = jnp.arange(length), start is not None
        x = self.embed(tokens)
        if cache is None:
            start = jnp.zeros(batch, jnp.int32) if start is None else start
            prompts = own = filled = None
            keys = [slots]
        else:
            prompts, own, filled = cache.prompts, (cache.k, cache.v), cache.filled
            start, read = prompts.start, prompts.k.shape[3]
            slots = read + filled + slots
            keys = [jnp.arange(read), read + jnp.arange(cache.k.shape[1])]
        written = keys[0] >= start[:, None]  # left of it there is only padding
        alike = cache is None and len(cfg.kinds) == 1
        by_kernel = alike and self.kernel is not None and self.kernel.reads(length, x.dtype, padded)

        def masks(window):
            if by_kernel:
                return Causal(written if padded else None, self.kernel, window)
            first, *rest = [sees(slots, those, window) for those in keys]
            return [first & written[:, None], *(jnp.broadcast_to(mask, (batch, *mask.shape)) for mask in rest)]

        positions = jnp.maximum(slots[None] - jnp.repeat(start, batch // start.shape[0])[:, None], 0)
        by_kind = [(turns(kind.rope, positions, cfg.head_dim), masks(kind.window)) for kind in cfg.kinds]
        places = jnp.arange(cfg.num_layers), np.array([cfg.kinds.index(kind) for kind in cfg.layers], np.int32)
        x = x * jnp.asarray(cfg.embed_scale, x.dtype)
        (x, own), new = self.layers((x, own), places, prompts, filled, by_kind)
        after = Prompts(*new, start) if cache is None else Cache(prompts, *own, filled + length)
        return self.final_norm(x), after

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Next-token logits [..., V] in float32 of hidden states [..., D]."""
        if self.config.tie_embeddings:
            return precision.einsum("...D,VD->...V", hidden, self.embed.embedding)
        return self.lm_head(hidden)

    def full(self, tokens: jax.Array) -> jax.Array:
        """Logits [B, T, V] of tokens [B, T], all at once: for tests and for looking, not for training."""
        return self.logits(self(tokens)[0])


def of_kind(by_kind: list, kind: jax.Array):
    """That of the arrays of all kinds which has this number; of a single kind there is nothing to choose."""
    if len(by_kind) == 1:
        return by_kind[0]
    return jax.tree.map(lambda *cases: jax.lax.select_n(kind, *cases), *by_kind)


def of_layer(stacked: tuple, layer: jax.Array) -> tuple:
    """One layer's part of each array [L, ...]."""
    return tuple(jax.lax.dynamic_index_in_dim(t, layer, keepdims=False) for t in stacked)


def write(cached: jax.Array, new: jax.Array, layer: jax.Array, filled: jax.Array) -> jax.Array:
    """The cached keys or values [L, S_kv, B, K, H] with new ones [B, K, T, H] of a layer behind those in use."""
    new = rearrange(new, "B K T H -> 1 T B K H").astype(cached.dtype)
    return jax.lax.dynamic_update_slice(cached, new, (layer, filled, 0, 0, 0))
