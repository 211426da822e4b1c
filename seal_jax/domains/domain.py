"""What a domain (knowledge, ARC) is to everything above it, and the small types it hands over. Host code, no jax."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Prompt:
    """Text to continue; with `chat` it is the user's turn and goes through the chat template.

    system: the system message of this chat, in place of the tokenizer's or the template's own; unused without `chat`.
    stops: texts that end what a policy writes after it, beside those of config.sampling.
    """

    text: str
    chat: bool
    system: str | None = None
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """One training sequence: the loss is on `text` (and on the closing EOS / end of turn if `closing`).

    Without a prompt the sequence is plain text and every token of it counts. With `whole` the loss is on the prompt as
    well, the template's own words in it included. teacher: what a teacher that also knows the item reads before the
    text, where the student is to learn from its expectations; not together with `whole`.
    """

    prompt: Prompt | None
    text: str
    closing: bool
    whole: bool = False
    teacher: Prompt | None = None


@dataclass(frozen=True)
class Lesson:
    """What a student learns from one self-edit, and how.

    failure: why nothing can be trained, in one sentence; such a self-edit has no reward. None where all is well.
    """

    examples: tuple[Example, ...] = ()
    learning_rate: float = 1.0
    epochs: int = 1
    failure: str | None = None


@dataclass(frozen=True)
class Quiz:
    """All that a student is asked about an item.

    prompts: what it answers. gold: the right answers whose log-likelihood is measured. heldout: which of the gold
    answers never count for the reward; as many as `gold`.
    """

    prompts: tuple[Prompt, ...]
    gold: tuple[Example, ...]
    heldout: tuple[bool, ...]


@dataclass(frozen=True)
class Answered:
    """One question with its gold answer and a model's answer, as a judge sees it."""

    question: str
    gold: str
    answer: str

    @property
    def is_empty(self) -> bool:
        """An answer without text: wrong in every judge, and never asked about."""
        return not self.answer.strip()


@dataclass(frozen=True)
class Graded:
    """Answers as they are shown and recorded, with a verdict each: right, wrong, or None for not graded.

    probabilities: how likely each answer is right, from 0 to 1, None for not graded; None from judges that give none.
    """

    answers: list[str]
    verdicts: list[bool | None]
    probabilities: list[float | None] | None = None


@dataclass(frozen=True)
class Problem:
    """Why a text cannot be used as a self-edit. `again`: it cannot even be read, so another one is sampled."""

    reason: str
    again: bool = False


@dataclass(frozen=True)
class Control:
    """A row of the table whose self-edits are written by a rule instead of a model.

    text(item, sample) is the self-edit; without it nothing is trained. kind: 'untrained' for the row that the others
    are compared with, where nothing is trained either; 'control' for the others. domain: as this row sees it, where it
    differs, such as one that asks with the passage in the prompt.
    """

    name: str
    text: Callable[[Any, int], str] | None
    samples: int = 1
    kind: str = "control"
    domain: "Domain | None" = None


@dataclass(frozen=True)
class Words:
    """What the items of a domain are called in tables and sentences: Words('passage', 'passages')."""

    one: str
    many: str

    def count(self, number: int) -> str:
        """'1 passage', '3 passages'."""
        return f"{number} {self.one if number == 1 else self.many}"

    def first(self, number: int) -> str:
        """'the first passage', 'each of the first 3 passages'."""
        return f"the first {self.one}" if number == 1 else f"each of the first {self.count(number)}"


PASSAGES, TASKS = Words("passage", "passages"), Words("task", "tasks")


def item_number(item: Any) -> int:
    """A number of the item alone, for seeds: it does not depend on the items around it."""
    return zlib.crc32(item.id.encode())


class Domain(Protocol):
    """What items are, how a self-edit is asked for, what it teaches, and how answers are graded.

    Items (passages, puzzles) have an `id`, unique in a run, and a `title`.
    """

    words: Words

    @property
    def grader(self) -> str:
        """Who gives the verdicts; it stands in every record, because verdicts of two judges are not comparable."""

    @property
    def answer_stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""

    def edit_prompt(self, item: Any, chat: bool) -> Prompt:
        """What the policy is asked for a self-edit of an item."""

    def problem(self, text: str) -> Problem | None:
        """Why a text cannot be used as a self-edit; None if it can."""

    def lesson(self, item: Any, text: str, seed: tuple[int, ...], length: Callable[[Example], int]) -> Lesson:
        """What a self-edit teaches; the same for the same seed. `length` counts an example's tokens. Never raises."""

    def quiz(self, item: Any, chat: bool) -> Quiz:
        """What the student is asked about an item, before and after it was trained."""

    def grade(self, answered: Sequence[tuple[Any, Sequence[str]]]) -> list[Graded]:
        """Verdicts for each (item, answers to the prompts of its quiz); one verdict for each of the quiz's gold."""

    def controls(self) -> list[Control]:
        """The rows of the table that need no policy; the first one is the untrained student."""

    def shown(self, item: Any) -> dict:
        """An item as it is recorded: title, context, questions [{question, answer, heldout}]; JSON-ready."""
