"""One Flax Linen decoder for Llama 3, SmolLM2, Qwen2, Qwen2.5 and Qwen3.

Shape legend, used in every einsum of the project:
  C candidates · S steps · B batch · P prompts · M = B/P rows of a prompt · T query length · S_kv key length · D model ·
  N heads · K kv heads · G = N/K · H head dim · F mlp · V vocab · R rank · L layers

The weights are `{'params': base}` and, beside them, `{'lora': adapter}`; without the second collection the model is the
base. Kernels are [in, out], and model/quantized.py may store them in fewer bits; the leaves under `layers` carry a
leading L axis, because nn.scan runs the blocks.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from seal_jax.model import precision
from seal_jax.model.quantized import product

LONG, QUERIES = 1024, 256  # sequences longer than the first attend in blocks of the second (all buckets are multiples)


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3 long-context scaling of the rotary frequencies."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a decoder; the fields say all that differs between the supported families."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    rope_theta: float
    rms_norm_eps: float
    qkv_bias: bool
    qk_norm: bool
    tie_embeddings: bool
    max_position: int
    rope_scaling: RopeScaling | None = None


class Prompts(NamedTuple):
    """Keys and values of prompts that were read, k and v [L, P, K, S_kv, H]. They are never written to again."""

    k: jax.Array
    v: jax.Array
    start: jax.Array  # [P] int32: prompts are padded on the left, their first token sits in this slot


class Cache(NamedTuple):
    """Prompts, each shared by B/P rows that lie side by side, and behind them every row's own keys and values, k and v
    [L, B, K, S_kv, H], of which the first `filled` slots are in use."""

    prompts: Prompts
    k: jax.Array
    v: jax.Array
    filled: jax.Array  # [] int32


def make_room(prompts: Prompts, rows: int, slots: int) -> Cache:
    """A cache in which so many rows, a multiple of the prompts, go on from them for so many tokens."""
    layers, _, heads, _, dim = prompts.k.shape
    shape = layers, rows, heads, slots, dim
    return Cache(prompts, jnp.zeros(shape, prompts.k.dtype), jnp.zeros(shape, prompts.v.dtype), jnp.int32(0))


def rope_frequencies(config: ModelConfig) -> jax.Array:
    """Rotary frequencies [H/2] in radians per position."""
    half = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    freqs = config.rope_theta**-half
    scaling = config.rope_scaling
    if scaling is None:
        return freqs
    turns = scaling.original_max_position * freqs / (2 * jnp.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return freqs * (smooth + (1 - smooth) / scaling.factor)


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Apply rotary embedding to x [B, heads, T, H] with angles [B, T, H/2], halves rotated against each other."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    sin, cos = jnp.sin(angles)[:, None], jnp.cos(angles)[:, None]
    out = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return out.astype(x.dtype)


class RMSNorm(nn.Module):
    eps: float

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return (x32 * scale.astype(jnp.float32)).astype(x.dtype)


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
            y = y + (x @ a.astype(x.dtype)) @ b.astype(x.dtype) * self.lora_scale
        return y


class Head(nn.Module):
    """From hidden states to logits in float32, where these have weights of their own."""

    vocab_size: int

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.normal(0.02), (x.shape[-1], self.vocab_size))
        return precision.einsum("...D,DV->...V", x, kernel)


def attend(q, parts, masks) -> jax.Array:
    """`attend_at_once`, for long sequences a block of queries at a time, each recomputed in the backward pass: what it
    holds grows with T, not with its square."""
    length = q.shape[2]
    if len(parts) > 1 or length <= LONG or length % QUERIES:
        return attend_at_once(q, parts, masks)
    blocks = rearrange(q, "B N (J T) H -> J B N T H", T=QUERIES), rearrange(masks[0], "B (J T) S -> J B T S", T=QUERIES)
    out = jax.lax.map(jax.checkpoint(lambda block: attend_at_once(block[0], parts, [block[1]])), blocks)
    return rearrange(out, "J B T D -> B (J T) D")


def attend_at_once(q, parts, masks) -> jax.Array:
    """Grouped-query attention of q [B,N,T,H] over the keys and values of all parts -> [B,T,N*H].

    A part is (k, v) [P,K,S_kv,H]: row b attends to number b·P/B of it. `masks` are one [P,T,S_kv] for each part. The
    parts share one float32 softmax and are never concatenated or repeated, which would copy a cache.
    """
    length = q.shape[2]
    scores = []
    for (k, _), mask in zip(parts, masks, strict=True):
        asked = rearrange(q, "(P M) (K G) T H -> P K (M G T) H", P=k.shape[0], K=k.shape[1])
        score = precision.einsum("PKQH,PKSH->PKQS", asked, k) * q.shape[-1] ** -0.5
        score = rearrange(score, "P K (M G T) S -> P M K G T S", M=q.shape[0] // k.shape[0], T=length)
        score = jnp.where(mask[:, None, None, None], score, -1e30)
        scores.append(rearrange(score, "P M K G T S -> (P M) K G T S"))
    peak = jax.lax.stop_gradient(jnp.stack([score.max(-1) for score in scores]).max(0))[..., None]
    weights = [jnp.exp(score - peak) for score in scores]
    total = sum(weight.sum(-1, keepdims=True) for weight in weights)
    out = 0.0
    for (_, v), weight in zip(parts, weights, strict=True):
        probs = rearrange((weight / total).astype(v.dtype), "(P M) K G T S -> P K (M G T) S", P=v.shape[0])
        mixed = precision.einsum("PKQS,PKSH->PKQH", probs, v)
        out = out + rearrange(mixed, "P K (M G T) H -> (P M) T (K G H)", M=q.shape[0] // v.shape[0], T=length)
    return out.astype(q.dtype)


class Block(nn.Module):
    """Attention and gated MLP with pre-norms, of layer number `layer`.

    The carry is (hidden state, the cache's k and v of all layers, or None); the new keys and values are written to the
    cache, in place, before they are attended to, or returned where there is none.
    """

    config: ModelConfig
    lora_scale: float

    @nn.compact
    def __call__(self, carry, layer, prompts, filled, angles, masks):
        x, own = carry
        cfg = self.config

        def dense(features, name, bias=False):
            return Dense(features, self.lora_scale, bias, name=name)

        h = RMSNorm(cfg.rms_norm_eps, name="attn_norm")(x)
        q = dense(cfg.num_heads * cfg.head_dim, "q_proj", cfg.qkv_bias)(h)
        k = dense(cfg.num_kv_heads * cfg.head_dim, "k_proj", cfg.qkv_bias)(h)
        v = dense(cfg.num_kv_heads * cfg.head_dim, "v_proj", cfg.qkv_bias)(h)
        q, k, v = (rearrange(t, "B T (N H) -> B N T H", H=cfg.head_dim) for t in (q, k, v))
        if cfg.qk_norm:
            q = RMSNorm(cfg.rms_norm_eps, name="q_norm")(q)
            k = RMSNorm(cfg.rms_norm_eps, name="k_norm")(k)
        q, k = rotate(q, angles), rotate(k, angles)
        new = k, v
        if prompts is None:
            parts = [new]
        else:
            own = tuple(write(t, value, layer, filled) for t, value in zip(own, new, strict=True))
            parts, new = [of_layer((prompts.k, prompts.v), layer), of_layer(own, layer)], None
        x = x + dense(cfg.hidden_size, "o_proj")(attend(q, parts, masks))
        h = RMSNorm(cfg.rms_norm_eps, name="mlp_norm")(x)
        h = nn.silu(dense(cfg.mlp_dim, "gate_proj")(h)) * dense(cfg.mlp_dim, "up_proj")(h)
        return (x + dense(cfg.hidden_size, "down_proj")(h), own), new


class Transformer(nn.Module):
    """The decoder. `lora_scale` is alpha / rank of the adapters it will be applied with; `remat` recomputes each block
    in the backward pass, which trades a third more FLOPs for the activations of L-1 layers."""

    config: ModelConfig
    lora_scale: float = 1.0
    remat: bool = False

    def setup(self):
        cfg = self.config
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        scanned = nn.scan(
            block,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast),
            length=cfg.num_layers,
        )
        self.embed = nn.Embed(cfg.vocab_size, cfg.hidden_size, embedding_init=nn.initializers.normal(0.02))
        self.layers = scanned(cfg, self.lora_scale)
        self.final_norm = RMSNorm(cfg.rms_norm_eps)
        if not cfg.tie_embeddings:
            self.lm_head = Head(cfg.vocab_size)

    def __call__(self, tokens: jax.Array, cache: Cache | None = None, start: jax.Array | None = None):
        """Hidden states of tokens [B, T] -> ([B, T, D], what to go on from).

        With a cache the tokens follow what it holds, and the second result is the cache with them in it. Without one
        they begin the sequence, `start` [B] tells how many slots of left padding each row has (default: none), and the
        second result is their `Prompts`.
        """
        batch, length = tokens.shape
        slots = jnp.arange(length)
        if cache is None:
            start = jnp.zeros(batch, jnp.int32) if start is None else start
            prompts = own = filled = None
            causal = slots[None, :] <= slots[:, None]
            masks = [causal[None] & (slots >= start[:, None])[:, None]]
        else:
            prompts, own, filled = cache.prompts, (cache.k, cache.v), cache.filled
            start, read = prompts.start, prompts.k.shape[3]
            written = jnp.arange(read) >= start[:, None]
            causal = jnp.arange(cache.k.shape[3]) <= filled + slots[:, None]
            masks = [jnp.repeat(written[:, None], length, axis=1), jnp.broadcast_to(causal, (batch, *causal.shape))]
            slots = read + filled + slots
        positions = jnp.maximum(slots[None] - jnp.repeat(start, batch // start.shape[0])[:, None], 0)
        angles = positions[..., None].astype(jnp.float32) * rope_frequencies(self.config)
        layers = jnp.arange(self.config.num_layers)
        (x, own), new = self.layers((self.embed(tokens), own), layers, prompts, filled, angles, masks)
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


def of_layer(stacked: tuple, layer: jax.Array) -> tuple:
    """One layer's part of each array [L, ...]."""
    return tuple(jax.lax.dynamic_index_in_dim(t, layer, keepdims=False) for t in stacked)


def write(cached: jax.Array, new: jax.Array, layer: jax.Array, filled: jax.Array) -> jax.Array:
    """The cached keys or values [L, B, K, S_kv, H] with new ones [B, K, T, H] of a layer behind those in use."""
    return jax.lax.dynamic_update_slice(cached, new[None].astype(cached.dtype), (layer, 0, 0, filled, 0))
