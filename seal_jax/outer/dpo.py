"""DPO (Rafailov et al. 2023, arXiv 2305.18290) on each item's best self-edit against its worst.

The reference is the policy before the step. An item whose self-edits all earned the same teaches nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seal_jax import seeds
from seal_jax.config import Training
from seal_jax.outer import select
from seal_jax.outer.improver import Update
from seal_jax.outer.rest_em import MStep, example, teachable
from seal_jax.outer.rollouts import Rollout
from seal_jax.runs.ledger import Ledger
from seal_jax.student.actor import Actor
from seal_jax.student.prefer import prefer


@dataclass(frozen=True)
class DPO(MStep):
    """Pairs by reward. beta: see config.DPO; unfinished: see config.Outer."""

    beta: float
    training: Training
    unfinished: str
    needs_rewards: bool = True

    def improve(self, policy: Actor, rollouts: Sequence[Rollout], seed: tuple[int, int]) -> Update:
        pairs = {item: select.best_and_worst(found) for item, found in teachable(rollouts, self.unfinished).items()}
        return learn(policy, rollouts, pairs, self, seed)


@dataclass(frozen=True)
class RandomPairs(MStep):
    """The control: pairs at random, of the items of which another arm had one in the same round.

    like: the rollouts of the run, and the arm to be compared with.
    """

    beta: float
    training: Training
    unfinished: str
    like: tuple[Ledger, str]
    needs_rewards: bool = False

    def improve(self, policy: Actor, rollouts: Sequence[Rollout], seed: tuple[int, int]) -> Update:
        pairs = {}
        for item, found in teachable(rollouts, self.unfinished).items():
            wanted = self.like[0][self.like[1], seed[1], item]["chosen"]
            pairs[item] = select.pair_at_random(found, f"{seed[0]}/{seed[1]}/{item}") if wanted else []
        return learn(policy, rollouts, pairs, self, seed)


def learn(
    policy: Actor,
    rollouts: Sequence[Rollout],
    pairs: Mapping[str, list[int]],
    how: DPO | RandomPairs,
    seed: tuple[int, int],
) -> Update:
    """M-step: DPO on {item id: [preferred sample, rejected sample], or nothing}."""
    found = {(rollout.item.id, rollout.sample): rollout for rollout in rollouts}
    lessons = [tuple(example(found[item, k], how.unfinished) for k in pair) for item, pair in pairs.items() if pair]
    chosen, rejected = ({item: pair[side : side + 1] for item, pair in pairs.items()} for side in (0, 1))
    if not lessons:
        return Update(None, chosen, {"lessons": 0}, rejected)
    learned, loss = prefer(policy, lessons, how.training, how.beta, seeds.teach(*seed))
    return Update(learned, chosen, {"lessons": len(lessons), "loss": loss}, rejected)
