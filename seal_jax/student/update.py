"""One more lesson for each of many students that have learned before, and what it costs of what they knew."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seal_jax.config import Inner
from seal_jax.domains.domain import Example, Lesson
from seal_jax.engine.packing import Candidate, Row, steps_of
from seal_jax.engine.recipe import recipe
from seal_jax.seeds import Seed
from seal_jax.student.past import Students, nothing
from seal_jax.student.train import Loop, adapter_of, candidate, diverged, last_epoch_mean, train


@dataclass(frozen=True)
class Task:
    """What a student is to learn: a new lesson, with examples of earlier ones that come again, and its seeds.

    neutral: examples of which it learns what it expects before the update at each of their tokens, not their words.
    expected: so it does of the earlier ones.
    """

    lesson: Lesson
    earlier: tuple[Example, ...]
    start: Seed
    order: Seed
    expected: bool = False
    neutral: tuple[Example, ...] = ()

    @property
    def words(self) -> int:
        """How many examples are learned by their words, first of all: the others by what is expected."""
        return len(self.lesson.examples) + (0 if self.expected else len(self.earlier))


@dataclass(frozen=True)
class Learned:
    """adapter: on the host, without effect where `failure` says why nothing was learned. loss: mean of the last epoch
    in nats per token, None where nothing was trained or it is not a number; rows, tokens, steps: what it took."""

    adapter: dict
    loss: float | None
    failure: str | None
    rows: int
    tokens: int
    steps: int


def learn(students: Students, tasks: Sequence[Task], training: Inner) -> list[Learned]:
    """Train an adapter of its own for each student, beside those that it has.

    A student whose new lesson holds nothing, or whose training diverges, learns nothing.
    """
    actor, how = students.actor, recipe(training)
    if any(task.expected or task.neutral for task in tasks):
        training = replace(training, objective="distill")
    loops = [_loop(students, i, task, training) for i, task in enumerate(tasks)]
    busy = [i for i, loop in enumerate(loops) if loop.rows]
    adapters = train(actor, [loops[i] for i in busy], training, [students.past[i] for i in busy]) if busy else None
    found = []
    for i, loop in enumerate(loops):
        losses = adapters.losses[busy.index(i)] if i in busy else np.array([])
        failure = diverged(losses) or tasks[i].lesson.failure
        usable = i in busy and failure is None
        adapter = adapter_of(actor, adapters, busy.index(i)) if usable else nothing(actor, how.lora)
        loss = last_epoch_mean(losses, loop.epochs) if usable else None
        tokens = sum(len(row.tokens) for row in loop.rows)
        found.append(Learned(adapter, loss, failure, len(loop.rows), tokens, steps_of(loop, how.batch)))
    return found


def _loop(students: Students, number: int, task: Task, training: Inner) -> Candidate:
    """The training of one student in tokens; rows that have a teacher come with what it expects.

    The teacher is the student before the update.
    """
    actor, own = students.actor, task.lesson.examples
    examples = (*own, *task.earlier, *task.neutral) if own else ()
    loop = candidate(actor, Loop(replace(task.lesson, examples=examples), task.start, task.order), training)
    rows = loop.rows[: task.words] + tuple(map(_own_teacher, loop.rows[task.words :]))
    if any(row.teacher for row in rows):
        before = actor.with_adapter(students.past[number], students.lora)
        taught = actor.engine.with_targets(before.base, rows, recipe(training).distillation)
        rows = tuple(replace(taught.get(row, row), teacher=()) for row in rows)
    return replace(loop, rows=rows)


def _own_teacher(row: Row) -> Row:
    """The row with a teacher that reads what stands before its text; of plain text that is the first token."""
    begin = max(1, len(row.tokens) - len(row.text))
    weights = (0.0,) * begin + row.weights[begin:]
    return replace(row, weights=weights, teacher=row.tokens[:begin])
