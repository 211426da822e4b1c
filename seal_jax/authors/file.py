"""Self-edits that somebody else wrote before: those that came with the passages, or those of a file of completions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from seal_jax.authors.author import SelfEdit
from seal_jax.errors import UserError


class Completions(NamedTuple):
    """What a file holds for one item. prompt: what the texts answer; None where the file does not say."""

    texts: Sequence[str] = ()
    prompt: str | None = None


def with_the_item(item: Any) -> Completions:
    """The completions in the item itself."""
    return Completions(item.completions, item.prompt)


@dataclass(frozen=True)
class File:
    """The first `samples` completions of each item, with the prompt that they answer.

    source: where they stand, and field: of the config, that says how many are asked for; both for errors. find(item) ->
    what the source has for it. An item of which it has nothing is missing; one of which it has too few, or a source
    that has nothing for any item, is an error.
    """

    source: str
    find: Callable[[Any], Completions] = with_the_item
    field: str = "outer.samples"

    def write(self, items: Sequence[Any], samples: int, seed: tuple[int, int]) -> Iterator[dict[str, list[SelfEdit]]]:
        found = self.check(items, samples)
        missing = [SelfEdit(None, problem="the file has none")] * samples
        yield {
            item: [SelfEdit(text, prompt=entry.prompt) for text in entry.texts[:samples]] or missing
            for item, entry in found.items()
        }

    def check(self, items: Sequence[Any], samples: int) -> dict[str, Completions]:
        """What the source has for each item, by its id. Raises UserError where that is too little."""
        found = {item.id: self.find(item) for item in items}
        for item in items:
            count = len(found[item.id].texts)
            if 0 < count < samples:
                raise UserError(
                    f"{self.source}: {item.title!r} has {count} completions and {samples} are asked for; add more, "
                    f"lower --config.{self.field}, or let another author write"
                )
        if not any(entry.texts for entry in found.values()):
            raise UserError(
                f"{self.source} has no completions of any of the {len(items)} items, such as {items[0].title!r}; name "
                "the file that has them with --config.authors.file, or let another author write"
            )
        return found
