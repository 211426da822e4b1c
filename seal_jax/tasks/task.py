"""What a task hands to the engine: prompts to continue and examples to train on. Host code, no jax."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """Text to continue; with `chat` it is the user's turn and goes through the chat template.

    system: the system message of this chat, in place of the tokenizer's or the template's own; no use without `chat`.
    """

    text: str
    chat: bool
    system: str | None = None


@dataclass(frozen=True)
class Example:
    """One training sequence: the loss is on `text` (and on the closing EOS / end of turn if `closing`).

    Without a prompt the sequence is plain text and every token of it counts. With `whole` the loss is on the prompt as
    well, the template's own words in it included.
    """

    prompt: Prompt | None
    text: str
    closing: bool
    whole: bool = False
