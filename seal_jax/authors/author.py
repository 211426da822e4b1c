"""Who writes self-edits: the policy, a file, a rule. Each is one class with one method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class SelfEdit:
    """One text from which a student may learn, and how it came about.

    text: None where nothing is to be trained. tokens: as sampled, the closing end token included; log_probs: of each of
    them, natural logarithms under the whole distribution of the policy that wrote it. finished: it ended by itself, not
    at the limit on its length. problem: why it cannot be used. attempts: how often it was sampled until one could be
    read.
    """

    text: str | None
    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    finished: bool = True
    problem: str | None = None
    attempts: int = 1


class Author(Protocol):
    """Writes self-edits of items."""

    def write(self, items: Sequence[Any], samples: int, seed: tuple[int, int]) -> Iterator[dict[str, list[SelfEdit]]]:
        """Yields {item id: its `samples` self-edits}, some items at a time; what was yielded is recorded at once.

        `seed` is (seed of the run, round). Which items are asked for together must not change what is written.
        """
