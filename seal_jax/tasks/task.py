"""What a domain is to the outer loop, and what it hands to the engine and to judges. Host code, no jax."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


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


@dataclass(frozen=True)
class Item:
    """One answer to grade against the gold answer of its question."""

    question: str
    gold: str
    answer: str

    @property
    def is_empty(self) -> bool:
        """True if nothing was answered; such an item is wrong without asking anyone."""
        return not self.answer.strip()


@dataclass(frozen=True)
class Lesson:
    """What a student learns from one self-edit, and how.

    failure: why nothing is trained and every answer counts as wrong, in one sentence; None where all is well.
    """

    examples: tuple[Example, ...] = ()
    learning_rate: float = 1.0
    epochs: int = 1
    failure: str | None = None


@dataclass(frozen=True)
class Graded:
    """What was answered, as it is shown and recorded, with its verdicts (None: not graded); equally many."""

    answers: list[str]
    verdicts: list[bool | None]


def item_number(item: Any) -> int:
    """A number of the item alone, for seeds: it does not change with the items around it."""
    return zlib.crc32(item.id.encode())


class Task(Protocol):
    """A domain as the outer loop sees it. Its items are passages or puzzles, each with an `id` and a `title`."""

    @property
    def grader(self) -> str:
        """Who gives the verdicts, for the records."""

    @property
    def answer_stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""

    def edit_prompt(self, item: Any, chat: bool) -> Prompt:
        """What the policy is asked for a self-edit of an item."""

    def problem(self, edit: str) -> str | None:
        """Why a self-edit cannot be used, in one sentence; None if it can."""

    def lesson(self, item: Any, edit: str, seed: tuple[int, ...], length: Callable[[Example], int]) -> Lesson:
        """What a self-edit teaches; the same for the same seed. `length` counts an example's tokens. Never raises."""

    def gold(self, item: Any, chat: bool) -> list[Example]:
        """The right answer to each question that counts, for its log-likelihood."""

    def heldout(self, item: Any) -> list[bool]:
        """Which of those questions are kept out of the reward."""

    def questions(self, item: Any, chat: bool) -> list[Prompt]:
        """All that the student is asked."""

    def grade(self, answered: Sequence[tuple[Any, Sequence[str]]]) -> list[Graded]:
        """Verdicts on the answers to `questions` of each (item, answers), one for each of the item's `gold`."""
