"""What self-edits are worth: the interface, and the scores that every reward gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from seal_jax.authors.author import SelfEdit
from seal_jax.runs.keys import Stage
from seal_jax.student.actor import Actor

DIGITS = 9  # to which rewards are compared, so that float noise does not choose among equals


@dataclass(frozen=True)
class Scores:
    """What the self-edits of one item earned and what the untrained student would have; None where it is not known.

    A self-edit that failed, or whose training diverged, has no reward. heldout_rewards, heldout_base: the same on the
    questions that are kept out of the reward, for the report alone. accuracies: of each self-edit on the questions in
    the reward, whatever their part in it. retrains: how often each was trained; one that racing dropped, less often.
    """

    rewards: list[float | None]
    base: float | None = None
    heldout_rewards: list[float | None] | None = None
    heldout_base: float | None = None
    accuracies: list[float | None] | None = None
    retrains: list[int] | None = None


class Reward(Protocol):
    """Scores self-edits."""

    def score(
        self, student: Actor, items: Sequence[Any], edits: Mapping[str, Sequence[SelfEdit]], stage: Stage
    ) -> dict[str, Scores]:
        """{item id: scores of its self-edits}. stage: the split, arm and round, for records and random numbers."""


def rounded(value: float | None) -> float | None:
    """A reward as it is compared and recorded."""
    return None if value is None else round(value, DIGITS)
