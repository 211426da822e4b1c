"""A toy domain: sums of two numbers. A self-edit teaches its lines; a student is asked for the sum."""

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
        return Prompt(f"How to find {item.id}:", chat)

    def problem(self, text: str) -> Problem | None:
        return Problem("it holds an 'o'") if "o" in text else None

    def lesson(self, item: Sum, text: str, seed, length) -> Lesson:
        prompt = Prompt(f"{item.id}=", chat=False)
        examples = tuple(Example(prompt, line, closing=False) for line in text.split("\n") if line)
        return Lesson(examples, self.learning_rate, self.epochs, None if examples else "it holds no line")

    def quiz(self, item: Sum, chat: bool) -> Quiz:
        prompt = Prompt(f"{item.id}=", chat)
        return Quiz((prompt,), (Example(prompt, item.total, closing=False),), (False,))

    def grade(self, answered) -> list[Graded]:
        return [Graded(list(said), [re.sub(r"\D", "", said[0]) == item.total]) for item, said in answered]

    def controls(self) -> list[Control]:
        return [Control("base", lambda item, k: None, kind="untrained"), Control("told", lambda item, k: item.total)]

    def shown(self, item: Sum) -> dict:
        return {"title": item.title, "total": item.total}
