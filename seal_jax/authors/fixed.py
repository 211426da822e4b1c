"""Self-edits that a rule writes: nothing at all, the bare passage, a configuration drawn at random."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seal_jax.authors.author import SelfEdit


@dataclass(frozen=True)
class Fixed:
    """text(item, sample) -> the self-edit; None trains nothing."""

    text: Callable[[Any, int], str | None]

    def write(self, items: Sequence[Any], samples: int, seed: tuple[int, int]) -> Iterator[dict[str, list[SelfEdit]]]:
        yield {item.id: [SelfEdit(self.text(item, k)) for k in range(samples)] for item in items}
