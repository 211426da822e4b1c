"""Distillation of a prompt: a teacher that has read a passage, and a student that is to answer as if it had.

Teacher and student are the same base; only the teacher's prompt holds the passage, and only the student has an adapter
(prompt distillation, arXiv 2412.14964). With z the teacher's and s the student's logits at one token of the answer, T
the temperature, and K the ids of the teacher's K greatest logits,

  p_k = exp(z_k / T) / sum_{j in K} exp(z_j / T)    for k in K: the teacher, renormalised over its K
  q_k = exp(s_k / T) / sum_{v in V} exp(s_v / T)    the student over the whole vocabulary
  loss = T² sum_{k in K} p_k (log p_k - log q_k)    forward KL, in nats

The factor T² keeps the size of the gradient when T changes (Hinton et al. 2015, arXiv 1503.02531, section 2). A mixture
takes (1 - w) × this loss + w × the negative log-probability of the token itself.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seal_jax.inner.loss import log_prob, of_logits, picked, predicted
from seal_jax.model.transformer import Transformer


@dataclass(frozen=True)
class Distillation:
    """K, T, and the weight w of the negative log-probability, from 0 to 1."""

    top_k: int = 20
    temperature: float = 2.0
    sft_weight: float = 0.0


class Targets(NamedTuple):
    """What the teacher expects at each token, given those before it: ids int32 and p float32 [..., T, K].

    Where all p are 0 there is no teacher, and the loss is the negative log-probability alone.
    """

    ids: jax.Array
    probs: jax.Array


def teacher_targets(
    model: Transformer, params: dict, tokens: jax.Array, places: jax.Array, how: tuple[Distillation, int]
) -> Targets:
    """What the base expects at some places of what the teacher reads: tokens [B, T], places [B, P] -> [B, P, K].

    A place is that of the token to be expected, at least 1. `how` is (distillation, positions per application of the
    head).
    """
    distillation, chunk = how
    variables = {"params": params}
    hidden, _ = predicted(model.apply(variables, tokens)[0], (), places)

    def top(logits):
        values, ids = jax.lax.top_k(logits, distillation.top_k)
        return Targets(ids.astype(jnp.int32), jax.nn.softmax(values / distillation.temperature, axis=-1))

    return of_logits(model, variables, top, (hidden,), chunk)


def token_loss(how: Distillation, logits: jax.Array, tokens: jax.Array, targets: Targets) -> jax.Array:
    """The loss in nats of tokens [...] by the student's logits [..., V], with targets [..., K]."""
    scaled = logits / how.temperature
    log_q = picked(scaled, targets.ids) - jax.nn.logsumexp(scaled, axis=-1, keepdims=True)
    entropy = jax.scipy.special.xlogy(targets.probs, targets.probs)
    divergence = how.temperature**2 * jnp.sum(entropy - targets.probs * log_q, axis=-1)
    nll = -log_prob(logits, tokens)
    mixed = (1 - how.sft_weight) * divergence + how.sft_weight * nll
    return jnp.where(targets.probs.sum(-1) > 0, mixed, nll)


def weighted_loss(
    model: Transformer, variables: dict, data: tuple, how: tuple[Distillation, int], places: jax.Array | None = None
) -> jax.Array:
    """Sum over tokens of weight × loss, in nats; data: (tokens [B, T], weights [B, T], targets [B, T, K]).

    The first token of a row never counts. `how` is that of `teacher_targets`, `places` that of loss.py.
    """
    (tokens, weights, targets), (distillation, chunk) = data, how
    hidden, _ = model.apply(variables, tokens)
    weights = jnp.asarray(weights).at[:, 0].set(0)
    hidden, (tokens, weights, targets) = predicted(hidden, (tokens, weights, targets), places)

    def loss(logits, tokens, targets):
        return token_loss(distillation, logits, tokens, targets)

    return jnp.sum(of_logits(model, variables, loss, (hidden, tokens, targets), chunk) * weights)
