"""One Flax Linen decoder for Llama 3, SmolLM2, Qwen2, Qwen2.5 and Qwen3.

Shape legend, used in every einsum of the project:
  C candidates · S steps · B batch · T query length · S_kv key length · D model · N heads · K kv heads · G = N/K ·
  H head dim · F mlp · V vocab · R rank · L layers

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


class Cache(NamedTuple):
    """Keys and values of the tokens so far, k and v [L, B, K, S_kv, H]; `filled` slots are in use, from `start` on."""

    k: jax.Array
    v: jax.Array
    filled: jax.Array  # [] int32
    start: jax.Array  # [B] int32: rows are padded on the left, their first token sits in this slot


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


def attend(q, new, cached, masks) -> jax.Array:
    """`attend_at_once`, for long sequences a block of queries at a time, each recomputed in the backward pass: what it
    holds grows with T, not with its square."""
    length = q.shape[2]
    if cached is not None or length <= LONG or length % QUERIES:
        return attend_at_once(q, new, cached, masks)
    blocks = rearrange(q, "B N (J T) H -> J B N T H", T=QUERIES), rearrange(masks[0], "B (J T) S -> J B T S", T=QUERIES)
    out = jax.lax.map(jax.checkpoint(lambda block: attend_at_once(block[0], new, None, [block[1]])), blocks)
    return rearrange(out, "J B T D -> B (J T) D")


def attend_at_once(q, new, cached, masks) -> jax.Array:
    """Grouped-query attention of q [B,N,T,H] over the new and the cached keys and values -> [B,T,N*H].

    `new` and `cached` are (k, v) pairs [B,K,S_kv,H], `masks` one [B,T,S_kv] each; `cached` may be None. The two parts
    share one float32 softmax and are never concatenated, which would copy the cache.
    """
    k_heads = new[0].shape[1]
    q = rearrange(q, "B (K G) T H -> B K (G T) H", K=k_heads)
    parts = [new] if cached is None else [cached, new]
    scores = []
    for (k, _), mask in zip(parts, masks, strict=True):
        score = jnp.einsum("BKQH,BKSH->BKQS", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
        score = rearrange(score, "B K (G T) S -> B K G T S", T=mask.shape[1])
        scores.append(jnp.where(mask[:, None, None], score, -1e30))
    peak = jax.lax.stop_gradient(jnp.stack([score.max(-1) for score in scores]).max(0))[..., None]
    weights = [jnp.exp(score - peak) for score in scores]
    total = sum(weight.sum(-1, keepdims=True) for weight in weights)
    out = 0.0
    for (_, v), weight in zip(parts, weights, strict=True):
        probs = rearrange((weight / total).astype(v.dtype), "B K G T S -> B K (G T) S")
        out = out + jnp.einsum("BKQS,BKSH->BKQH", probs, v)
    return rearrange(out, "B K (G T) H -> B T (K G H)", T=masks[0].shape[1])


class Block(nn.Module):
    """Attention and gated MLP with pre-norms. Returns the new hidden state and this block's new keys and values."""

    config: ModelConfig
    lora_scale: float

    @nn.compact
    def __call__(self, x, cached, angles, masks):
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
        x = x + dense(cfg.hidden_size, "o_proj")(attend(q, (k, v), cached, masks))
        h = RMSNorm(cfg.rms_norm_eps, name="mlp_norm")(x)
        h = nn.silu(dense(cfg.mlp_dim, "gate_proj")(h)) * dense(cfg.mlp_dim, "up_proj")(h)
        return x + dense(cfg.hidden_size, "down_proj")(h), (k, v)


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
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=cfg.num_layers,
        )
        self.embed = nn.Embed(cfg.vocab_size, cfg.hidden_size, embedding_init=nn.initializers.normal(0.02))
        self.layers = scanned(cfg, self.lora_scale)
        self.final_norm = RMSNorm(cfg.rms_norm_eps)
        if not cfg.tie_embeddings:
            self.lm_head = Dense(cfg.vocab_size, 1.0)

    def __call__(self, tokens: jax.Array, cache: Cache | None = None, start: jax.Array | None = None):
        """Hidden states of tokens [B, T] -> ([B, T, D], (k, v) of these tokens, each [L, B, K, T, H]).

        With a cache the tokens follow what it holds; they are not written to it (see `extend`). Without one they begin
        the sequence, and `start` [B] tells how many slots of left padding each row has (default: none).
        """
        batch, length = tokens.shape
        filled = 0 if cache is None else cache.filled
        start = cache.start if cache is not None else jnp.zeros(batch, jnp.int32) if start is None else start
        slots = filled + jnp.arange(length)
        positions = jnp.maximum(slots[None] - start[:, None], 0)
        angles = positions[..., None].astype(jnp.float32) * rope_frequencies(self.config)
        causal = slots[None, :] <= slots[:, None]
        masks = [causal[None] & (slots >= start[:, None])[:, None]]
        cached = None
        if cache is not None:
            old = jnp.arange(cache.k.shape[3])
            visible = (old < filled) & (old >= start[:, None])
            masks = [jnp.broadcast_to(visible[:, None], (batch, length, old.size))] + masks
            cached = (cache.k, cache.v)
        x, new_kv = self.layers(self.embed(tokens), cached, angles, masks)
        return self.final_norm(x), new_kv

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Next-token logits [..., V] in float32 of hidden states [..., D]."""
        out = self.embed.attend(hidden) if self.config.tie_embeddings else self.lm_head(hidden)
        return out.astype(jnp.float32)

    def full(self, tokens: jax.Array) -> jax.Array:
        """Logits [B, T, V] of tokens [B, T], all at once: for tests and for looking, not for training."""
        return self.logits(self(tokens)[0])


def extend(cache: Cache, new_kv: tuple[jax.Array, jax.Array]) -> Cache:
    """The cache with the new tokens' keys and values written behind what it holds."""
    length = new_kv[0].shape[3]
    at = (0, 0, 0, cache.filled, 0)
    k = jax.lax.dynamic_update_slice(cache.k, new_kv[0].astype(cache.k.dtype), at)
    v = jax.lax.dynamic_update_slice(cache.v, new_kv[1].astype(cache.v.dtype), at)
    return Cache(k, v, cache.filled + length, cache.start)
