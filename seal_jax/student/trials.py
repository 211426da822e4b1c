"""Trials: a student is trained on a self-edit and asked about its item. From lists of them to records.

A trial is one inner loop: (item, self-edit, retrain) -> loss, log-likelihood of the right answers, answers, verdicts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seal_jax import seeds
from seal_jax.config import Training
from seal_jax.domains.domain import Domain, Graded, Lesson, Quiz
from seal_jax.engine.packing import Candidate, steps_of
from seal_jax.engine.recipe import recipe
from seal_jax.errors import UserError
from seal_jax.runs.keys import Stage
from seal_jax.student.actor import Actor
from seal_jax.student.ask import Answers, ask
from seal_jax.student.train import Adapters, Loop, candidate, chunks, diverged, last_epoch_mean, train


@dataclass(frozen=True)
class Trial:
    """One inner loop to run. `text` None trains nothing: the student as it is.

    stage: of its record, where that is not the plan's; hyper: (learning rate, epochs), where they are not the lesson's.
    """

    item: Any
    text: str | None
    sample: int = 0
    retrain: int = 0
    stage: Stage | None = None
    hyper: tuple[float, int] | None = None


@dataclass(frozen=True)
class Plan:
    """How the trials of a stage run: inner loop, longest answer in tokens (0: none), (run seed, round), and whether the
    log-likelihoods of gold answers are measured."""

    stage: Stage
    training: Training
    answer_tokens: int
    seed: tuple[int, int]
    likelihood: bool = True


def run_trials(student: Actor, trials: Sequence[Trial], domain: Domain, plan: Plan) -> Iterator[list[dict]]:
    """Records of trials, group by group, in an order that the trials alone decide.

    Raises UserError where a judge gives no verdict at all, so that a run does not go on without rewards.
    """
    lessons = [lesson_of(student, trial, domain, plan) for trial in trials]
    candidates = [_candidate(student, *pair, plan) for pair in zip(trials, lessons, strict=True)]
    quizzes = {trial.item.id: domain.quiz(trial.item, student.chat) for trial in trials}
    if not plan.likelihood:
        quizzes = {item: replace(quiz, gold=()) for item, quiz in quizzes.items()}
    asked = [max(len(quizzes[t.item.id].prompts) if plan.answer_tokens else 0, 1) for t in trials]
    for group in groups(student, candidates, plan.training, asked):
        adapters = None
        if candidates[group[0]].rows:
            adapters = train(student, [candidates[i] for i in group], plan.training)
        asking = [quizzes[trials[i].item.id] for i in group]
        answers = ask(student, adapters, asking, plan.answer_tokens, domain.answer_stops)
        graded = _grade(domain, [trials[i].item for i in group], answers, plan)
        losses = [np.array([])] * len(group) if adapters is None else adapters.losses
        yield [
            {
                **(trials[i].stage or plan.stage).fields,
                "item": trials[i].item.id,
                "sample": trials[i].sample,
                "retrain": trials[i].retrain,
                "sequences": len(candidates[i].rows),
                "tokens": sum(len(row.tokens) for row in candidates[i].rows),
                "steps": steps_of(candidates[i], recipe(plan.training).batch),
                "loss": last_epoch(losses[place], candidates[i].epochs),
                "losses": by_epoch(losses[place], candidates[i].epochs),
                "failure": _failure(lessons[i], losses[place], answers[place]),
                **_asked(asking[place], answers[place], graded[place], lessons[i]),
                "judge": domain.grader if plan.answer_tokens else None,
            }
            for place, i in enumerate(group)
        ]


def ask_items(
    student: Actor, adapters: Adapters, items: Sequence[Sequence[Any]], domain: Domain, plan: Plan
) -> list[list[dict]]:
    """Records of trials in which nothing is trained: each adapter is asked about several items of its own."""
    asked = [(lane, item, domain.quiz(item, student.chat)) for lane, found in enumerate(items) for item in found]
    if not plan.likelihood:
        asked = [(lane, item, replace(quiz, gold=())) for lane, item, quiz in asked]
    joined = [_joined([quiz for lane, _, quiz in asked if lane == number]) for number in range(len(items))]
    said = ask(student, adapters, joined, plan.answer_tokens, domain.answer_stops)
    answers = [_take(said[lane], quiz) for lane, _, quiz in asked]
    graded = _grade(domain, [item for _, item, _ in asked], answers, plan)
    records: list[list[dict]] = [[] for _ in items]
    for (lane, item, quiz), found, verdicts in zip(asked, answers, graded, strict=True):
        records[lane].append(
            {
                **plan.stage.fields,
                "item": item.id,
                **{"sample": 0, "retrain": 0, "sequences": 0, "tokens": 0, "steps": 0, "loss": None},
                "losses": [],
                "failure": _failure(Lesson(), np.array([]), found),
                **_asked(quiz, found, verdicts, Lesson()),
                "judge": domain.grader if plan.answer_tokens else None,
            }
        )
    return records


def _joined(quizzes: Sequence[Quiz]) -> Quiz:
    """All questions of several quizzes as one."""
    parts = ([part for quiz in quizzes for part in getattr(quiz, name)] for name in ("prompts", "gold", "heldout"))
    return Quiz(*map(tuple, parts))


def _take(said: Answers, quiz: Quiz) -> Answers:
    """The answers to the first quiz of a joined one, which are taken out of `said`."""

    def first(values: list | None, count: int) -> list | None:
        if values is None:
            return None
        taken, values[:count] = values[:count], []
        return taken

    counts = len(quiz.prompts), len(quiz.prompts), len(quiz.gold)
    return Answers(*map(first, (said.texts, said.cut, said.log_likelihood), counts))


def groups(
    student: Actor, candidates: Sequence[Candidate], training: Training, asked: Sequence[int]
) -> list[list[int]]:
    """Indices of inner loops that are trained and then asked together, first those that train nothing.

    Whole chunks are put together while their questions (`asked`, of each loop) fit `engine.answer_rows`: a decoding
    step costs little more for many rows than for a few.
    """
    rows = student.engine.settings.question_rows
    idle = [i for i, loop in enumerate(candidates) if not loop.rows]
    busy = [i for i, loop in enumerate(candidates) if loop.rows]
    trained = set(busy)
    pieces = [[i] for i in idle]
    found, total = [], 0
    if busy:
        pieces += [[busy[i] for i in chunk] for chunk in chunks(student, [candidates[i] for i in busy], training)]
    for piece in pieces:
        questions, trains = sum(asked[i] for i in piece), piece[0] in trained
        if found and trains == (found[-1][0] in trained) and total + questions <= rows:
            found[-1] += piece
            total += questions
        else:
            found.append(list(piece))
            total = questions
    return found


def lesson_of(student: Actor, trial: Trial, domain: Domain, plan: Plan) -> Lesson:
    """What a trial trains on; nothing where it has no self-edit."""
    if trial.text is None:
        return Lesson()
    seed = seeds.lesson(*plan.seed, trial.item, trial.retrain)
    lesson = domain.lesson(trial.item, trial.text, seed, student.length)
    if trial.hyper is None:
        return lesson
    rate, epochs = trial.hyper
    return replace(lesson, learning_rate=rate, epochs=epochs)


def _candidate(student: Actor, trial: Trial, lesson: Lesson, plan: Plan) -> Candidate:
    start = seeds.adapter(*plan.seed, trial.item, trial.retrain)
    return candidate(student, Loop(lesson, start, seeds.order(*plan.seed, trial.retrain)), plan.training)


def _failure(lesson: Lesson, losses: np.ndarray, answers: Answers) -> str | None:
    """Why a trial cannot be counted as training: its self-edit was of no use, or its training diverged."""
    if lesson.failure:
        return lesson.failure
    unknown = "diverged: a log-likelihood is not a number" if None in answers.log_likelihood else None
    return diverged(losses) or unknown


def _asked(quiz: Quiz, answers: Answers, graded: Graded | None, lesson: Lesson) -> dict:
    """What a record holds of the questions: likelihoods, answers with verdicts, which of them are held out."""
    shown = _shown(graded, answers, lesson)
    return {"log_likelihood": answers.log_likelihood, **shown, "heldout": list(quiz.heldout)}


def _shown(graded: Graded | None, answers: Answers, lesson: Lesson) -> dict:
    """Answers and verdicts as they are recorded; None where nothing was asked."""
    if graded is None:
        return {"answers": None, "correct": None, "probability": None, "cut": None}
    verdicts, chances = graded.verdicts, graded.probabilities
    if lesson.failure:
        verdicts, chances = [False] * len(verdicts), chances and [0.0] * len(chances)
    return {"answers": graded.answers, "correct": verdicts, "probability": chances, "cut": answers.cut}


def _grade(domain: Domain, items: Sequence[Any], answers: Sequence[Answers], plan: Plan) -> list[Graded | None]:
    """Verdicts on the answers to the quiz of each item; None where nothing was asked."""
    if not plan.answer_tokens:
        return [None] * len(items)
    graded = domain.grade([(item, found.texts) for item, found in zip(items, answers, strict=True)])
    _check_judge(graded, domain)
    return graded


def _check_judge(graded: Sequence[Graded], domain: Domain) -> None:
    verdicts = [verdict for one in graded for verdict in one.verdicts]
    if verdicts and all(verdict is None for verdict in verdicts):
        raise UserError(
            f"the judge {domain.grader} gave no verdict on any of {len(verdicts)} answers; see that it works, then "
            "start the same command again to continue"
        )


def last_epoch(losses: np.ndarray, epochs: int) -> float | None:
    """Mean loss of the last epoch's steps, in nats per token; None where nothing was trained or it is not a number."""
    if not len(losses):
        return None
    mean = last_epoch_mean(losses, epochs)
    return mean if np.isfinite(mean) else None


def by_epoch(losses: np.ndarray, epochs: int) -> list[float | None]:
    """Mean loss of the steps of each epoch, in nats per token, to four decimals; None for what is not a number."""
    if not len(losses):
        return []
    means = losses.reshape(epochs, -1).mean(axis=1)
    return [round(float(mean), 4) if np.isfinite(mean) else None for mean in means]
