"""What 16 bits would lose, kept in float32.

Products: their sums, where a softmax follows; rounded to 16 bits, many of the greatest scores would be equal.
Weights that are trained: masters that round to them.
"""

import functools

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def einsum(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.einsum` of two arrays of one type, in float32. The gradient is rounded to their type before it is
    multiplied, as that of any other product."""
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _forward(spec, a, b):
    wanted = tuple(() if factor.perturbed else None for factor in (a, b))
    return einsum(spec, a.value, b.value), (a.value, b.value, wanted)


def _backward(spec, kept, gradient):
    """Of a factor that nobody differentiates by, such as a frozen embedding beside many adapters, there is no
    gradient."""
    a, b, (of_a, of_b) = kept
    if isinstance(gradient, SymbolicZero):
        return None, None
    gradient = gradient.astype(a.dtype)
    found_a = None if of_a is None else jax.linear_transpose(lambda a: jnp.einsum(spec, a, b), a)(gradient)[0]
    found_b = None if of_b is None else jax.linear_transpose(lambda b: jnp.einsum(spec, a, b), b)(gradient)[0]
    return found_a, found_b


einsum.defvjp(_forward, _backward, symbolic_zeros=True)


def masters(weights: dict, key: jax.Array) -> dict:
    """Weights to train in float32; of those in bfloat16 each is drawn from the numbers that round to it.

    The forward pass rounds its weights. From the middle between two roundings none would seem to move until it had
    moved by half their distance, which takes several steps; drawn evenly, as many change at once as should. Learning
    begins where the model stands, because all that is drawn rounds back.
    """
    leaves, tree = jax.tree.flatten(weights)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(tree, [_master(leaf, key) for leaf, key in zip(leaves, keys, strict=True)])


def _master(leaf: jax.Array, key: jax.Array) -> jax.Array:
    wide = leaf.astype(jnp.float32)
    if leaf.dtype != jnp.bfloat16:
        return wide
    # What rounds to a number differs from it by less than half of what the lower 16 bits count to; 0 stays.
    bits = jax.lax.bitcast_convert_type(wide, jnp.int32)
    drawn = jax.lax.bitcast_convert_type(bits + jax.random.randint(key, leaf.shape, -0x7FFF, 0x8000), jnp.float32)
    return jnp.where(wide == 0, wide, drawn)
