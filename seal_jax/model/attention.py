"""Attention of queries over keys and values: all at once, a block of queries at a time where sequences are long, or by
a kernel of the device. Shapes are named as in model/transformer.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import struct

from seal_jax.model import precision

LONG, QUERIES = 1024, 256  # sequences longer than the first attend in blocks of the second (all buckets are multiples)


@dataclass(frozen=True)
class Kernel:
    """A program that reads a long sequence from its begin without holding its scores: 'splash' of JAX's Pallas kernels
    for TPU, or 'cudnn' for NVIDIA GPUs. `local` makes of a function of (q, k, v, written) one that every device runs on
    heads of its own, because the compiler cannot split a kernel."""

    name: str
    local: Callable[[Callable], Callable]

    def reads(self, length: int, dtype, padded: bool) -> bool:
        """Whether it reads sequences of so many tokens; `padded`: there may be padding before the first."""
        long = length > LONG and length % QUERIES == 0
        return long and dtype == jnp.bfloat16 and not (padded and self.name == "cudnn")


@struct.dataclass
class Causal:
    """Instead of masks: each token sees those up to itself that are `written` [B, T] (None: all are), of these as many
    as make up the window with itself (None: all)."""

    written: jax.Array | None
    kernel: Kernel = struct.field(pytree_node=False)
    window: int | None = struct.field(pytree_node=False)


def kernel_for(device: jax.Device) -> str | None:
    """The name of the kernel that a device has, or None."""
    if device.platform == "tpu" and device.device_kind not in ("TPU v2", "TPU v3"):
        return "splash"
    number = str(getattr(device, "compute_capability", "")).split(".")  # of other makers' GPUs it is a name
    return "cudnn" if device.platform == "gpu" and number[0].isdigit() and int(number[0]) >= 8 else None


def sees(queries: jax.Array, keys: jax.Array, window: int | None) -> jax.Array:
    """Whether tokens in slots queries [T] see those in slots keys [S] -> [T, S]: none after them, and of those before
    as many as make up the window with the token itself."""
    distance = queries[:, None] - keys
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def attend(q, parts, masks, scale: float) -> jax.Array:
    """Grouped-query attention of q [B,N,T,H] over the keys and values of all parts -> [B,T,N*H]; scores are q·k·scale.

    A part is (k, v) [P,K,S_kv,H]: row b attends to number b·P/B of it. `masks` are one [P,T,S_kv] for each part, or a
    `Causal` where the one part is that of the queries. What is held grows with T, not with its square.
    """
    length = q.shape[2]
    if isinstance(masks, Causal):
        return by_kernel(q, *parts[0], masks, scale)
    if len(parts) > 1 or length <= LONG or length % QUERIES:
        return attend_at_once(q, parts, masks, scale)
    blocks = rearrange(q, "B N (J T) H -> J B N T H", T=QUERIES), rearrange(masks[0], "B (J T) S -> J B T S", T=QUERIES)
    out = jax.lax.map(jax.checkpoint(lambda block: attend_at_once(block[0], parts, [block[1]], scale)), blocks)
    return rearrange(out, "J B T D -> B (J T) D")


def attend_at_once(q, parts, masks, scale: float) -> jax.Array:
    """`attend` with all scores at once. The parts share one float32 softmax and are never concatenated or repeated, as
    that would copy a cache."""
    length = q.shape[2]
    scores = []
    for (k, _), mask in zip(parts, masks, strict=True):
        asked = rearrange(q, "(P M) (K G) T H -> P K (M G T) H", P=k.shape[0], K=k.shape[1])
        score = precision.einsum("PKQH,PKSH->PKQS", asked, k) * scale
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


def by_kernel(q, k, v, how: Causal, scale: float) -> jax.Array:
    """`attend` by the kernel. What tokens of padding see is left open: nobody looks at them."""
    run = {"splash": splash, "cudnn": cudnn}[how.kernel.name]
    scaled = (q.astype(jnp.float32) * scale).astype(q.dtype)
    out = how.kernel.local(lambda *args: run(*args, how.window))(scaled, k, v, how.written)
    return rearrange(out, "B N T H -> B T (N H)")


def splash(q, k, v, written, window: int | None, interpret: bool = False) -> jax.Array:
    """Causal attention of scaled q [B,N,T,H] over k and v [B,K,T,H] -> [B,N,T,H] on a TPU; `interpret`: anywhere."""
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    length, grouped = q.shape[2], q.shape[1] // k.shape[1]
    shape = length, length
    mask = kernels.CausalMask(shape) if window is None else kernels.LocalMask(shape, (window - 1, 0), 0)
    size = next(size for size in (512, 256, 128) if length % size == 0)
    blocks = kernels.BlockSizes(
        block_q=size, block_kv=size, block_kv_compute=size, block_q_dkv=size, block_kv_dkv=size,
        block_kv_dkv_compute=size, block_q_dq=size, block_kv_dq=size,
    )  # fmt: skip
    with jax.ensure_compile_time_eval():  # the kernel's tables of blocks are constants
        kernel = kernels.make_splash_mqa_single_device(
            kernels.MultiHeadMask([mask] * grouped), block_sizes=blocks, interpret=interpret
        )

    def row(q, k, v, written):
        apart = None if written is None else kernels.SegmentIds(*(written.astype(jnp.int32),) * 2)
        return jax.vmap(kernel, in_axes=(0, 0, 0, None))(q, k, v, apart)

    grouping = rearrange(q, "B (K G) T H -> B K G T H", G=grouped)
    out = jax.vmap(row, in_axes=(0, 0, 0, None if written is None else 0))(grouping, k, v, written)
    return rearrange(out, "B K G T H -> B (K G) T H")


def cudnn(q, k, v, written: None, window: int | None, implementation: str = "cudnn") -> jax.Array:
    """Causal attention of scaled q [B,N,T,H] over k and v [B,K,T,H] -> [B,N,T,H] on a GPU, of sequences without padding
    before them."""
    turned = (rearrange(t, "B N T H -> B T N H") for t in (q, k, v))
    seen = None if window is None else (window - 1, 0)
    out = jax.nn.dot_product_attention(
        *turned, scale=1.0, is_causal=True, local_window_size=seen, implementation=implementation
    )
    return rearrange(out, "B T N H -> B N T H")
