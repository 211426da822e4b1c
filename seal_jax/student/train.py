"""Lessons become adapters: many inner loops over one base at a time, or one model on all devices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from seal_jax.config import Training
from seal_jax.domains.domain import Example, Lesson
from seal_jax.engine.budget import chunk_limit
from seal_jax.engine.packing import Candidate, Lanes, plan_chunks
from seal_jax.engine.recipe import recipe
from seal_jax.model.lora import LoraConfig
from seal_jax.parallel import fetch
from seal_jax.seeds import Seed
from seal_jax.student.actor import Actor


@dataclass(frozen=True)
class Loop:
    """One inner loop: what is learned, the seed of its adapter's start, and that of its data order."""

    lesson: Lesson
    adapter: Seed
    order: Seed


@dataclass(frozen=True)
class Adapters:
    """Trained adapters on the device, for `ask`.

    tree: a leading axis of lanes; order: which loop each lane's adapter belongs to; losses: those of every step of each
    loop, in nats per token, in the order of the loops.
    """

    tree: dict
    lora: LoraConfig
    order: tuple[int, ...]
    losses: list[np.ndarray]


def candidate(student: Actor, loop: Loop, training: Training) -> Candidate:
    """An inner loop in tokens."""
    lesson = loop.lesson
    rows = tuple(student.row(example) for example in lesson.examples)
    lora = recipe(training).lora
    seed = loop.adapter[:2] if lora and lora.freeze_a else loop.adapter  # the start of it names the run alone
    return Candidate(rows, lesson.learning_rate, lesson.epochs, training.warmup_steps, seed=seed, order=loop.order)


def chunks(student: Actor, candidates: Sequence[Candidate], training: Training) -> list[list[int]]:
    """Indices of inner loops that train together: as many as `engine.candidates` or the memory budget allows."""
    how = recipe(training)
    limit = chunk_limit(student.engine, student.base, candidates, how)
    return plan_chunks(candidates, how.batch, limit)


def train(
    student: Actor, candidates: Sequence[Candidate], training: Training, past: Sequence[dict] | None = None
) -> Adapters:
    """Train inner loops, chunk by chunk, each with an adapter of its own that starts without effect.

    Where the objective is to distill, the student's own weights are the teacher, which reads every sequence once.
    past: an adapter for each loop, on the host and of the same scale, that it has already and that stays as it is.
    """
    how, parts, order = recipe(training), [], []
    if how.distillation:
        rows = [row for one in candidates for row in one.rows]
        taught = student.engine.with_targets(student.base, rows, how.distillation)
        candidates = [replace(one, rows=tuple(taught.get(row, row) for row in one.rows)) for one in candidates]
    losses: list = [None] * len(candidates)
    for chunk in chunks(student, candidates, training):
        frozen = [placed(student, [past[i] for i in chunk], how.lora).tree] if past is not None else []
        tree, found = student.engine.finetune(student.base, [candidates[i] for i in chunk], how, *frozen)
        parts.append((tree, len(chunk)))
        order += chunk
        for index, values in zip(chunk, found, strict=True):
            losses[index] = values
    return Adapters(student.engine.join(parts), how.lora, tuple(order), losses)


def adapter_of(student: Actor, adapters: Adapters, loop: int) -> dict:
    """The adapter of one loop on the host, without an axis of lanes."""
    total = jax.tree.leaves(adapters.tree)[0].shape[0]
    lane = Lanes(total, student.engine.layout.devices).of(adapters.order.index(loop))
    return jax.tree.map(lambda leaf: fetch(leaf[lane]), adapters.tree)


def placed(student: Actor, adapters: Sequence[dict], lora: LoraConfig) -> Adapters:
    """Adapters from the host on the devices, as if they had just been trained."""
    lanes = Lanes.holding(len(adapters), student.engine.layout.devices)
    tree = jax.tree.map(lambda *leaves: np.stack(leaves), *lanes.spread(adapters))
    on_devices = student.engine.layout.put_weights(tree, candidates=True)
    return Adapters(on_devices, lora, tuple(range(len(adapters))), [np.array([], np.float32)] * len(adapters))


def teach(
    model: Actor, examples: Sequence[Example], training: Training, seed: Seed, weights: Sequence[float] | None = None
) -> tuple[dict, float]:
    """Finetune one model on all devices -> (what it learned: an adapter, or all weights for rank 0; mean loss of the
    last epoch in nats per token).

    weights: how much each example counts (1 without them); the loss of a step stays a mean over its tokens.
    """
    rows = tuple(model.row(example) for example in examples)
    if weights is not None:
        pairs = zip(rows, weights, strict=True)
        rows = tuple(replace(row, weights=tuple(share * w for w in row.weights)) for row, share in pairs)
    learner = Candidate(rows, training.learning_rate, training.epochs, training.warmup_steps, seed, seed)
    learned, losses = model.engine.teach(model.base, learner, recipe(training))
    return learned, last_epoch_mean(losses, training.epochs)


def diverged(losses: np.ndarray) -> str | None:
    """That a training diverged, and at which step; None where all its losses are numbers."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    return f"diverged: the loss of step {wrong[0] + 1} of {len(losses)} is not a number" if len(wrong) else None


def last_epoch_mean(losses: np.ndarray, epochs: int) -> float:
    """Mean loss of the last epoch's steps."""
    return float(losses[-(len(losses) // epochs) :].mean())
