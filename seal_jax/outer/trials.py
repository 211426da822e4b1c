"""E-step, second half: a student is trained on each self-edit and asked about the item.

A trial is one inner loop: (item, self-edit, retrain) -> loss, log-likelihood of the right answers, answers, verdicts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seal_jax.config import Training
from seal_jax.engine.budget import chunk_limit
from seal_jax.engine.packing import Candidate, plan_chunks, steps_of
from seal_jax.outer.actor import Actor, recipe
from seal_jax.tasks.task import Example, Graded, Lesson, Task, item_number


@dataclass(frozen=True)
class Trial:
    """One inner loop to run. Without a self-edit nothing is trained: the student as it is."""

    item: Any
    edit: str | None
    sample: int
    retrain: int


@dataclass(frozen=True)
class TrialPlan:
    """How a stage's trials run: inner loop, answer length (0: do not ask), seed."""

    stage: str
    training: Training
    answer_tokens: int
    seed: tuple[int, int]  # run seed, round


def trial_key(plan: TrialPlan, trial: Trial) -> tuple:
    """What names a trial in the records."""
    return plan.stage, trial.item.id, trial.sample, trial.retrain


def run_trials(student: Actor, trials: Sequence[Trial], task: Task, plan: TrialPlan, done) -> Iterator[list[dict]]:
    """Records of trials, chunk by chunk; chunks of which `done(keys)` says that all are recorded are passed over."""
    how = recipe(plan.training)
    lessons = [lesson_of(student, trial, task, plan) for trial in trials]
    candidates = [candidate_of(student, *pair, plan) for pair in zip(trials, lessons, strict=True)]
    chunks = plan_chunks(candidates, how.batch, chunk_limit(student.engine, student.base, candidates, how))
    questions = {trial.item.id: task.questions(trial.item, student.chat) for trial in trials}
    asked = [len(questions[trial.item.id]) for trial in trials]
    for group in _groups(chunks, asked, student.engine.settings.decode_rows if plan.answer_tokens else 0):
        order = [i for chunk in group for i in chunk]
        members = [trials[i] for i in order]
        if done([trial_key(plan, trial) for trial in members]):
            continue
        trained = [student.engine.finetune(student.base, [candidates[i] for i in chunk], how) for chunk in group]
        adapters = student.engine.join([(part, len(chunk)) for (part, _), chunk in zip(trained, group, strict=True)])
        losses = [losses[:, place] for _, losses in trained for place in range(losses.shape[1])]
        gold = [task.gold(trial.item, student.chat) for trial in members]
        likelihoods = _likelihoods(student, adapters, how.lora, gold)
        graded = [None] * len(members)
        if plan.answer_tokens:
            prompts = [questions[trial.item.id] for trial in members]
            answers = _answers(student, adapters, how.lora, prompts, plan.answer_tokens, task.answer_stops)
            graded = task.grade([(trial.item, lane) for trial, lane in zip(members, answers, strict=True)])
        yield [
            {
                "stage": plan.stage,
                "passage": trial.item.id,
                "sample": trial.sample,
                "retrain": trial.retrain,
                "sequences": len(candidates[i].rows),
                "tokens": sum(len(row.tokens) for row in candidates[i].rows),
                "steps": steps_of(candidates[i], how.batch),
                "failure": lessons[i].failure,
                "loss": _last_epoch(losses[place], candidates[i].epochs),
                "log_likelihood": likelihoods[place],
                **_shown(graded[place], lessons[i]),
                "heldout": task.heldout(trial.item),
                "judge": task.grader if plan.answer_tokens else None,
            }
            for place, (i, trial) in enumerate(zip(order, members, strict=True))
        ]


def _groups(chunks: Sequence[list[int]], asked: Sequence[int], rows: int) -> list[list[list[int]]]:
    """Chunks that are asked together after each was trained: as many as bring up to `rows` questions, at least one.

    A decoding step costs little more for many rows than for a few. `asked`: questions of each trial.
    """
    groups, total = [], 0
    for chunk in chunks:
        questions = sum(asked[i] for i in chunk)
        if groups and total + questions <= rows:
            groups[-1].append(chunk)
            total += questions
        else:
            groups.append([chunk])
            total = questions
    return groups


def lesson_of(student: Actor, trial: Trial, task: Task, plan: TrialPlan) -> Lesson:
    """What a trial trains on; nothing where it has no self-edit."""

    def length(example: Example) -> int:
        return len(student.tokenizer.encode_example(example)[0])

    return Lesson() if trial.edit is None else task.lesson(trial.item, trial.edit, _seed(trial, plan), length)


def candidate_of(student: Actor, trial: Trial, lesson: Lesson, plan: TrialPlan) -> Candidate:
    """The inner loop of a lesson, in tokens."""
    return Candidate(
        rows=tuple(student.row(example) for example in lesson.examples),
        learning_rate=lesson.learning_rate,
        epochs=lesson.epochs,
        warmup_steps=plan.training.warmup_steps,
        seed=_seed(trial, plan),
        order=(*plan.seed, trial.retrain),
    )


def _seed(trial: Trial, plan: TrialPlan) -> tuple[int, ...]:
    return (*plan.seed, item_number(trial.item), trial.sample, trial.retrain)


def _likelihoods(student: Actor, adapters, lora, gold: Sequence[Sequence[Example]]) -> list[list[float]]:
    """Log-likelihood of each right answer in nats per token -> [candidate][question]."""
    rows = [[student.row(example) for example in lane] for lane in gold]
    totals = student.engine.log_likelihood(student.base, adapters, lora, rows)
    return [
        [total / max(sum(row.weights), 1.0) for total, row in zip(lane, lane_rows, strict=True)]
        for lane, lane_rows in zip(totals, rows, strict=True)
    ]


def _answers(student: Actor, adapters, lora, questions, limit: int, stops: Sequence[str]) -> list[list[str]]:
    """Greedy answers to every question -> [candidate][question]."""
    prompts = [[student.tokenizer.encode_prompt(prompt) for prompt in lane] for lane in questions]
    seeds = [[[(0,)] for _ in lane] for lane in prompts]
    greedy, stopped = student.rules(0.0, 1.0, 0), student.stopper(stops)
    out = student.engine.generate(student.base, adapters, lora, prompts, seeds, greedy, limit, stopped)
    return [[student.tokenizer.decode(samples[0]).strip() for samples in lane] for lane in out]


def _shown(graded: Graded | None, lesson: Lesson) -> dict:
    """Answers and verdicts as they are recorded; None where nothing was asked."""
    if graded is None:
        return {"answers": None, "correct": None}
    failed = [False] * len(graded.verdicts)
    return {"answers": graded.answers, "correct": failed if lesson.failure else graded.verdicts}


def _last_epoch(losses: np.ndarray, epochs: int) -> float | None:
    """Mean loss of the last epoch's steps, in nats per token; None where nothing was trained."""
    done = losses[~np.isnan(losses)]
    return float(done[-(len(done) // epochs) :].mean()) if len(done) else None
