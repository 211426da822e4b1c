"""A toy reward: the share of different characters in a self-edit. No student is trained for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seal_jax.authors.author import SelfEdit
from seal_jax.rewards.reward import Scores
from seal_jax.runs.keys import Stage
from seal_jax.student.actor import Actor


@dataclass(frozen=True)
class Variety:
    """Nothing is known of an empty text."""

    def score(
        self, student: Actor, items: Sequence[Any], edits: Mapping[str, Sequence[SelfEdit]], stage: Stage
    ) -> dict[str, Scores]:
        return {item.id: Scores([variety(edit.text) for edit in edits[item.id]], base=0.0) for item in items}


def variety(text: str) -> float | None:
    return len(set(text)) / len(text) if text else None
