"""A model learns from what its own texts earned: policy gradients (inner/policy_gradient.py)."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from seal_jax.config import Training
from seal_jax.engine.packing import Candidate, Row
from seal_jax.engine.recipe import recipe
from seal_jax.engine.sampled import Objective, Sampled
from seal_jax.engine.weights import Weights
from seal_jax.seeds import Seed
from seal_jax.student.actor import Actor
from seal_jax.student.merge import as_stored
from seal_jax.student.train import last_epoch_mean, placed


@dataclass(frozen=True)
class Episode:
    """A prompt, the tokens that were sampled after it with their log-probabilities in nats, and their advantage."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    advantage: float

    @property
    def row(self) -> Row:
        weights = [0.0] * len(self.prompt) + [1.0] * len(self.tokens)
        return Row(self.prompt + self.tokens, tuple(weights))


def reinforce(
    model: Actor, reference: Actor, episodes: Sequence[Episode], training: Training, how: tuple[Objective, Seed]
) -> tuple[dict, dict]:
    """Train one model on episodes -> (what it learned: an adapter, or all weights for rank 0; facts).

    Facts: `loss`, the last epoch's mean; `entropy` of the policy that sampled, `kl_sampled` and `kl_reference` of the
    trained one to it and to the reference, in nats per token, all estimated from the sampled tokens; `clipped`, the
    share of tokens whose ratio has left the clipping range at the end.
    """
    objective, seed = how
    rows = tuple(episode.row for episode in episodes)
    behaviour = tuple(np.array(episode.log_probs, np.float32) for episode in episodes)
    known = tuple(log_probs(reference, rows)) if reference.base is not model.base else behaviour
    learner = Candidate(rows, training.learning_rate, training.epochs, training.warmup_steps, seed, seed)
    sampled = Sampled(learner, tuple(episode.advantage for episode in episodes), behaviour, known)
    learned, losses = model.engine.reinforce(model.base, sampled, recipe(training), objective)
    after = np.concatenate(log_probs(model, rows, learned, training))
    before, first = np.concatenate(behaviour), np.concatenate(known)
    facts = {
        "loss": last_epoch_mean(losses, training.epochs),
        "entropy": float(-before.mean()),
        "kl_sampled": kl(after, before),
        "kl_reference": kl(after, first),
    }
    if objective.clip:
        facts["clipped"] = float((np.abs(np.exp(after - before) - 1) > objective.clip).mean())
    return learned, facts


def kl(after: np.ndarray, before: np.ndarray) -> float:
    """KL(before ‖ after) in nats per token, estimated from tokens that `before` sampled; never negative."""
    log_ratio = np.asarray(after - before, np.float64)
    return float((np.exp(log_ratio) - 1 - log_ratio).mean())


def log_probs(model: Actor, rows: Sequence[Row], learned: dict | None = None, training: Training | None = None) -> list:
    """Log-probabilities of the weighted tokens of each row; `engine.decode_rows` rows at a time."""
    weights = Weights(model.base)
    if learned is not None:
        lora = recipe(training).lora
        if lora is None:
            weights = Weights(as_stored(learned, model.base))
        else:
            weights = Weights(model.base, placed(model, [jax.tree.map(np.asarray, learned)], lora).tree, lora)
    each, found = model.engine.settings.decode_rows, []
    for begin in range(0, len(rows), each):
        found += model.engine.token_log_probs(weights, rows[begin : begin + each])
    return found
