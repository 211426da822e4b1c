"""Knowledge incorporation as a domain: items are passages, and a good self-edit makes their questions answerable.

Questions are asked without the passage. Which training sequences a self-edit gives is decided in sequences.py.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from seal_jax.domains.domain import Answered, Control, Example, Graded, Lesson, Problem, Prompt, Quiz, Words
from seal_jax.domains.knowledge import prompts
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.domains.knowledge.sequences import Rules, answer_example, question_prompt, training_examples

Judge = Callable[[Sequence[Answered]], list[bool | None]]  # with a `name`, perhaps `probabilities`; see judges/


@dataclass(frozen=True)
class Knowledge:
    """The domain of passages (the protocol is in domains/domain.py).

    prompt: a family of prompts.py, or a template text. learning_rate, epochs: of every lesson. judge: grades answers.
    """

    prompt: str
    rules: Rules
    learning_rate: float
    epochs: int
    judge: Judge
    answer_stops: tuple[str, ...] = ()
    words: Words = Words("passage", "passages")

    @property
    def grader(self) -> str:
        """The name of the judge."""
        return self.judge.name

    def edit_prompt(self, passage: Passage, chat: bool) -> Prompt:
        """What the policy is asked for a self-edit of a passage."""
        return prompts.edit_prompt(passage, self.prompt, chat)

    def problem(self, text: str) -> Problem | None:
        """None: any text can be used as a self-edit, if only to train on the passage."""
        return None

    def lesson(self, passage: Passage, text: str, seed: tuple[int, ...], length: Callable[[Example], int]) -> Lesson:
        """The training sequences of a self-edit; `seed` and `length` are not needed here.

        It fails where nothing is left to train on, which needs a self-edit without words and a config that leaves the
        passage out.
        """
        examples = tuple(training_examples(passage, text, self.rules))
        failure = None if examples else "the self-edit holds no text to train on"
        return Lesson(examples, self.learning_rate, self.epochs, failure)

    def quiz(self, passage: Passage, chat: bool) -> Quiz:
        """Every question of the passage, in order."""
        return Quiz(
            tuple(question_prompt(passage, question, chat) for question in passage.questions),
            tuple(answer_example(passage, question, chat) for question in passage.questions),
            tuple(question.heldout for question in passage.questions),
        )

    def grade(self, answered: Sequence[tuple[Passage, Sequence[str]]]) -> list[Graded]:
        """The judge's verdict on each answer, and its probability where the judge gives any.

        It is called once for all answers, because some judges work in batches.
        Raises ValueError where a passage has not one answer for each of its questions.
        """
        items = [
            Answered(question.question, question.answer, answer)
            for passage, answers in answered
            for question, answer in zip(passage.questions, answers, strict=True)
        ]
        likely = getattr(self.judge, "probabilities", None)
        verdicts = iter(self.judge(items) if items else [])
        found = [Graded(list(answers), [next(verdicts) for _ in answers]) for _, answers in answered]
        if likely is None or not items:
            return found
        chances = iter(likely(items))
        return [replace(graded, probabilities=[next(chances) for _ in graded.verdicts]) for graded in found]

    def controls(self) -> list[Control]:
        """The untrained student, and training on the passage alone where lessons hold the passage."""
        untrained = Control("base", lambda passage, sample: None, kind="untrained")
        return [untrained, Control("passage only", lambda passage, sample: "")][: 1 + self.rules.include_passage]

    def shown(self, passage: Passage) -> dict:
        """Title, context and questions, as they are recorded."""
        questions = [dataclasses.asdict(question) for question in passage.questions]
        return {"title": passage.title, "context": passage.context, "questions": questions}
