"""Who writes self-edits: the policy, a model behind an endpoint, a file, a rule. Each has one method."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from seal_jax.domains.domain import Prompt
from seal_jax.seeds import Seed


@dataclass(frozen=True)
class SelfEdit:
    """One text from which a student may learn, and how it came about.

    text: None where nothing is to be trained, or nothing was written, which `problem` explains. tokens: as sampled, the
    closing end token included; log_probs: of each of them, natural logarithms under the whole distribution of the
    policy that wrote it. finished: it ended by itself, not at the limit on its length. problem: why it cannot be used.
    attempts: how often it was sampled until one could be read. prompt: what it answers, where that is not the domain's
    own prompt.
    """

    text: str | None
    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    finished: bool = True
    problem: str | None = None
    attempts: int = 1
    prompt: str | None = None

    @property
    def missing(self) -> bool:
        """Whether nothing was written: it is never trained on or counted as wrong, but listed."""
        return self.text is None and self.problem is not None


class Author(Protocol):
    """Writes self-edits of items."""

    def write(self, items: Sequence[Any], samples: int, seed: tuple[int, int]) -> Iterator[dict[str, list[SelfEdit]]]:
        """Yields {item id: its `samples` self-edits}, some items at a time; what was yielded is recorded at once.

        `seed` is (seed of the run, round). Which items are asked for together must not change what is written.
        """


class Writer(Protocol):
    """Continues or answers prompts; authors that work in several steps are made of one."""

    def complete(self, prompts: Sequence[Prompt], seeds: Sequence[Sequence[Seed]]) -> list[list[SelfEdit]]:
        """One text for each seed of each prompt; what could not be had is `missing`."""


def cut_at(text: str, stops: Iterable[str]) -> str:
    """What stands before the first of any of the texts that end a self-edit."""
    for stop in stops:
        text = text.split(stop, 1)[0]
    return text
