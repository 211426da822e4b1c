"""Self-edits that a rule writes: the bare passage, its sentences, a configuration drawn at random."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seal_jax.authors.author import SelfEdit


@dataclass(frozen=True)
class Fixed:
    """text(item, sample) -> the self-edit."""

    text: Callable[[Any, int], str]

    def write(self, items: Sequence[Any], samples: int, seed: tuple[int, int]) -> Iterator[dict[str, list[SelfEdit]]]:
        yield {item.id: [SelfEdit(self.text(item, k)) for k in range(samples)] for item in items}
