"""A toy improver: one adapter for each item, taught by all its self-edits; the policy gets their mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from seal_jax import seeds
from seal_jax.config import Training
from seal_jax.domains.domain import Example
from seal_jax.outer.improver import Update
from seal_jax.outer.rollouts import Rollout, by_item
from seal_jax.student.actor import Actor
from seal_jax.student.merge import merge
from seal_jax.student.train import teach


@dataclass(frozen=True)
class Soup:
    """All items start from the same adapter, so that a mean makes sense."""

    training: Training
    needs_rewards: bool = False

    def improve(self, policy: Actor, rollouts: Sequence[Rollout], seed: tuple[int, int]) -> Update:
        adapters, losses = [], []
        for found in by_item(rollouts).values():
            lessons = [Example(rollout.prompt, rollout.edit.text, rollout.edit.finished) for rollout in found]
            learned, loss = teach(policy, lessons, self.training, seeds.teach(*seed))
            adapters.append(learned)
            losses.append(loss)
        mean = jax.tree.map(lambda *leaves: np.mean([np.asarray(leaf) for leaf in leaves], axis=0), *adapters)
        chosen = {item: [rollout.sample for rollout in found] for item, found in by_item(rollouts).items()}
        return Update(mean, chosen, {"losses": losses})

    def apply(self, policy: Actor, learned: dict) -> Actor:
        return merge(policy, learned, self.training)
