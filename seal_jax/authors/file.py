"""Self-edits that came with the data: the `completions` of a passage."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seal_jax.authors.author import SelfEdit
from seal_jax.errors import UserError


@dataclass(frozen=True)
class File:
    """The first `samples` completions of each item. source: where they stand, for the error where there are fewer."""

    source: str

    def write(self, items: Sequence[Any], samples: int, seed: tuple[int, int]) -> Iterator[dict[str, list[SelfEdit]]]:
        for item in items:
            if len(item.completions) < samples:
                raise UserError(
                    f"{self.source}: {item.title!r} has {len(item.completions)} completions and {samples} are asked "
                    "for; add more, lower --config.outer.samples, or set --config.outer.author=policy"
                )
        yield {item.id: [SelfEdit(text) for text in item.completions[:samples]] for item in items}
