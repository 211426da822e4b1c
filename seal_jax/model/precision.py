"""Products of 16-bit arrays whose sums stay in float32, where a softmax follows: rounded to 16 bits, many of the
greatest scores would be equal."""

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
