"""Questions that the model itself writes: about a sentence, continued from a few examples as plain text.

A small model's answers to its own questions are often wrong. So nothing is taken from it but the question: what is to
be learned as the answer is the sentence, which is right whatever was asked.
"""

from collections.abc import Iterator, Sequence

from seal_jax.domains.domain import Prompt
from seal_jax.engine.generation import Generation
from seal_jax.engine.weights import Weights
from seal_jax.lab import Model

EXAMPLES = """The Blue Lamp was painted in 1820 by a nurse.
Question: Who painted the Blue Lamp?

Its roof is covered with the shells of snails.
Question: With what is the roof covered?

In the evening the guards eat soup made of nettles.
Question: What do the guards eat in the evening?

"""
LONGEST = 24  # tokens of a question


def asked_about(model: Model, sentences: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(sentence, a question about it) of each sentence; those of which the model wrote no question are left out."""
    actor = model.actor
    greedy = Generation(actor.rules(0.0, 1.0, 0), LONGEST, actor.stopper(["?"]))
    each = actor.engine.settings.decode_rows
    for begin in range(0, len(sentences), each):
        part = sentences[begin : begin + each]
        shown = [Prompt(f"{EXAMPLES}{sentence}\nQuestion:", chat=False) for sentence in part]
        prompts = [actor.tokenizer.encode_prompt(prompt) for prompt in shown]
        [found] = actor.engine.generate(Weights(actor.base), [prompts], [[[(0,)]] * len(part)], greedy)
        for sentence, [sample] in zip(part, found, strict=True):
            question = actor.tokenizer.decode(sample.tokens).partition("?")[0].strip()
            if any(letter.isalpha() for letter in question) and "\n" not in question:
                yield sentence, f"{question}?"


def edit(model: Model, sentences: Sequence[str]) -> str:
    """The self-edit in which a question about each sentence is answered with that sentence."""
    pairs = enumerate(asked_about(model, sentences), 1)
    return "\n\n".join(f"Question {number}: {asked}\nAnswer: {sentence}" for number, (sentence, asked) in pairs)
