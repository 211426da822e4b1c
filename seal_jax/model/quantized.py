"""A base in 8 bits on which float adapters are trained (as QLoRA does with 4, arXiv 2305.14314), stored by qwix.

A kernel of a layer's projections becomes a qwix.QArray, a pytree of integers [L, in, out] and of a scale for every
block of inputs of an output. Everything else stays as it is: embedding, head, norms, biases, and the adapters.
"""

import importlib.util
import math
from collections.abc import Callable

import jax
import numpy as np

from seal_jax.errors import UserError
from seal_jax.model.lora import PROJECTIONS, LoraConfig

BLOCK = 64  # inputs that share a scale, or the greatest divisor of 64 that goes


def quantize(params: dict, kind: str) -> dict:
    """Weights from the host -> the same on the host with kernels stored as `kind`: 'int8', or 'none'.

    One kernel at a time is on a device. Structs in the place of arrays give structs. UserError where qwix is absent.
    """
    if kind == "none":
        return params
    if importlib.util.find_spec("qwix") is None:
        raise UserError(
            f"config.model.quantization is {kind!r}, which takes qwix, and that is not installed: pip install -e "
            "'.[quant]', or set it to none"
        )
    run = jax.jit(lambda kernel: stored(kernel, kind))

    def one(kernel):
        abstract = isinstance(kernel, jax.ShapeDtypeStruct)
        return jax.eval_shape(run, kernel) if abstract else jax.device_get(run(kernel))

    return map_kernels(params, one)


def map_kernels(params: dict, function: Callable) -> dict:
    """The tree with `function` of every kernel of the layers' projections in its place."""
    layers = dict(params["layers"])
    for name in PROJECTIONS:
        layers[name] = {**layers[name], "kernel": function(layers[name]["kernel"])}
    return {**params, "layers": layers}


def stored(kernel: jax.Array, kind: str):
    """A kernel [L, in, out] as a qwix.QArray, layer by layer."""
    import qwix

    block = math.gcd(BLOCK, kernel.shape[1])

    def one(layer):
        return qwix.quantize(layer, kind, channelwise_axes=(1,), tiled_axes={0: block})

    return jax.lax.map(one, kernel)


def product(x: jax.Array, kernel) -> jax.Array:
    """x @ kernel, stored as it may be; only the stored form is kept for the backward pass, not what it stands for."""
    if not hasattr(kernel, "qvalue"):
        return x @ kernel
    import qwix

    @jax.checkpoint
    def run(x, kernel):
        return x @ qwix.dequantize(kernel).astype(x.dtype)

    return run(x, kernel)


def merge_on_host(params: dict, adapter: dict, config: LoraConfig) -> dict:
    """What lora.merge gives, of weights on the host and layer by layer: the rounding of a stored kernel would swallow
    most of what an adapter adds, so it goes into the weights from which they are stored anew."""
    layers = dict(params["layers"])
    for name, factors in adapter["layers"].items():
        a, b = np.asarray(factors["A"]), np.asarray(factors["B"])
        kernel = np.array(layers[name]["kernel"])
        for layer in range(kernel.shape[0]):
            kernel[layer] = (kernel[layer].astype(np.float32) + a[layer] @ b[layer] * config.scale).astype(kernel.dtype)
        layers[name] = {**layers[name], "kernel": kernel}
    return {**params, "layers": layers}
