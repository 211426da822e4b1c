"""EntiGraph as an author: a writer names the entities of a passage, then writes about pairs and triples of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seal_jax import config, seeds
from seal_jax.authors.author import SelfEdit, Writer
from seal_jax.domains.knowledge import entigraph
from seal_jax.domains.knowledge.released import SEPARATOR

AT_ONCE = 8  # passages, after which what was written is recorded


@dataclass(frozen=True)
class EntiGraph:
    """One self-edit is all texts about one list of entities. chat: whether the writer is asked in a chat."""

    writer: Writer
    how: config.EntiGraph
    chat: bool

    def write(self, items: Sequence[Any], samples: int, seed: tuple[int, int]) -> Iterator[dict[str, list[SelfEdit]]]:
        """A self-edit is missing where fewer than two entities were named, or no text was written about them."""
        for begin in range(0, len(items), AT_ONCE):
            chunk = items[begin : begin + AT_ONCE]
            asked = [entigraph.entities_prompt(item, self.how.entities, self.chat) for item in chunk]
            keys = [[seeds.sample(*seed, item, k) for k in range(samples)] for item in chunk]
            listed = self.writer.complete(asked, keys)
            chosen = [
                [self._groups(edit, key) for edit, key in zip(*lane, strict=True)]
                for lane in zip(listed, keys, strict=True)
            ]
            wanted = [
                (item, group, seeds.sample(*seed, item, k, 1 + number))
                for item, lane in zip(chunk, chosen, strict=True)
                for k, found in enumerate(lane)
                for number, group in enumerate(found)
            ]
            prompts = [entigraph.relation_prompt(item, group, self.chat) for item, group, _ in wanted]
            written = iter(self.writer.complete(prompts, [[key] for _, _, key in wanted]) if wanted else [])
            yield {
                item.id: [
                    joined([text for _ in found for text in next(written)], edit)
                    for found, edit in zip(lane, edits, strict=True)
                ]
                for item, lane, edits in zip(chunk, chosen, listed, strict=True)
            }

    def _groups(self, listed: SelfEdit, key: seeds.Seed) -> list[tuple[str, ...]]:
        names = entigraph.entities(listed.text or "", self.how.entities)
        return entigraph.groups(names, self.how.pairs, self.how.triples, f"{key}")


def joined(parts: Sequence[SelfEdit], listed: SelfEdit) -> SelfEdit:
    """One self-edit of the texts that were written; `listed`: the reply that named the entities."""
    texts = [part.text.strip() for part in parts if part.text and part.text.strip()]
    if texts:
        return SelfEdit(SEPARATOR.join(texts), finished=all(part.finished for part in parts))
    why = next((part.problem for part in (listed, *parts) if part.missing), None)
    return SelfEdit(None, problem=why or "fewer than two entities were named, or nothing was written about them")
