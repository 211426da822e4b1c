"""Continued pretraining (arXiv 2506.10943, knowledge incorporation with many passages):

    self-edits of every passage -> one training on all of them -> questions about all passages, a row for each lesson

An adapter or all weights are trained, as `pretraining.sft` says. What is recorded is not computed again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from seal_jax import seeds
from seal_jax.config import Training
from seal_jax.domains.domain import Domain, Example
from seal_jax.experiments.rounds import AfterRows, Row, Setup, control_row, declare, evaluate
from seal_jax.outer.rollouts import write
from seal_jax.runs import checkpoint
from seal_jax.runs.keys import ANSWER, EVALUATION, OWN, TEACH, Stage
from seal_jax.student.actor import Actor
from seal_jax.student.measure import measure
from seal_jax.student.merge import merge
from seal_jax.student.train import teach
from seal_jax.student.trials import Plan, Trial

Texts = Mapping[str, Sequence[str]]  # {item id: the self-edits that are learned from}


def run(setup: Setup, after_rows: AfterRows) -> Actor:
    """The rows of the domain's rules, then a row for each number of self-edits; returns the student of the last row."""
    passages = [*setup.train, *setup.evaluation]
    for control in setup.domain.controls():
        row = control_row(setup, control)
        if control.text is None:
            evaluate(setup, row)
        else:
            measure_row(setup, row, {item.id: [control.text(item, 0)] for item in passages})
        after_rows([(row.arm, row.round)])
    how = setup.config.pretraining
    counts, stage = sorted(set(how.samples)), Stage(EVALUATION, OWN, 0)
    author, seed = setup.teaches(setup.policy), (setup.config.seed, 0)
    edits = write(author, passages, counts[-1], stage, seed, setup.recorder)
    for count in counts:
        name = f"{count} self-edit{'s' * (count > 1)} each"
        row = Row(OWN, count, name, "policy", author, setup.student_of(setup.policy), count)
        texts = {item: [edit.text for edit in found[:count] if not edit.missing] for item, found in edits.items()}
        measure_row(setup, row, texts)
        after_rows([(row.arm, row.round)])
    return taught(setup, row)


def measure_row(setup: Setup, row: Row, texts: Texts) -> None:
    """Train the row's student on the texts of all passages, and ask it about them."""
    declare(setup, row)
    config, stage = setup.config, Stage(EVALUATION, row.arm, row.round)
    wanted = [replace(stage, purpose=ANSWER).trial(item.id, 0, 0) for item in setup.evaluation]
    if setup.recorder.trials.has_all(wanted):
        return
    if row.round not in checkpoint.steps(_folder(setup, row)):
        lesson = examples(setup, row.domain or setup.domain, texts)
        training = with_warmup(config.pretraining.sft, config.pretraining.warmup_share, len(lesson))
        with setup.recorder.shown(replace(stage, purpose=TEACH)) as facts:
            learned, loss = teach(row.student, lesson, training, seeds.teach(config.seed, 0))
            facts |= {"lessons": len(lesson), "loss": loss if np.isfinite(loss) else None}
        if not np.isfinite(loss):
            print(f"{row.name}: its training diverged, and it is asked as it was before; lower "
                  "config.pretraining.sft.learning_rate", flush=True)  # fmt: skip
        checkpoint.save(_folder(setup, row), row.round, learned)
    plan = Plan(
        replace(stage, purpose=ANSWER), config.inner, config.evaluation.answer_tokens, (config.seed, 0),
        config.evaluation.likelihood,
    )  # fmt: skip
    trials = [Trial(item, None) for item in setup.evaluation]
    measure(taught(setup, row), trials, row.domain or setup.domain, plan, setup.recorder)


def examples(setup: Setup, domain: Domain, texts: Texts) -> list[Example]:
    """The training sequences of all passages: those of its self-edits, then what every lesson on it has, such as the
    passage itself, once."""
    length, found = setup.student_of(setup.policy).length, []
    for item in [*setup.train, *setup.evaluation]:
        seed = seeds.lesson(setup.config.seed, 0, item, 0)
        always = domain.lesson(item, "", seed, length).examples
        for text in texts[item.id]:
            found += [one for one in domain.lesson(item, text, seed, length).examples if one not in always]
        found += always
    return found


def with_warmup(training: Training, share: float, lessons: int) -> Training:
    """The training with so many warm-up steps as the share of its steps says, rounded up, where it names none."""
    steps = training.epochs * math.ceil(lessons / (training.batch_size * training.accumulation))
    return training if training.warmup_steps else replace(training, warmup_steps=math.ceil(share * steps))


def taught(setup: Setup, row: Row) -> Actor:
    """The row's student with what it learned in its weights, from the checkpoint."""
    return merge(row.student, checkpoint.load(_folder(setup, row), row.round), setup.config.pretraining.sft)


def _folder(setup: Setup, row: Row) -> str:
    return f"{setup.recorder.checkpoints}/{row.arm}"
