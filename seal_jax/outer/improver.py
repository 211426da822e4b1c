"""What changes the policy: the interface. ReST^EM (rest_em.py), reward-weighted SFT (weighted.py), DPO (dpo.py)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from seal_jax.outer.rollouts import Rollout
from seal_jax.student.actor import Actor


@dataclass(frozen=True)
class Update:
    """What an improver did with a round's rollouts.

    learned: an adapter, or all weights, to be merged; None where the policy stays as it is. chosen: {item id: samples
    that taught it}, none at all only where `learned` is None; facts: what else the phase records, such as its loss;
    rejected: the samples that the policy was taught to write less.
    """

    learned: dict | None
    chosen: dict[str, list[int]]
    facts: dict = field(default_factory=dict)
    rejected: dict[str, list[int]] = field(default_factory=dict)


class Improver(Protocol):
    """Turns rollouts into a better policy. `needs_rewards`: False where rollouts need not be scored."""

    needs_rewards: bool

    def improve(self, policy: Actor, rollouts: Sequence[Rollout], seed: tuple[int, int]) -> Update:
        """What the policy that wrote the rollouts learns from them. `seed` is (seed of the run, round)."""

    def apply(self, policy: Actor, learned: dict) -> Actor:
        """The policy with what it learned, in the round or before the run was continued."""
