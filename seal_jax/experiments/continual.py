"""Continual self-edits (arXiv 2506.10943, knowledge incorporation, catastrophic forgetting):

    a self-edit of the next passage -> train -> merge, or undo -> ask about all passages so far -> the next passage

Many sequences of passages at once over one base: what each has learned lies beside it as frozen adapters, which is what
merging would do (student/past.py). With controls of forgetting the same sequences are gone through without and with
them. What is recorded is not computed again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from seal_jax import seeds
from seal_jax.config import FREE, Continual
from seal_jax.domains.domain import Example
from seal_jax.experiments.course import Course, lesson, rise, write_next
from seal_jax.experiments.rounds import AfterRows, Row, Setup, control_row, declare, evaluate
from seal_jax.runs import checkpoint
from seal_jax.runs.keys import ANSWER, CONTINUAL, CONTROLLED, EVALUATION, TEACH, Stage
from seal_jax.student.past import Students, scaled
from seal_jax.student.trials import Plan, ask_items
from seal_jax.student.update import Task, learn


def run(setup: Setup, after_rows: AfterRows) -> None:
    """The untrained student on all passages, then every arm, passage by passage, each with a row after every update."""
    how, seed = setup.config.continual, setup.config.seed
    sequences = draw(setup.evaluation, how, seed)
    used = {item.id for items in sequences for item in items}
    base = control_row(setup, setup.domain.controls()[0])
    evaluate(replace(setup, evaluation=[item for item in setup.evaluation if item.id in used]), base)
    after_rows([(base.arm, base.round)])
    free = replace(how, **FREE)
    arms = {CONTINUAL: free} if how.uncontrolled or how == free else {}
    arms |= {CONTROLLED: how} if how != free else {}
    for arm, controls in arms.items():
        course = Course(setup, arm, controls, sequences, [[] for _ in sequences])
        for number in range(1, how.passages + 1):
            name = f"{arm}, after {number} passage{'s' * (number > 1)}"
            declare(setup, Row(arm, number, name, "continual", None, base.student, 1))
            write_next(course, number)
            update(course, number)
            ask_so_far(course, number)
            after_rows([(arm, number)])


def draw(items: Sequence[Any], how: Continual, seed: int) -> list[list[Any]]:
    """The items of each sequence, in their order; those of one sequence differ."""
    random, found = np.random.default_rng(seeds.sequences(seed)), []
    while len(found) < how.sequences:
        order = random.permutation(len(items))
        for begin in range(0, len(items) - how.passages + 1, how.passages):
            found.append([items[place] for place in order[begin : begin + how.passages]])
    return found[: how.sequences]


def update(course: Course, number: int) -> None:
    """Every sequence learns its next passage, and what it learned is merged or undone."""
    recorder, stage = course.setup.recorder, Stage(EVALUATION, course.arm, number, TEACH)
    everyone = range(len(course.sequences))
    left = [
        s for s in everyone
        if not recorder.updates.has_all([(course.arm, number, s)])
        or number not in checkpoint.steps(course.checkpoints(s))
    ]  # fmt: skip
    if left:
        with recorder.phase(stage), recorder.progress(stage, len(everyone), len(everyone) - len(left)) as progress:
            for part in course.students(left, [course.learned[s] for s in left]):
                records, adapters = update_some(course, part, number)
                for s, adapter in adapters.items():
                    checkpoint.save(course.checkpoints(s), number, adapter)
                recorder.updates.append(records)
                progress.advance(len(records))
    for s in everyone:
        course.learned[s].append(checkpoint.load(course.checkpoints(s), number))


def update_some(course: Course, students: Students, number: int) -> tuple[list[dict], dict[int, dict]]:
    """(records, {sequence: the adapter that is merged}) of the update of some sequences."""
    config, how, seed = course.setup.config, course.how, course.setup.config.seed
    replayed = {s: drawn(how, seed, number, s) for s in students.numbers}
    neutral = {s: drawn_texts(course, number, s) for s in students.numbers}
    inner = replace(config.inner, layers=how.layers or config.inner.layers)
    tasks = []
    for s in students.numbers:
        again = tuple(example for k in replayed[s] for example in lesson(course, s, k).examples)
        start = seeds.adapter(seed, number, course.sequences[s][number - 1], s)
        order = seeds.order(seed, number, 0)
        beside = tuple(Example(None, course.setup.neutral[k], closing=False) for k in neutral[s])
        tasks.append(Task(lesson(course, s, number), again, start, order, how.replay_objective == "kl", beside))
    found = dict(zip(students.numbers, learn(students, tasks, inner), strict=True))
    adapters = {s: scaled(one.adapter, how.merge_scale) for s, one in found.items()}
    rises = rise(course, adapters, number) if how.gate and number > 1 else {}
    undone = {s for s, value in rises.items() if not value <= how.gate}
    records = [
        {
            "arm": course.arm,
            "round": number,
            "sequence": s,
            "item": course.sequences[s][number - 1].id,
            "replayed": [course.sequences[s][k - 1].id for k in replayed[s]],
            "neutral": neutral[s],
            "lessons": one.rows,
            "tokens": one.tokens,
            "steps": one.steps,
            "loss": one.loss,
            "failure": one.failure,
            "rise": rises.get(s),
            "undone": s in undone,
        }
        for s, one in found.items()
    ]
    return records, {s: scaled(adapter, 0.0) if s in undone else adapter for s, adapter in adapters.items()}


def drawn(how: Continual, seed: int, number: int, sequence: int) -> list[int]:
    """The earlier updates of a sequence, counted from 1, whose self-edits come again in update `number`."""
    random = np.random.default_rng(seeds.replay(seed, number, sequence))
    return sorted((1 + random.permutation(number - 1)[: how.replay]).tolist())


def drawn_texts(course: Course, number: int, sequence: int) -> list[int]:
    """Which of the neutral texts, counted from 0, stand in the lesson of update `number`."""
    if not course.how.neutral:
        return []
    random = np.random.default_rng(seeds.neutral(course.setup.config.seed, number, sequence))
    return sorted(random.permutation(len(course.setup.neutral))[: course.how.neutral_texts].tolist())


def ask_so_far(course: Course, number: int) -> None:
    """Ask every sequence about the passages that it has seen."""
    evaluation, recorder = course.setup.config.evaluation, course.setup.recorder
    stage = Stage(EVALUATION, course.arm, number, ANSWER)
    seen = {s: items[:number] for s, items in enumerate(course.sequences)}
    wanted = {s: [stage.trial(item.id, s, 0) for item in items] for s, items in seen.items()}
    left = [s for s in seen if not recorder.trials.has_all(wanted[s])]

    def groups() -> Iterator[list[dict]]:
        for part in course.students(left, [course.learned[s] for s in left]):
            plan = Plan(stage, course.setup.config.inner, evaluation.answer_tokens, (course.setup.config.seed, number),
                        evaluation.likelihood)  # fmt: skip
            asked = [seen[s] for s in part.numbers]
            answered = ask_items(part.actor, part.adapters(), asked, course.setup.domain, plan)
            yield [record | {"sample": s} for s, found in zip(part.numbers, answered, strict=True) for record in found]

    if left:
        recorder.fill(stage, recorder.trials, [key for keys in wanted.values() for key in keys], groups())
