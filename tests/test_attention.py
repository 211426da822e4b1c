"""Attention against a loop, its blocks, and the kernels of devices, the one for TPU interpreted."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_transformer import close
from tiny_training import VOCAB, interpret_splash, random_adapter, tiny_model

from seal_jax.fitting.flops import matmul_flops
from seal_jax.model import attention
from seal_jax.model.attention import Kernel, attend, kernel_for, sees
from seal_jax.model.transformer import Transformer, make_room


def test_attention_equals_a_loop_over_heads():
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((2, heads, 5, 8)).astype(np.float32) for heads in (6, 2, 2))
    mask = np.tril(np.ones((5, 5), bool))[None] & np.array([[[1, 1, 1, 1, 1]], [[0, 0, 1, 1, 1]]], bool)
    mask[1, :2, 0] = True  # a query must see something
    expected = np.zeros((2, 5, 6 * 8))
    for b in range(2):
        for head in range(6):
            scores = q[b, head].astype(float) @ k[b, head // 3].T / np.sqrt(8)
            weights = np.where(mask[b], np.exp(scores), 0)
            expected[b, :, head * 8 : head * 8 + 8] = weights / weights.sum(-1, keepdims=True) @ v[b, head // 3]
    close(attend(q, [(k, v)], [mask], 8**-0.5), expected)
    for cut in (1, 4):  # the same keys in two parts
        parts = [(k[:, :, :cut], v[:, :, :cut]), (k[:, :, cut:], v[:, :, cut:])]
        close(attend(q, parts, [mask[:, :, :cut], mask[:, :, cut:]], 8**-0.5), expected)


def test_rows_that_share_keys_attend_to_them_as_if_each_had_its_own():
    """Six rows over two prompts, three to a prompt, with keys of their own behind them."""
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((6, heads, 2, 8)).astype(np.float32) for heads in (6, 2, 2))
    shared = [rng.standard_normal((2, 2, 7, 8)).astype(np.float32) for _ in range(2)]
    seen = rng.random((2, 2, 7)) < 0.7
    causal = np.broadcast_to(np.tril(np.ones((2, 2), bool)), (6, 2, 2))
    got = attend(q, [shared, (k, v)], [seen, causal], 0.3)
    both = zip(shared, (k, v), strict=True)
    whole = [np.concatenate([np.repeat(part, 3, axis=0), own], axis=2) for part, own in both]
    mask = np.concatenate([np.repeat(seen, 3, axis=0), causal], axis=2)
    close(got, attend(q, [whole], [mask], 0.3))


def test_attention_is_safe_with_large_scores():
    big = jnp.full((1, 1, 3, 4), 100.0)
    value = jnp.arange(12.0).reshape(1, 1, 3, 4)
    out = attend(big, [(big, value)], [np.ones((1, 3, 3), bool)], 0.5)
    close(out[0], np.tile(value[0, 0].mean(0), (3, 1)))


def test_blocks_save_memory(monkeypatch):
    def needs():
        q, k = jnp.zeros((1, 4, 2048, 16)), jnp.zeros((1, 2, 2048, 16))
        mask = jnp.ones((1, 2048, 2048), bool)
        loss = jax.grad(lambda q, k, mask: (attend(q, [(k, k)], [mask], 0.25) ** 2).sum())
        return jax.jit(loss).lower(q, k, mask).compile().memory_analysis().temp_size_in_bytes

    in_blocks = needs()
    monkeypatch.setattr(attention, "LONG", 4096)
    assert in_blocks < needs() / 3


# Kernels

LENGTH, WINDOW = 256, 100


@pytest.fixture
def qkv():
    """Six query heads of two rows, over two key heads."""
    rng = np.random.default_rng(3)
    return [jnp.asarray(rng.standard_normal((2, heads, LENGTH, 16)), jnp.float32) for heads in (6, 2, 2)]


def plainly(q, k, v, written, window):
    """`attend` with masks, of scaled queries -> [B, N, T, H]."""
    slots = jnp.arange(LENGTH)
    mask = sees(slots, slots, window) & (jnp.ones((2, 1, LENGTH), bool) if written is None else written[:, None])
    out = attend(q, [(k, v)], [mask], 1.0)
    return out.reshape(2, LENGTH, 6, 16).swapaxes(1, 2)


def check(kernel, qkv, written, window):
    """The kernel's result and gradients are those of `attend` with masks, for all tokens that are written."""
    looked_at = 1.0 if written is None else written[:, None, :, None]

    def total(attention, q, k, v):
        out = attention(q * 0.3, k, v, written, window) * looked_at
        return (out * jnp.sin(jnp.arange(16.0) + jnp.arange(LENGTH)[:, None])).sum(), out

    found, expected = (
        jax.value_and_grad(functools.partial(total, function), (0, 1, 2), has_aux=True)(*qkv)
        for function in (kernel, plainly)
    )
    close(found[0][1], expected[0][1])
    for ours, theirs in zip(found[1], expected[1], strict=True):
        close(ours, theirs, 2e-4)


