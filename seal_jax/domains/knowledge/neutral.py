"""Texts that have nothing to do with the passages that are learned, by which a model is held to what it was."""

import re
from collections.abc import Sequence
from pathlib import Path

from seal_jax.domains.knowledge.corpus import Passage, load_passages
from seal_jax.errors import UserError


def texts(source: str, learned: Sequence[Passage]) -> list[str]:
    """The texts of a .txt file, with empty lines between them, or the contexts of any source of passages.

    Raises UserError where there are none, or some are what is to be learned.
    """
    if Path(source).suffix == ".txt":
        found = [" ".join(part.split()) for part in re.split(r"\n\s*\n", _read(source))]
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


def _read(source: str) -> str:
    try:
        return Path(source).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(
            f"{source} cannot be read ({reason}); give a text file, with empty lines between the texts"
        ) from error
