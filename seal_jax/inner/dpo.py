"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290): a step towards what is preferred.

Like the inner loop's step, with another loss. The reference's log-probabilities do not change while the policy learns,
so they are given as numbers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seal_jax.inner import sft
from seal_jax.inner.loss import log_likelihood


@dataclass(frozen=True)
class Program:
    """What is static in a step: model, optimizer and loss chunk as in `sft`; beta: the price of leaving the reference
    (1 / nats)."""

    sft: sft.Program
    beta: float


class Pairs(NamedTuple):
    """One optimizer step's data: A micro-batches of B pairs, in each pair the preferred sequence before the other.

    tokens int32 and loss weights float32 [A, B, 2, T]; reference [A, B]: by how many nats the reference model's
    log-likelihood of the preferred one is greater; counts [A, B]: 1 for a pair, 0 for padding; valid [] bool.
    """

    tokens: jax.Array
    weights: jax.Array
    reference: jax.Array
    counts: jax.Array
    valid: jax.Array


def dpo_loss(margins: jax.Array, beta: float) -> jax.Array:
    """Equation 7 for each pair, in nats; margins: by how many nats more than the reference the policy prefers the
    preferred one, the difference of both log-ratios."""
    return -jax.nn.log_sigmoid(beta * margins)


def dpo_step(
    program: Program, frozen: dict, state: sft.State, batch: Pairs, hyper: sft.Hyper
) -> tuple[sft.State, jax.Array]:
    """One optimizer step -> (state, mean loss over the pairs of the whole accumulated batch)."""
    model, chunk, total = program.sft.model, program.sft.loss_chunk, jnp.maximum(batch.counts.sum(), 1.0)

    def micro_loss(trainable, tokens, weights, reference, counts):
        flat = (-1, tokens.shape[-1])
        variables = program.sft.variables(frozen, trainable)
        both = log_likelihood(model, variables, tokens.reshape(flat), weights.reshape(flat), chunk)
        preferred, other = both.reshape(-1, 2).T
        return jnp.sum(dpo_loss(preferred - other - reference, program.beta) * counts) / total

    micros = batch.tokens, batch.weights, batch.reference, batch.counts
    return sft.descend(program.sft.optimizer, state, micro_loss, micros, batch.valid, hyper)
