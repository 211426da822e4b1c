"""Next-token loss and log-likelihood without ever holding logits for more than a chunk of positions.

Of a row with a prompt only some tokens count. `places` [B, P] are theirs, padded with 0 (the first token never counts);
the head is applied where these are predicted and nowhere else. Without places it is applied everywhere.
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from seal_jax.model.transformer import Transformer


def predicted(hidden: jax.Array, arrays: Any, places: jax.Array | None) -> tuple[jax.Array, Any]:
    """(hidden states from which tokens are predicted, `arrays` at these tokens); hidden [B, T, D], arrays [B, T, ...].

    The tokens are those at `places` -> [B, P, ...], or all but the first -> [B, T-1, ...].
    """
    if places is None:
        return hidden[:, :-1], jax.tree.map(lambda array: array[:, 1:], arrays)

    def take(array, at):
        return jnp.take_along_axis(array, at.reshape(*at.shape, *(1,) * (array.ndim - 2)), axis=1)

    return take(hidden, jnp.maximum(places - 1, 0)), jax.tree.map(lambda array: take(array, places), arrays)


def of_logits(model: Transformer, variables: dict, function: Callable, arrays: tuple, chunk: int) -> Any:
    """`function(logits, *others)` of all positions; `arrays` are (hidden states [B, T, D], *others [B, T, ...]).

    The head is applied to at most `chunk` positions at a time, in equal parts, so the largest array of logits is
    [B, chunk, V], also in the backward pass. The results of `function` are arrays [B, T, ...]; what it says of a
    position depends on the logits there alone.
    """
    batch, length = arrays[0].shape[:2]
    parts = -(-length // chunk)
    chunk = -(-length // parts)
    pad = parts * chunk - length
    head = {"params": variables["params"]}

    def split(array):
        array = jnp.pad(array, ((0, 0), (0, pad)) + ((0, 0),) * (array.ndim - 2))
        return array.reshape(batch, parts, chunk, *array.shape[2:]).swapaxes(0, 1)

    def joined(array):
        return array.swapaxes(0, 1).reshape(batch, length + pad, *array.shape[3:])[:, :length]

    @_without_logits
    def one_chunk(head, hidden, others):
        return function(model.apply(head, hidden, method="logits"), *others)

    chunks = jax.tree.map(split, arrays)
    return jax.tree.map(joined, jax.lax.map(lambda part: one_chunk(head, part[0], part[1:]), chunks))


def _without_logits(function: Callable) -> Callable:
    """function(head, hidden [B, T, D], others), of which the backward pass keeps no logits.

    Where only the hidden states are differentiated by, and there is one number for each position, its slope there
    is had at once, while the logits are, and takes no more room than the hidden state. Else all is computed again.
    """

    def forward(head, hidden, others):
        values = jax.tree.map(operator.attrgetter("value"), (head, hidden, others), is_leaf=_is_primal)
        by_others = any(leaf.perturbed for leaf in jax.tree.leaves((head, others), is_leaf=_is_primal))
        out, pull = jax.vjp(lambda hidden: function(values[0], hidden, values[2]), values[1])
        if by_others or not isinstance(out, jax.Array) or out.shape != values[1].shape[:2]:
            return out, values
        return out, pull(jnp.ones_like(out))

    def backward(kept, cotangent):
        if len(kept) > 1:
            return jax.vjp(function, *kept)[1](jax.tree.map(_dense, cotangent, is_leaf=_is_zero))
        slope = kept[0].astype(jnp.float32) * _dense(cotangent)[..., None]
        return None, slope.astype(kept[0].dtype), None

    lean = jax.custom_vjp(function)
    lean.defvjp(forward, backward, symbolic_zeros=True)
    return lean


def _is_primal(leaf: Any) -> bool:
    return isinstance(leaf, CustomVJPPrimal)


def _is_zero(leaf: Any) -> bool:
    return isinstance(leaf, SymbolicZero)


def _dense(cotangent: Any) -> jax.Array:
    return jnp.zeros(cotangent.shape, cotangent.dtype) if _is_zero(cotangent) else cotangent


def log_prob(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Log-probability of tokens [...] by logits [..., V]."""
    return picked(logits, tokens[..., None])[..., 0] - jax.nn.logsumexp(logits, axis=-1)


def picked(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """The logits [..., V] of the tokens ids [..., K] -> [..., K]."""
    return jnp.take_along_axis(logits, ids, axis=-1)


def token_log_probs(model: Transformer, variables: dict, tokens: jax.Array, chunk: int) -> jax.Array:
    """Log-probability in nats of every token [B, T] but the first, given those before it -> [B, T-1]."""
    hidden, _ = model.apply(variables, tokens)
    return of_logits(model, variables, log_prob, (hidden[:, :-1], tokens[:, 1:]), chunk)


def log_likelihood(
    model: Transformer,
    variables: dict,
    tokens: jax.Array,
    weights: jax.Array,
    chunk: int,
    places: jax.Array | None = None,
) -> jax.Array:
    """Sum over each row's tokens of weight × log-probability -> [B] in nats; tokens, weights [B, T].

    The first token of a row never counts.
    """
    hidden, _ = model.apply(variables, tokens)
    hidden, (tokens, weights) = predicted(hidden, (tokens, jnp.asarray(weights).at[:, 0].set(0)), places)
    return jnp.sum(of_logits(model, variables, log_prob, (hidden, tokens), chunk) * weights, axis=-1)
