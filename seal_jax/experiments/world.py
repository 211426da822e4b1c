"""What an experiment needs to know of a domain: its items, and how to make it once there is a judge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from seal_jax.domains.domain import Domain
from seal_jax.student.actor import Actor


@dataclass(frozen=True)
class World:
    """train, evaluation: disjoint items. domain(judge): the domain whose answers that judge grades.

    note: a sentence about the items for the person who started the run. attempts: at a self-edit that can be read;
    grammar(policy): what its decoding keeps to, None for anything. chat_only: models without a chat template are
    refused. neutral: texts that have nothing to do with the items, for continual self-edits.
    """

    train: Sequence[Any]
    evaluation: Sequence[Any]
    domain: Callable[[Callable | None], Domain]
    note: str = ""
    attempts: int = 1
    grammar: Callable[[Actor], Any] = lambda policy: None
    chat_only: bool = False
    neutral: Sequence[str] = ()
