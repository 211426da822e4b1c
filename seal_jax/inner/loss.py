"""Next-token loss and log-likelihood without ever holding logits for more than a chunk of positions."""

import jax
import jax.numpy as jnp

from seal_jax.model.transformer import Transformer


def target_log_probs(model: Transformer, variables: dict, tokens: jax.Array, chunk: int) -> jax.Array:
    """Log-probability of each token given those before it: tokens [B, T] -> [B, T] float32; 0 for the first one.

    The head is applied to at most `chunk` positions at a time, in equal parts, and recomputed in the backward pass, so
    the largest array of logits is [B, chunk, V].
    """
    hidden, _ = model.apply(variables, tokens)
    hidden, targets = hidden[:, :-1], tokens[:, 1:]
    batch, length, width = hidden.shape
    parts = -(-length // chunk)
    chunk = -(-length // parts)
    pad = parts * chunk - length
    hidden = jnp.pad(hidden, ((0, 0), (0, pad), (0, 0))).reshape(batch, -1, chunk, width).swapaxes(0, 1)
    targets = jnp.pad(targets, ((0, 0), (0, pad))).reshape(batch, -1, chunk).swapaxes(0, 1)
    head = {"params": variables["params"]}

    @jax.checkpoint
    def one_chunk(hidden, targets):
        logits = model.apply(head, hidden, method="logits")
        picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return picked - jax.nn.logsumexp(logits, axis=-1)

    log_probs = jax.lax.map(lambda pair: one_chunk(*pair), (hidden, targets))
    log_probs = log_probs.swapaxes(0, 1).reshape(batch, length + pad)[:, :length]
    return jnp.pad(log_probs, ((0, 0), (1, 0)))


def weighted_nll(model: Transformer, variables: dict, tokens: jax.Array, weights: jax.Array, chunk: int) -> jax.Array:
    """Sum over tokens [B, T] of weight × negative log-probability, in nats; the first token of a row never counts."""
    return -jnp.sum(target_log_probs(model, variables, tokens, chunk) * weights)


def log_likelihood(model: Transformer, variables: dict, tokens: jax.Array, mask: jax.Array, chunk: int) -> jax.Array:
    """Log-likelihood [B] in nats of the masked tokens of each row: tokens, mask [B, T]."""
    return jnp.sum(target_log_probs(model, variables, tokens, chunk) * mask, axis=-1)
