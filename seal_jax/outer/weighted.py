"""Reward-weighted SFT (reward-weighted regression, Peters and Schaal 2007, with likelihoods of texts).

All self-edits of an item that have a reward teach the policy, each by its share of a softmax over reward / temperature:
the greater the temperature the more alike; towards 0 the best alone counts, as in ReST^EM.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seal_jax.config import Training
from seal_jax.outer.improver import Update
from seal_jax.outer.rest_em import MStep, finetune, teachable
from seal_jax.outer.rollouts import Rollout
from seal_jax.student.actor import Actor


@dataclass(frozen=True)
class WeightedSFT(MStep):
    """temperature: in units of the reward; unfinished: see config.Outer."""

    temperature: float
    training: Training
    unfinished: str
    needs_rewards: bool = True

    def improve(self, policy: Actor, rollouts: Sequence[Rollout], seed: tuple[int, int]) -> Update:
        known = {
            item: [rollout for rollout in found if rollout.reward is not None]
            for item, found in teachable(rollouts, self.unfinished).items()
        }
        weights = {}
        for item, found in known.items():
            for rollout, share in zip(found, shares([one.reward for one in found], self.temperature), strict=True):
                weights[item, rollout.sample] = share
        chosen = {item: [rollout.sample for rollout in found] for item, found in known.items()}
        return finetune(policy, rollouts, chosen, self, seed, weights)


def shares(rewards: Sequence[float], temperature: float) -> list[float]:
    """softmax(rewards / temperature): the weights of one item's self-edits, which sum to 1."""
    greatest = max(rewards, default=0.0)
    powers = [math.exp((reward - greatest) / temperature) for reward in rewards]
    return [power / sum(powers) for power in powers]
