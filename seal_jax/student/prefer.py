"""A model learns to prefer some texts to others: direct preference optimization (arXiv 2305.18290)."""

from collections.abc import Sequence

from seal_jax.config import Training
from seal_jax.domains.domain import Example
from seal_jax.engine.packing import Candidate
from seal_jax.engine.pairs import Pairs
from seal_jax.engine.recipe import recipe
from seal_jax.seeds import Seed
from seal_jax.student.actor import Actor
from seal_jax.student.train import last_epoch_mean


def prefer(
    model: Actor, pairs: Sequence[tuple[Example, Example]], training: Training, beta: float, seed: Seed
) -> tuple[dict, float]:
    """Train one model on (preferred, rejected) pairs; the reference is the model as it is.

    Gives (what it learned: an adapter, or all weights for rank 0; mean loss of the last epoch in nats per pair).
    """
    preferred, rejected = (tuple(model.row(pair[side]) for pair in pairs) for side in (0, 1))
    likelihoods = model.log_likelihoods([*preferred, *rejected])
    sides = likelihoods[: len(pairs)], likelihoods[len(pairs) :]
    reference = tuple(one - other for one, other in zip(*sides, strict=True))
    learner = Candidate(preferred, training.learning_rate, training.epochs, training.warmup_steps, seed, seed)
    learned, losses = model.engine.prefer(model.base, Pairs(learner, rejected, reference), recipe(training), beta)
    return learned, last_epoch_mean(losses, training.epochs)
