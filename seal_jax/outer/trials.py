"""E-step, second half: a student is trained on each self-edit and asked about the passage without seeing it.

A trial is one inner loop: (passage, self-edit, retrain) -> loss, log-likelihood of the gold answers, answers, verdicts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from seal_jax.config import Training
from seal_jax.engine.packing import Candidate, plan_chunks, steps_of
from seal_jax.judges.item import Item
from seal_jax.outer.actor import Actor, recipe
from seal_jax.outer.edits import passage_number
from seal_jax.tasks.corpus import Passage
from seal_jax.tasks.knowledge import Rules, answer_example, question_prompt, training_examples


@dataclass(frozen=True)
class Trial:
    """One inner loop to run. Without a completion nothing is trained: the student as it is."""

    passage: Passage
    completion: str | None
    sample: int
    retrain: int


@dataclass(frozen=True)
class TrialPlan:
    """How a stage's trials run: rules for training data, inner loop, answer length (0: do not ask), judge, seed."""

    stage: str
    rules: Rules
    training: Training
    answer_tokens: int
    judge: Callable
    seed: tuple[int, int]  # run seed, round


def trial_key(plan: TrialPlan, trial: Trial) -> tuple:
    """What names a trial in the records."""
    return plan.stage, trial.passage.id, trial.sample, trial.retrain


def run_trials(student: Actor, trials: Sequence[Trial], plan: TrialPlan, done) -> Iterator[list[dict]]:
    """Records of trials, chunk by chunk; chunks of which `done(keys)` says that all are recorded are passed over."""
    how = recipe(plan.training)
    candidates = [_candidate(student, trial, plan) for trial in trials]
    chunks = plan_chunks(candidates, how.batch, student.engine.settings.candidates)
    for group in _groups(chunks, trials, student.engine.settings.decode_rows if plan.answer_tokens else 0):
        order = [i for chunk in group for i in chunk]
        members = [trials[i] for i in order]
        if done([trial_key(plan, trial) for trial in members]):
            continue
        trained = [student.engine.finetune(student.base, [candidates[i] for i in chunk], how) for chunk in group]
        adapters = student.engine.join([(part, len(chunk)) for (part, _), chunk in zip(trained, group, strict=True)])
        losses = [losses[:, place] for _, losses in trained for place in range(losses.shape[1])]
        passages = [trial.passage for trial in members]
        likelihoods = _likelihoods(student, adapters, how.lora, passages)
        answers = [None] * len(members)
        if plan.answer_tokens:
            answers = _answers(student, adapters, how.lora, passages, plan.answer_tokens)
        verdicts = _judge(plan.judge, members, answers)
        yield [
            {
                "stage": plan.stage,
                "passage": trial.passage.id,
                "sample": trial.sample,
                "retrain": trial.retrain,
                "sequences": len(candidates[i].rows),
                "tokens": sum(len(row.tokens) for row in candidates[i].rows),
                "steps": steps_of(candidates[i], how.batch),
                "loss": _last_epoch(losses[place], candidates[i].epochs),
                "log_likelihood": likelihoods[place],
                "answers": answers[place],
                "correct": verdicts[place],
                "heldout": [question.heldout for question in trial.passage.questions],
                "judge": plan.judge.name if plan.answer_tokens else None,
            }
            for place, (i, trial) in enumerate(zip(order, members, strict=True))
        ]


def _groups(chunks: Sequence[list[int]], trials: Sequence[Trial], rows: int) -> list[list[list[int]]]:
    """Chunks that are asked together after each was trained: as many as bring up to `rows` questions, at least one.

    A decoding step costs little more for many rows than for a few.
    """
    groups, asked = [], 0
    for chunk in chunks:
        questions = sum(len(trials[i].passage.questions) for i in chunk)
        if groups and asked + questions <= rows:
            groups[-1].append(chunk)
            asked += questions
        else:
            groups.append([chunk])
            asked = questions
    return groups


def _candidate(student: Actor, trial: Trial, plan: TrialPlan) -> Candidate:
    examples = [] if trial.completion is None else training_examples(trial.passage, trial.completion, plan.rules)
    return Candidate(
        rows=tuple(student.row(example) for example in examples),
        learning_rate=plan.training.learning_rate,
        epochs=plan.training.epochs,
        warmup_steps=plan.training.warmup_steps,
        seed=(*plan.seed, passage_number(trial.passage), trial.sample, trial.retrain),
        order=(*plan.seed, trial.retrain),
    )


def _likelihoods(student: Actor, adapters, lora, passages: Sequence[Passage]) -> list[list[float]]:
    """Log-likelihood of each gold answer in nats per token -> [candidate][question]."""
    rows = [[student.row(answer_example(p, q, student.chat)) for q in p.questions] for p in passages]
    totals = student.engine.log_likelihood(student.base, adapters, lora, rows)
    return [
        [total / max(sum(row.weights), 1.0) for total, row in zip(lane, lane_rows, strict=True)]
        for lane, lane_rows in zip(totals, rows, strict=True)
    ]


def _answers(student: Actor, adapters, lora, passages: Sequence[Passage], limit: int) -> list[list[str]]:
    """Greedy answers to every question, without the passage -> [candidate][question]."""
    prompts = [
        [student.tokenizer.encode_prompt(question_prompt(p, q, student.chat)) for q in p.questions] for p in passages
    ]
    seeds = [[[(0,)] for _ in lane] for lane in prompts]
    greedy = student.rules(0.0, 1.0, 0)
    out = student.engine.generate(student.base, adapters, lora, prompts, seeds, greedy, limit)
    return [[student.tokenizer.decode(samples[0]).strip() for samples in lane] for lane in out]


def _judge(judge, trials: Sequence[Trial], answers: Sequence[list[str] | None]) -> list[list[bool | None] | None]:
    """One call for all answers, so that a judge that works in batches can."""
    items = [
        Item(question.question, question.answer, answer)
        for trial, lane in zip(trials, answers, strict=True)
        if lane is not None
        for question, answer in zip(trial.passage.questions, lane, strict=True)
    ]
    verdicts = iter(judge(items) if items else [])
    return [None if lane is None else [next(verdicts) for _ in lane] for lane in answers]


def _last_epoch(losses: np.ndarray, epochs: int) -> float | None:
    """Mean loss of the last epoch's steps, in nats per token; None where nothing was trained."""
    done = losses[~np.isnan(losses)]
    return float(done[-(len(done) // epochs) :].mean()) if len(done) else None
