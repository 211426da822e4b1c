"""A toy author: the item's title, turned by one character more for each sample."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seal_jax.authors.author import SelfEdit


@dataclass(frozen=True)
class Turned:
    """Writes backwards with `reverse`."""

    reverse: bool = True

    def write(self, items: Sequence[Any], samples: int, seed: tuple[int, int]) -> Iterator[dict[str, list[SelfEdit]]]:
        for item in items:
            text = item.title[::-1] if self.reverse else item.title
            yield {item.id: [SelfEdit(text[k:] + text[:k]) for k in range(samples)]}
