"""A self-edit that shows sentences as answers: to a question that the model writes, and to cues that a rule finds.

Under one request alone a model that has learned many sentences says the same one to every question. So each sentence is
also the answer to what might be asked of it. A small model's answers to its own questions are often wrong; nothing is
taken from it but the question, and the sentence is right whatever was asked.
"""

import re
from collections.abc import Iterator, Sequence

from seal_jax.adapt.topics import COMMON
from seal_jax.authors.policy import Policy
from seal_jax.config import Sampling
from seal_jax.domains.domain import Prompt
from seal_jax.judges.words import words
from seal_jax.lab import Model

EXAMPLES = """The Blue Lamp was painted in 1820 by a nurse.
Question: Who painted the Blue Lamp?

Its roof is covered with the shells of snails.
Question: With what is the roof covered?

In the evening the guards eat soup made of nettles.
Question: What do the guards eat in the evening?

"""
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=24, stop_strings=("?",))  # of a question
WORD = re.compile(r"\w[\w'’-]*")


def edit(model: Model, sentences: Sequence[str]) -> str:
    """The self-edit in which each sentence answers a question of the model's about it, and its cues."""
    pairs = [*asked_about(model, sentences), *((text, cue) for text in sentences for cue in cues(text))]
    return "\n\n".join(f"Question {number}: {asked}?\nAnswer: {text}" for number, (text, asked) in enumerate(pairs, 1))


def asked_about(model: Model, sentences: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(sentence, question without its mark); sentences of which the model writes no question are left out.

    The model continues a few examples as plain text, greedily.
    """
    writer = Policy(model.actor, model.domain, GREEDY)
    shown = [Prompt(f"{EXAMPLES}{sentence}\nQuestion:", chat=False) for sentence in sentences]
    written = writer.complete(shown, [[(0,)]] * len(shown))
    for sentence, [edit] in zip(sentences, written, strict=True):
        question = edit.text.strip()
        if any(letter.isalpha() for letter in question) and "\n" not in question:
            yield sentence, question


def cues(sentence: str) -> list[str]:
    """The telling words of a sentence's first half, and those of its second; light words tell nothing."""
    telling = [word for word in WORD.findall(sentence) if set(words(word)) - COMMON]
    middle = (len(telling) + 1) // 2
    return [" ".join(half) for half in (telling[:middle], telling[middle:]) if half]
