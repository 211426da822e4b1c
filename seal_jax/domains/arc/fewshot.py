"""Few-shot learning on ARC as a domain: a self-edit configures the training on the demonstrations of a task.

The protocol is that of the few-shot experiment of arXiv 2506.10943; the other modules of this package hold its parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from seal_jax import seeds
from seal_jax.domains.arc import edit as edits
from seal_jax.domains.arc import text as texts
from seal_jax.domains.arc import views, voting
from seal_jax.domains.arc.grids import ArcTask, Grid, Pair
from seal_jax.domains.arc.training_set import Limits, training_set
from seal_jax.domains.arc.voting import Ballot
from seal_jax.domains.domain import TASKS, Control, Example, Graded, Lesson, Problem, Prompt, Quiz, Words

IN_CONTEXT, RANDOM, ORACLE = "in context", "random configuration", "oracle configuration"
BETWEEN = "\n\n"  # stands between the attempts of a recorded answer


@dataclass(frozen=True)
class ControlSettings:
    """The rows of the table whose configurations are not written by a model.

    rates, epochs: the ranges of random configurations, ends included. oracle_rate, oracle_epochs: of the one written by
    hand. samples: random configurations of each task.
    """

    rates: tuple[float, float] = (1e-5, 1e-3)
    epochs: tuple[int, int] = (1, 3)
    oracle_rate: float = edits.ORACLE.training.learning_rate
    oracle_epochs: int = edits.ORACLE.training.num_train_epochs
    samples: int = 1


@dataclass(frozen=True)
class Fewshot:
    """ARC tasks under the protocol of the paper.

    batch: examples of one optimizer step. seed: of the views in which questions are asked, the same for every row of
    the table, and of random configurations. vote: 'two-stage' or 'reference', see `voting`.
    """

    form: texts.Form
    limits: Limits
    batch: int
    seed: int
    vote: str = voting.TWO_STAGE
    settings: ControlSettings = ControlSettings()
    words: Words = TASKS

    @property
    def grader(self) -> str:
        """Answers are compared with the output grid cell by cell."""
        return "exact match"

    @property
    def answer_stops(self) -> tuple[str, ...]:
        """An answer ends with '#'."""
        return (texts.END,)

    def edit_prompt(self, task: ArcTask, chat: bool) -> Prompt:
        """The demonstrations, and the request for a configuration; always a chat."""
        return edits.edit_prompt(task)

    def problem(self, text: str) -> Problem | None:
        """Why a text is no configuration; without a whole JSON object it is to be sampled again, otherwise it fails."""
        found = edits.parse(text)
        return found if isinstance(found, Problem) else None

    def lesson(self, task: ArcTask, text: str, seed: tuple[int, ...], length: Callable[[Example], int]) -> Lesson:
        """The training set that a configuration makes of a task.

        A self-edit fails that is invalid, leaves no example within the limits, or needs too many optimizer steps.
        """
        found = edits.parse(text)
        if isinstance(found, Problem):
            return Lesson(failure=f"invalid: {found.reason}")
        examples = training_set(task, found, seed, length, self.form, self.limits)
        if not examples:
            return Lesson(failure=f"no training example has fewer than {self.limits.tokens} tokens")
        steps = edits.number_of_steps(found, len(examples), self.batch)
        if steps > self.limits.steps:
            return Lesson(failure=f"{steps} steps, more than {self.limits.steps}")
        return Lesson(tuple(examples), found.training.learning_rate, found.training.num_train_epochs)

    def quiz(self, task: ArcTask, chat: bool) -> Quiz:
        """Every view of each test input, one test input after the other; its gold is each right output grid.

        The gold answer of a test input follows all demonstrations in their own order. None is held out.
        """
        asked = [question for questions in self.questions(task) for question in questions]
        prompts = [texts.answer_prompt(q.demonstrations, q.test_input, self.form) for q in asked]
        gold = [
            Example(
                texts.answer_prompt(task.train, pair.input, self.form),
                texts.answer_text(pair.output, self.form),
                closing=False,
            )
            for pair in task.test
        ]
        return Quiz(tuple(prompts), tuple(gold), (False,) * len(task.test))

    def grade(self, answered: Sequence[tuple[ArcTask, Sequence[str]]]) -> list[Graded]:
        """Two attempts at each test input, by vote. A task that is solved is right in all its verdicts, or in none."""
        return [self._grade(task, answers) for task, answers in answered]

    def controls(self) -> list[Control]:
        """No training, random configurations, and the one written by hand."""
        settings = self.settings
        training = replace(
            edits.ORACLE.training, learning_rate=settings.oracle_rate, num_train_epochs=settings.oracle_epochs
        )
        oracle = edits.canonical(replace(edits.ORACLE, training=training))

        def drawn(task: ArcTask, sample: int) -> str:
            seed = seeds.control(self.seed, task, sample)
            return edits.canonical(edits.random_configuration(seed, settings.rates, settings.epochs))

        return [
            Control(IN_CONTEXT, None, kind="untrained"),
            Control(RANDOM, drawn, settings.samples),
            Control(ORACLE, lambda task, sample: oracle),
        ]

    def shown(self, task: ArcTask) -> dict:
        """The task as text, with a question for each test input, and its grids as lists of rows."""
        questions = [dict(zip(("question", "answer"), self._written(pair), strict=True)) for pair in task.test]
        return {
            "title": task.title,
            "context": "\n\n".join(texts.ARROW.join(self._written(pair)) for pair in task.train),
            "questions": [question | {"heldout": False} for question in questions],
            "grids": {"train": _rows(task.train), "test": _rows(task.test)},
        }

    def questions(self, task: ArcTask) -> list[list[views.Viewed]]:
        """The questions about each test input, a list for each; the same in every row of the table."""
        seed = seeds.views(self.seed, task)
        return [views.questions(task, test, (*seed, test)) for test in range(len(task.test))]

    def _written(self, pair: Pair) -> tuple[str, str]:
        return texts.grid_text(pair.input, self.form), texts.grid_text(pair.output, self.form)

    def _grade(self, task: ArcTask, answers: Sequence[str]) -> Graded:
        asked = self.questions(task)
        if len(answers) != sum(map(len, asked)):
            raise ValueError(f"{len(answers)} answers to {sum(map(len, asked))} questions")
        given = iter(answers)
        ballots = [[_ballot(question.view, next(given)) for question in questions] for questions in asked]
        attempts = [voting.attempts(votes, self.vote) for votes in ballots]
        shown = [BETWEEN.join(texts.grid_text(grid, self.form) for grid in grids) for grids in attempts]
        return Graded(shown, [voting.solved(task, attempts)] * len(task.test))


def attempts_of(answer: str) -> list[Grid]:
    """The grids of a recorded answer, the better attempt first."""
    found = (texts.decode_grid(part) for part in answer.split(BETWEEN))
    return [grid for grid in found if grid is not None]


def _rows(pairs: Sequence[Pair]) -> list[list[list[list[int]]]]:
    return [[pair.input.tolist(), pair.output.tolist()] for pair in pairs]


def _ballot(view: str, answer: str) -> Ballot:
    grid = texts.decode_grid(answer)
    return Ballot(view, None if grid is None else views.undo(view, grid))
