"""Few-shot learning on ARC as the outer loop sees it: a self-edit configures the training on a task's demonstrations.

The protocol is that of arXiv 2506.10943, few-shot learning; its pieces are in tasks/arc/.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seal_jax.tasks.arc import edit as edits
from seal_jax.tasks.arc import text, views, voting
from seal_jax.tasks.arc.grids import ArcTask, Grid
from seal_jax.tasks.arc.training_set import Limits, training_set
from seal_jax.tasks.arc.voting import Ballot
from seal_jax.tasks.task import Example, Graded, Lesson, Prompt, item_number

BETWEEN = "\n\n"  # attempts, in a recorded answer


@dataclass(frozen=True)
class Fewshot:
    """ARC tasks under the protocol of the paper; seed: of the views that questions take, the same for every row.

    A self-edit fails that is invalid, leaves no example within the limits, or needs more than `most_steps` steps of
    `batch` examples.
    """

    form: text.Form
    limits: Limits
    batch: int
    most_steps: int
    seed: int
    grader: str = "exact match"
    answer_stops: tuple[str, ...] = (text.END,)

    def edit_prompt(self, task: ArcTask, chat: bool) -> Prompt:
        return edits.edit_prompt(task)

    def problem(self, edit: str) -> str | None:
        found = edits.parse(edit)
        return found.reason if isinstance(found, edits.Invalid) else None

    def lesson(self, task: ArcTask, edit: str, seed: tuple[int, ...], length: Callable[[Example], int]) -> Lesson:
        found = edits.parse(edit)
        if isinstance(found, edits.Invalid):
            return Lesson(failure=f"invalid: {found.reason}")
        examples = training_set(task, found, seed, length, self.form, self.limits)
        if not examples:
            return Lesson(failure=f"no training example has fewer than {self.limits.tokens} tokens")
        steps = edits.number_of_steps(found, len(examples), self.batch)
        if steps > self.most_steps:
            return Lesson(failure=f"{steps} steps, more than {self.most_steps}")
        return Lesson(tuple(examples), found.training.learning_rate, found.training.num_train_epochs)

    def gold(self, task: ArcTask, chat: bool) -> list[Example]:
        """The right output grid of each test input, after all demonstrations."""
        asked = [text.answer_prompt(task.train, pair.input, self.form) for pair in task.test]
        return [
            Example(prompt, text.answer_text(pair.output, self.form), closing=False)
            for prompt, pair in zip(asked, task.test, strict=True)
        ]

    def heldout(self, task: ArcTask) -> list[bool]:
        return [False] * len(task.test)

    def questions(self, task: ArcTask, chat: bool) -> list[Prompt]:
        """Every view of every test input, one test input after the other."""
        return [text.answer_prompt(q.demonstrations, q.test_input, self.form) for q in _asked(task, self.seed)]

    def grade(self, answered: Sequence[tuple[ArcTask, Sequence[str]]]) -> list[Graded]:
        """Two attempts at each test input, by vote; a task is right, in all its verdicts, if it is solved."""
        return [self._grade(task, answers) for task, answers in answered]

    def _grade(self, task: ArcTask, answers: Sequence[str]) -> Graded:
        ballots = [_ballot(asked.view, answer) for asked, answer in zip(_asked(task, self.seed), answers, strict=True)]
        each = len(ballots) // len(task.test)
        attempts = [voting.attempts(ballots[i : i + each]) for i in range(0, len(ballots), each)]
        shown = [BETWEEN.join(text.grid_text(grid, self.form) for grid in grids) for grids in attempts]
        return Graded(shown, [voting.solved(task, attempts)] * len(task.test))


def attempts_of(answer: str) -> list[Grid]:
    """The grids of a recorded answer, the better attempt first."""
    found = (text.decode_grid(part) for part in answer.split(BETWEEN))
    return [grid for grid in found if grid is not None]


def _asked(task: ArcTask, seed: int) -> list[views.Viewed]:
    return [q for test in range(len(task.test)) for q in views.questions(task, test, (seed, item_number(task), test))]


def _ballot(view: str, answer: str) -> Ballot:
    grid = text.decode_grid(answer)
    return Ballot(view, None if grid is None else views.undo(view, grid))
