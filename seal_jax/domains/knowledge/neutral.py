"""Texts that have nothing to do with the passages that are learned, by which a model is held to what it was."""

import re
from collections.abc import Sequence
from pathlib import Path

from seal_jax.domains.knowledge.corpus import Passage, load_passages
from seal_jax.errors import UserError, read_text


def texts(source: str, learned: Sequence[Passage]) -> list[str]:
    """The texts of a .txt file, with empty lines between them, or the contexts of any source of passages.

    Raises UserError where there are none, or some are what is to be learned.
    """
    if Path(source).suffix == ".txt":
        text = read_text(source, "give a text file, with empty lines between the texts")
        found = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
        found = [text for text in found if text]
    else:
        found = [passage.context for passage in load_passages(source, labelled=False)]
    if not found:
        raise UserError(f"{source} holds no text; write some into it, with empty lines between them")
    both = {passage.context for passage in learned} & set(found)
    if both:
        raise UserError(
            f"config.continual.neutral: {len(both)} of its texts are also learned; name texts about something else"
        )
    return found
