"""A toy domain: sums of two numbers. A self-edit is what follows the '='; a student is asked for the sum."""

import re
from dataclasses import dataclass

from seal_jax.domains.domain import Control, Example, Graded, Lesson, Problem, Prompt, Quiz, Words


@dataclass(frozen=True)
class Sum:
    first: int
    second: int

    @property
    def id(self) -> str:
        return f"{self.first}+{self.second}"

    title = id

    @property
    def total(self) -> str:
        return str(self.first + self.second)


@dataclass(frozen=True)
class Sums:
    """learning_rate, epochs: of every lesson."""

    learning_rate: float
    epochs: int
    words: Words = Words("sum", "sums")
    grader: str = "arithmetic"
    answer_stops: tuple[str, ...] = ("\n",)

    def edit_prompt(self, item: Sum, chat: bool) -> Prompt:
        return Prompt(f"Of {item.id}:", chat)

    def problem(self, text: str) -> Problem | None:
        return Problem("it holds an 'o'") if "o" in text else None

    def lesson(self, item: Sum, text: str, seed, length) -> Lesson:
        if not text.strip():
            return Lesson(failure="it is empty")
        prompt = Prompt(f"{item.id}=", chat=False)
        return Lesson((Example(prompt, text, closing=False),), self.learning_rate, self.epochs)

    def quiz(self, item: Sum, chat: bool) -> Quiz:
        prompt = Prompt(f"{item.id}=", chat)
        return Quiz((prompt,), (Example(prompt, item.total, closing=False),), (False,))

    def grade(self, answered) -> list[Graded]:
        return [Graded(list(said), [re.sub(r"\D", "", said[0]) == item.total]) for item, said in answered]

    def controls(self) -> list[Control]:
        untrained = Control("base", None, kind="untrained")
        return [untrained, Control("told", lambda item, k: item.total, samples=2)]

    def shown(self, item: Sum) -> dict:
        return {"title": item.title, "total": item.total}
