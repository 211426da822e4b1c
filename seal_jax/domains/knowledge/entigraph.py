"""EntiGraph (Yang et al. 2024, arXiv 2409.07431): entities of a passage, then texts on how some of them are related.

The prompts, what is read from the reply to the first one, and which entities are taken together. No model is here.
"""

import itertools
import random
import re
from collections.abc import Sequence

from seal_jax.domains.domain import Prompt
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.domains.knowledge.sequences import LIST_MARKER

ENTITIES = (
    "Read the passage below and name up to {count} people, places, things and ideas that matter most in it, one per "
    "line, without any explanation.\n\nPassage:\n{title}\n{context}"
)
RELATION = (
    "Read the passage below and explain, by what it says, how {names} are related to each other. Name the topic, "
    "{title}, and give every fact of the passage that concerns them.\n\nPassage:\n{title}\n{context}"
)
CUES = {ENTITIES: "\n\nNames:\n", RELATION: "\n\nExplanation:\n"}
LONGEST = 80  # letters of a name: what is longer is a sentence


def entities_prompt(passage: Passage, count: int, chat: bool) -> Prompt:
    """The request for up to `count` entities."""
    return _prompt(ENTITIES, chat, count=str(count), title=passage.title, context=passage.context)


def relation_prompt(passage: Passage, names: Sequence[str], chat: bool) -> Prompt:
    """The request for a text about two or more entities."""
    listed = ", ".join(names[:-1]) + f" and {names[-1]}"
    return _prompt(RELATION, chat, names=listed, title=passage.title, context=passage.context)


def entities(reply: str, count: int) -> list[str]:
    """The first `count` different names in a reply: a line each, or the entries of one line with commas or a JSON list.

    List markers, quotes, brackets and explanations behind a colon or a dash are left out.
    """
    text = LIST_MARKER.sub("", reply.strip())
    lines = [line for line in text.split("\n") if line.strip(" \t[]")]
    if len(lines) == 1:
        lines = re.split(r"[,;]", lines[0])
    found: dict[str, str] = {}
    for line in lines:
        name = re.split(r":\s|\s[-–—]\s", line.strip())[0].strip(" \t\"'“”*[],.;:")
        if name and len(name) <= LONGEST and any(letter.isalnum() for letter in name):
            found.setdefault(name.casefold(), name)
    return list(found.values())[:count]


def groups(names: Sequence[str], pairs: int, triples: int, seed: str) -> list[tuple[str, ...]]:
    """`pairs` pairs of the names and `triples` triples, fewer where there are not as many; the same for a seed."""
    draw, found = random.Random(seed), []
    for size, count in ((2, pairs), (3, triples)):
        every = list(itertools.combinations(names, size))
        found += draw.sample(every, min(count, len(every)))
    return found


def _prompt(request: str, chat: bool, **values: str) -> Prompt:
    """All values in one pass, so that braces in them stay what they are."""
    text = request if chat else request + CUES[request]
    return Prompt(re.sub(r"\{(\w+)\}", lambda found: values[found[1]], text), chat)