@pytest.mark.parametrize("window", (None, WINDOW))
@pytest.mark.parametrize("padded", (False, True))
def test_the_kernel_for_tpu(qkv, padded, window):
    written = jnp.arange(LENGTH) >= jnp.array([[0], [70]]) if padded else None
    check(functools.partial(attention.splash, interpret=True), qkv, written, window)


def test_flops_of_the_kernel_for_tpu(qkv):
    """Of q·k and of the weighted values, with all scores, as blocks of queries have them."""
    jaxpr = jax.make_jaxpr(lambda q, k, v: attention.splash(q, k, v, None, None))(*qkv)
    assert matmul_flops(jaxpr.jaxpr) == 4 * LENGTH**2 * 16 * 6 * 2


@pytest.mark.parametrize("window", (None, WINDOW))
def test_what_the_kernel_for_gpus_is_asked_for(qkv, window):
    """By XLA's own form of the same function; on a GPU `test_the_kernel_of_this_device` takes cuDNN's."""
    check(functools.partial(attention.cudnn, implementation="xla"), qkv, None, window)


def test_the_kernel_of_this_device(qkv):
    name = kernel_for(jax.devices()[0])
    if name is None:
        pytest.skip("neither a TPU nor an NVIDIA GPU that has a kernel")
    q, k, v = (t.astype(jnp.bfloat16) for t in qkv)
    kernel = {"splash": attention.splash, "cudnn": attention.cudnn}[name]
    for window in (None, WINDOW):
        found, expected = (function(q, k, v, None, window) for function in (kernel, plainly))
        close(found.astype(jnp.float32), expected.astype(jnp.float32), 0.03)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ({"platform": "tpu", "device_kind": "TPU v5 lite"}, "splash"),
        ({"platform": "tpu", "device_kind": "TPU v3"}, None),
        ({"platform": "gpu", "device_kind": "NVIDIA H100", "compute_capability": "9.0"}, "cudnn"),
        ({"platform": "gpu", "device_kind": "NVIDIA GB200", "compute_capability": "10.0"}, "cudnn"),
        ({"platform": "gpu", "device_kind": "Tesla T4", "compute_capability": "7.5"}, None),
        ({"platform": "gpu", "device_kind": "AMD Instinct", "compute_capability": "gfx942"}, None),
        ({"platform": "cpu", "device_kind": "cpu"}, None),
    ],
)
def test_which_device_has_which_kernel(device, name):
    assert kernel_for(SimpleNamespace(**device)) == name


@pytest.fixture
def interpreted(monkeypatch):
    """(a kernel for sequences above 64 tokens, the shapes of q with which it is traced)."""
    return Kernel("splash", lambda function: function), interpret_splash(monkeypatch)


def hidden_of(config, base, kernel, start):
    """Hidden states of 128 tokens with an adapter, in bfloat16, and the gradient of their squares by the adapter."""
    tokens = np.random.default_rng(1).integers(0, VOCAB, (2, 128))
    base = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), base)
    real = jnp.arange(128)[None, :, None] >= (0 if start is None else start[:, None, None])

    def total(adapter):
        model = Transformer(config, 2.0, "minimal", kernel)
        hidden = model.apply({"params": base, "lora": adapter}, tokens, start=start)[0].astype(jnp.float32)
        return jnp.sum(jnp.where(real, hidden, 0) ** 2), hidden * real

    (_, hidden), gradient = jax.value_and_grad(total, has_aux=True)(random_adapter(base))
    return hidden, gradient


@pytest.mark.parametrize("start", (None, jnp.array([0, 37])))
def test_a_model_with_a_kernel(interpreted, start):
    """Is the model without: the differences are those of rounding, as a window of other tokens' would not be."""
    kernel, traced = interpreted
    config, base = tiny_model()
    (found, grads), (expected, expected_grads) = (hidden_of(config, base, one, start) for one in (kernel, None))
    assert traced
    scale = float(jnp.abs(expected).mean())
    assert float(jnp.abs(found - expected).mean()) < 0.02 * scale
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        assert float(jnp.linalg.norm(ours - theirs)) < 0.05 * float(jnp.linalg.norm(theirs))


def test_when_the_kernel_is_not_asked(interpreted):
    """In float32, for short sequences, over a cache, and where layers are of several kinds; cuDNN not after padding."""
    kernel, traced = interpreted
    config, base = tiny_model()
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), base)
    tokens = jnp.zeros((2, 128), jnp.int32)
    mixed = replace(config, layers=(config.layers[0], replace(config.layers[0], window=8)))
    Transformer(config, kernel=kernel).apply({"params": base}, tokens)
    Transformer(config, kernel=kernel).apply({"params": half}, tokens[:, :64])
    Transformer(mixed, kernel=kernel).apply({"params": half}, tokens)
    _, prompts = Transformer(config).apply({"params": half}, tokens[:, :32])
    Transformer(config, kernel=kernel).apply({"params": half}, tokens, make_room(prompts, 2, 128))
    Transformer(config, kernel=Kernel("cudnn", kernel.local)).apply({"params": half}, tokens, start=jnp.zeros(2, int))
    assert not traced
    Transformer(config, kernel=kernel).apply({"params": half}, tokens)
    assert traced
