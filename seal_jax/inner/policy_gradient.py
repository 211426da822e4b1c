"""Policy gradients on texts: REINFORCE (Williams 1992), GRPO (arXiv 2402.03300) and PPO's clipped objective (Schulman
et al. 2017, arXiv 1707.06347), as one step that differs in its advantages, its clipping and its normaliser.

Like the inner loop's step, with another loss. Log-probabilities of the policy that sampled, and of the one that must
not be left, do not change while the policy learns, so they are given as numbers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seal_jax.inner import sft
from seal_jax.inner.loss import token_log_probs

NORMALISERS = ("tokens", "texts", "constant")


@dataclass(frozen=True)
class Program:
    """What is static in a step: model, optimizer and loss chunk as in `sft`; clip: by how much the ratio to the policy
    that sampled may leave 1, 0 for any; kl: the price of leaving the reference, per nat; normaliser: by what the sum
    over tokens is divided: 'tokens' (of the step), 'texts' (each text's mean counts alike) or 'constant' (`longest`
    tokens in each text: long texts count more, arXiv 2503.20783)."""

    sft: sft.Program
    clip: float
    kl: float
    normaliser: str
    longest: int


class Batch(NamedTuple):
    """One optimizer step's data: A micro-batches of B texts after their prompts.

    tokens int32, weights float32 (1 on sampled tokens, 0 elsewhere), behaviour and reference float32
    (log-probabilities of the sampled tokens in nats): [A, B, T]; advantages [A, B], 0 for padding; valid [] bool.
    """

    tokens: jax.Array
    weights: jax.Array
    behaviour: jax.Array
    reference: jax.Array
    advantages: jax.Array
    valid: jax.Array


def surrogate(ratio: jax.Array, advantage: jax.Array, clip: float) -> jax.Array:
    """What a token adds to the objective: ratio × advantage, and where that is less the same with the ratio clipped
    (arXiv 1707.06347, equation 7). Its gradient at a ratio of 1 is that of REINFORCE."""
    if not clip:
        return ratio * advantage
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def kl_estimate(log_probs: jax.Array, reference: jax.Array) -> jax.Array:
    """An unbiased estimate of KL(policy ‖ reference) from one token, never negative (arXiv 2402.03300, equation 4)."""
    log_ratio = reference - log_probs
    return jnp.exp(log_ratio) - log_ratio - 1


def shares(weights: jax.Array, program: Program) -> jax.Array:
    """By what each token [A, B, T] counts in the mean over a step. Rows without tokens are padding."""
    lengths = weights.sum(-1, keepdims=True)
    texts = jnp.maximum((lengths > 0).sum(), 1)
    if program.normaliser == "tokens":
        return weights / jnp.maximum(weights.sum(), 1)
    if program.normaliser == "texts":
        return weights / jnp.maximum(lengths, 1) / texts
    return weights / (program.longest * texts)


def policy_gradient_step(
    program: Program, frozen: dict, state: sft.State, batch: Batch, hyper: sft.Hyper
) -> tuple[sft.State, jax.Array]:
    """One optimizer step -> (state, the loss: minus the objective)."""
    model, chunk = program.sft.model, program.sft.loss_chunk
    counts = shares(batch.weights.at[..., 0].set(0), program)

    def micro_loss(trainable, tokens, behaviour, reference, advantages, counts):
        log_probs = token_log_probs(model, program.sft.variables(frozen, trainable), tokens, chunk)
        kept = counts[:, 1:] > 0
        log_ratio = jnp.where(kept, log_probs - behaviour[:, 1:], 0.0)
        gain = surrogate(jnp.exp(log_ratio), advantages[:, None], program.clip)
        if program.kl:
            gain -= program.kl * jnp.where(kept, kl_estimate(log_probs, reference[:, 1:]), 0.0)
        return -(gain * counts[:, 1:]).sum()

    micros = batch.tokens, batch.behaviour, batch.reference, batch.advantages, counts
    return sft.descend(program.sft.optimizer, state, micro_loss, micros, batch.valid, hyper)
