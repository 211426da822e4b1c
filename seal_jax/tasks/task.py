"""What a task hands to the engine: prompts to continue and examples to train on. Host code, no jax."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """Text to continue; with `chat` it is the user's turn and goes through the chat template."""

    text: str
    chat: bool


@dataclass(frozen=True)
class Example:
    """One training sequence: the loss is on `text` (and on the closing EOS / end of turn if `closing`).

    Without a prompt the sequence is plain text and every token of it counts.
    """

    prompt: Prompt | None
    text: str
    closing: bool
