"""LoRA adapters: a pytree beside the base weights, `y = x W + (x A) B * scale` (arXiv 2106.09685).

An adapter is the `lora` collection of model/transformer.py: `{'layers': {proj: {'A': [L, in, R], 'B': [L, R, out]}}}`.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraConfig:
    """Rank, alpha and the projections that get an adapter; the effect is scaled by alpha / rank, or with `rslora`
    (arXiv 2312.03732) by alpha / sqrt(rank), under which high ranks learn as fast as low ones.

    layers: which of the model's, from 0, get one; none named: all. The factors of the others are zero and stay so,
    because neither has a gradient where both are zero. freeze_a: B alone is trained, of candidates that share one A
    (LoRA-FA, arXiv 2308.03303), so that x A is one product for all of them.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    rslora: bool = False
    layers: tuple[int, ...] = ()
    freeze_a: bool = False

    @property
    def scale(self) -> float:
        """The factor of the effect."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def init_adapter(key: jax.Array, base: dict, config: LoraConfig) -> dict:
    """A fresh float32 adapter for `base`: A uniform in ±1/sqrt(in) as PEFT draws it, B zero, so its effect is zero.

    A layer's A is the same whichever other layers have one.
    """
    layers = {}
    for index, name in enumerate(PROJECTIONS):
        if name not in config.targets:
            continue
        depth, fan_in, fan_out = base["layers"][name]["kernel"].shape
        bound = fan_in**-0.5
        a_key = jax.random.fold_in(key, index)
        a = jax.random.uniform(a_key, (depth, fan_in, config.rank), jnp.float32, -bound, bound)
        if config.layers:
            a = a * jnp.isin(jnp.arange(depth), jnp.array(config.layers))[:, None, None]
        layers[name] = {"A": a, "B": jnp.zeros((depth, config.rank, fan_out), jnp.float32)}
    return {"layers": layers}


def factor(adapter: dict, name: str) -> dict:
    """One of the two factors of every projection, 'A' or 'B', of an adapter."""
    return {"layers": {projection: {name: pair[name]} for projection, pair in adapter["layers"].items()}}


def joined(first: dict, second: dict) -> dict:
    """The adapter whose factors are those of both, as `factor` gives them."""
    return {"layers": {name: first["layers"][name] | pair for name, pair in second["layers"].items()}}


def concatenate(first: dict, second: dict) -> dict:
    """One adapter with the effect of both, whose rank is the sum of theirs; any leading axes that both have."""

    def joined(name: str, factor: str, axis: int) -> jax.Array:
        return jnp.concatenate([adapter["layers"][name][factor] for adapter in (first, second)], axis)

    return {"layers": {name: {"A": joined(name, "A", -1), "B": joined(name, "B", -2)} for name in first["layers"]}}


def merge(base: dict, adapter: dict, config: LoraConfig) -> dict:
    """The base with the adapter's effect added to its kernels; same shapes and dtypes as `base`."""
    layers = dict(base["layers"])
    for name, factors in adapter["layers"].items():
        kernel = layers[name]["kernel"]
        delta = jnp.einsum("LDR,LRF->LDF", factors["A"], factors["B"]) * config.scale
        layers[name] = {**layers[name], "kernel": (kernel.astype(jnp.float32) + delta).astype(kernel.dtype)}
    return {**base, "layers": layers}
