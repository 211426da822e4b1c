"""Knowledge incorporation as a domain: items are passages, and a good self-edit makes their questions answerable.

Questions are asked without the passage. Which training sequences a self-edit gives is decided in sequences.py.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from seal_jax.domains.domain import PASSAGES, Answered, Control, Example, Graded, Lesson, Problem, Prompt, Quiz, Words
from seal_jax.domains.knowledge import prompts
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.domains.knowledge.sequences import Rules, answer_example, question_prompt, sentences, training_examples

Judge = Callable[[Sequence[Answered]], list[bool | None]]  # with a `name`, perhaps `probabilities`; see judges/


@dataclass(frozen=True)
class Knowledge:
    """The domain of passages (the protocol is in domains/domain.py).

    prompt: a family of prompts.py, or a template text. learning_rate, epochs: of every lesson. judge: grades answers.
    open_book: the passage stands before every question.
    """

    prompt: str
    rules: Rules
    learning_rate: float
    epochs: int
    judge: Judge
    answer_stops: tuple[str, ...] = ()
    words: Words = PASSAGES
    open_book: bool = False

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
        asked, shown = passage.questions, self.open_book
        return Quiz(
            tuple(question_prompt(passage, question, chat, shown) for question in asked),
            tuple(answer_example(passage, question, chat, shown) for question in asked),
            tuple(question.heldout for question in asked),
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
        """The untrained student without and with the passage in its prompt (what reading would give, no memory needed),
        training on the passage alone, and on its sentences, a line each: the rule that a policy has to beat.
        """
        with_passage = replace(self, rules=replace(self.rules, include_passage=True))
        return [
            Control("base", None, kind="untrained"),
            Control("passage in context", None, domain=replace(self, open_book=True)),
            Control("passage only", lambda passage, sample: "", domain=with_passage),
            Control("sentences", lambda passage, sample: "\n".join(sentences(passage.context))),
        ]

    def shown(self, passage: Passage) -> dict:
        """Title, context and questions, as they are recorded."""
        questions = [dataclasses.asdict(question) for question in passage.questions]
        return {"title": passage.title, "context": passage.context, "questions": questions}
