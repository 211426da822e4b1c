"""Policy gradients as the M-step: every self-edit counts by how much better than its siblings it did.

The paper calls them unstable here (arXiv 2506.10943, section 3.1); what they do to the policy is recorded with the
phase.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seal_jax import seeds
from seal_jax.config import PolicyGradient as Settings
from seal_jax.config import Training
from seal_jax.engine.sampled import Objective
from seal_jax.outer.improver import Update
from seal_jax.outer.rest_em import MStep
from seal_jax.outer.rollouts import Rollout, by_item
from seal_jax.student.actor import Actor
from seal_jax.student.reinforce import Episode, reinforce


@dataclass(frozen=True)
class PolicyGradient(MStep):
    """settings: see config.PolicyGradient; longest: tokens of the longest self-edit; reference: the first policy."""

    settings: Settings
    longest: int
    training: Training
    reference: Actor
    needs_rewards: bool = True

    def improve(self, policy: Actor, rollouts: Sequence[Rollout], seed: tuple[int, int]) -> Update:
        episodes, chosen = [], {}
        for item, found in by_item(rollouts).items():
            known = [rollout for rollout in found if rollout.reward is not None and rollout.edit.tokens]
            gains = ADVANTAGES[self.settings.method]([rollout.reward for rollout in known])
            pairs = [(rollout, gain) for rollout, gain in zip(known, gains, strict=True) if gain]
            chosen[item] = [rollout.sample for rollout, gain in pairs if gain > 0]
            episodes += [
                Episode(tuple(policy.tokenizer.encode_prompt(rollout.prompt)), rollout.edit.tokens,
                        rollout.edit.log_probs, gain)
                for rollout, gain in pairs
            ]  # fmt: skip
        if not episodes:
            return Update(None, chosen, {"lessons": 0})
        clip = 0.0 if self.settings.method == "reinforce" else self.settings.clip
        how = Objective(clip, self.settings.kl, self.settings.normaliser, self.longest), seeds.teach(*seed)
        learned, facts = reinforce(policy, self.reference, episodes, self.training, how)
        return Update(learned, chosen, {"lessons": len(episodes), **facts})


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """Each reward minus the mean of its siblings' (REINFORCE with a leave-one-out baseline, arXiv 2402.14740)."""
    count, total = len(rewards), sum(rewards)
    if count < 2 or len(set(rewards)) == 1:
        return [0.0] * count
    return [reward - (total - reward) / (count - 1) for reward in rewards]


def standardised(rewards: Sequence[float]) -> list[float]:
    """(reward - mean) / standard deviation over siblings (GRPO, arXiv 2402.03300)."""
    if len(set(rewards)) < 2:
        return [0.0] * len(rewards)
    mean = sum(rewards) / len(rewards)
    spread = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    return [(reward - mean) / spread for reward in rewards]


ADVANTAGES = {"reinforce": leave_one_out, "ppo": leave_one_out, "grpo": standardised}
