"""What a device's memory holds: how much of it a training step may take, and how much a compiled program does."""

import math

import jax

from seal_jax.config import EngineConfig
from seal_jax.parallel import from_first

GIB = 2**30
SHARE = 0.9  # of a device's memory: fragmentation takes some of it


def step_budget(settings: EngineConfig, base: dict, other_bases: int) -> float | None:
    """Bytes of a device for a training step and its weights: `config.engine.memory_gib`, or what the device has, less
    the other arrays on it, among them so many other sets of weights. None where neither is known."""
    stats = {} if settings.memory_gib else jax.local_devices()[0].memory_stats() or {}
    if not settings.memory_gib and "bytes_limit" not in stats:
        return None
    weights = on_device(base)
    others = other_bases * weights
    if settings.memory_gib:
        return settings.memory_gib * GIB - others
    others = max(others, stats.get("bytes_in_use", 0) - weights)
    return float(from_first(repr(SHARE * stats["bytes_limit"] - others).encode()))


def on_device(tree: dict) -> float:
    """Bytes that a tree of arrays, or of structs with shardings, takes on one device."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def peak(compiled: jax.stages.Compiled) -> float:
    """Bytes that a program takes on a device while it runs, by the compiler's memory analysis."""
    return peak_of(compiled.memory_analysis())


def peak_of(stats) -> float:
    """The same from the memory analysis of a program."""
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return stats.argument_size_in_bytes + results + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
