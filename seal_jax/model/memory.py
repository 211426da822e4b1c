"""Whether this machine can hold a model, asked before its weights are downloaded or read."""

import math
import os
from pathlib import Path

import jax
import numpy as np

from seal_jax.errors import UserError
from seal_jax.model.layout import DTYPES, leaves
from seal_jax.model.lora import PROJECTIONS
from seal_jax.model.published import known
from seal_jax.model.quantized import BLOCK
from seal_jax.model.transformer import ModelConfig

GIB = 2**30
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # a container's limit, v2 and v1
SMALL = "to try the method here run --config=configs/quickstart.py:smoke (SmolLM2-135M)"


def needed_gib(config: ModelConfig, dtype: str, copies: float = 1, quantization: str = "none") -> float:
    """GiB of `copies` sets of weights in that dtype; with quantization 'int8', as they are stored on the devices."""
    total = 0.0
    for leaf in leaves(config):
        quantized = quantization == "int8" and leaf.path[-1] == "kernel" and leaf.path[1] in PROJECTIONS
        size = 1 + 4 / BLOCK if quantized else np.dtype(DTYPES[dtype]).itemsize  # int8, a float32 scale for each block
        total += math.prod(leaf.shape) * (config.num_layers if leaf.stacked else 1) * size
    return copies * total / GIB


def check(source: str, dtype: str, model_shards: int, quantization: str = "none") -> None:
    """Raises UserError if one set of weights does not fit the host, or the devices over which a model is split.

    Host memory must hold the weights in `dtype`, the devices what `quantization` makes of them. Only models in a folder
    or in published.PUBLISHED are checked: of others nothing is known before the download.
    """
    config = known(source)
    if config is None:
        return
    whole, stored = needed_gib(config, dtype), needed_gib(config, dtype, quantization=quantization)
    host, device = host_gib(), device_gib()
    if host is not None and whole > host:
        raise UserError(
            f"{source} takes {whole:.1f} GiB as {dtype} and this machine has {host:.1f} GiB; use a machine with more "
            f"memory or a smaller model; {SMALL}"
        )
    if device is not None and stored > device * model_shards:
        devices = "one device has" if model_shards == 1 else f"{model_shards} devices have"
        raise UserError(
            f"{source} takes {stored:.1f} GiB as {dtype if quantization == 'none' else quantization} and {devices} "
            f"{device * model_shards:.1f} GiB; split it over more devices with config.parallel.model or use a smaller "
            f"model; {SMALL}"
        )


def host_gib() -> float | None:
    """Memory of this machine, or of the container if that may use less; None where the system does not tell."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        return None
    for file in CGROUPS:
        try:
            found.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no such file, or 'max' for no limit
            continue
    return min(found) / GIB


def device_gib() -> float | None:
    """Memory that JAX may use of one accelerator; None on a CPU and where the device does not tell."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats["bytes_limit"] / GIB if "bytes_limit" in stats else None
