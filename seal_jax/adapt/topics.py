"""Which of the learned topics a question is about: the passage that shares most of its telling words."""

from collections.abc import Sequence

from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.judges.lexical import LIGHT
from seal_jax.judges.words import words

COMMON = frozenset(word for text in LIGHT.split() for word in words(text))


def nearest(passages: Sequence[Passage], question: str) -> Passage:
    """The passage whose title and text hold most of the question's words, light ones aside; the first of equals."""
    wanted = set(words(question)) - COMMON
    shared = [len(wanted & set(words(f"{about.title} {about.context}"))) for about in passages]
    return passages[shared.index(max(shared))]
