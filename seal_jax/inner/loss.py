"""Next-token loss and log-likelihood without ever holding logits for more than a chunk of positions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seal_jax.model.transformer import Transformer


def target_log_probs(model: Transformer, variables: dict, tokens: jax.Array, chunk: int) -> jax.Array:
    """Log-probability of each token given those before it: tokens [B, T] -> [B, T] float32; 0 for the first one."""
    hidden, _ = model.apply(variables, tokens)
    log_probs = of_logits(model, variables, log_prob, (hidden[:, :-1], tokens[:, 1:]), chunk)
    return jnp.pad(log_probs, ((0, 0), (1, 0)))


def of_logits(model: Transformer, variables: dict, function: Callable, arrays: tuple, chunk: int) -> Any:
    """`function(logits, *others)` of all positions; `arrays` are (hidden states [B, T, D], *others [B, T, ...]).

    The head is applied to at most `chunk` positions at a time, in equal parts, and recomputed in the backward pass, so
    the largest array of logits is [B, chunk, V]. The results of `function` are arrays [B, T, ...].
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

    @jax.checkpoint
    def one_chunk(part):
        hidden, *others = part
        return function(model.apply(head, hidden, method="logits"), *others)

    return jax.tree.map(joined, jax.lax.map(one_chunk, jax.tree.map(split, arrays)))


def log_prob(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Log-probability of tokens [...] by logits [..., V]."""
    return picked(logits, tokens[..., None])[..., 0] - jax.nn.logsumexp(logits, axis=-1)


def picked(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """The logits [..., V] of the tokens ids [..., K] -> [..., K]."""
    return jnp.take_along_axis(logits, ids, axis=-1)


def weighted_nll(model: Transformer, variables: dict, tokens: jax.Array, weights: jax.Array, chunk: int) -> jax.Array:
    """Sum over tokens [B, T] of weight × negative log-probability, in nats; the first token of a row never counts."""
    return -jnp.sum(target_log_probs(model, variables, tokens, chunk) * weights)


def log_likelihood(model: Transformer, variables: dict, tokens: jax.Array, mask: jax.Array, chunk: int) -> jax.Array:
    """Log-likelihood [B] in nats of the masked tokens of each row: tokens, mask [B, T]."""
    return jnp.sum(target_log_probs(model, variables, tokens, chunk) * mask, axis=-1)
