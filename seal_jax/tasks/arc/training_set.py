"""The training set that a self-edit makes of a task's demonstrations (arXiv 2506.10943, few-shot learning).

1. Leave-one-out and leave-two-out tasks: each demonstration in turn is the test pair, and the context is all the
   others, or all the others but one. A context has at least one demonstration.
2. Each of them augmented by every function of the families that the self-edit turns on, beside the tasks themselves.
3. A copy of each with its demonstrations permuted and, when any family is on, its colours as well.

Duplicates go, and so do tasks with a side over 30 cells. What is left is put in random order.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from seal_jax.tasks.arc import augment, text
from seal_jax.tasks.arc.augment import Augmentation
from seal_jax.tasks.arc.edit import ALL_TOKENS, DataGeneration, SelfEdit
from seal_jax.tasks.arc.grids import LARGEST, ArcTask, key, longest_side
from seal_jax.tasks.task import Example


@dataclass(frozen=True)
class Limits:
    """At most `examples` of them, each of fewer than `tokens` tokens."""

    examples: int = 250
    tokens: int = 8192


def training_set(
    task: ArcTask,
    edit: SelfEdit,
    seed: tuple[int, ...],
    tokens: Callable[[Example], int],
    form: text.Form,
    limits: Limits,
) -> list[Example]:
    """Training examples, in random order; the same for the same seed (numbers from 0). May be empty.

    tokens: how many tokens an example has. It is asked only until there are enough examples.
    """
    chosen: list[Example] = []
    for made in training_tasks(task, edit.data_generation, seed):
        if len(chosen) == limits.examples:
            break
        example = text.example(made, edit.training.strategy == ALL_TOKENS, form)
        if tokens(example) < limits.tokens:
            chosen.append(example)
    return chosen


def training_tasks(task: ArcTask, families: DataGeneration, seed: tuple[int, ...]) -> list[ArcTask]:
    """All training tasks, each with one test pair, distinct, no side over 30 cells, in random order."""
    rng = np.random.default_rng(seed)
    plain = leave_out(task, 1) + leave_out(task, 2)
    made = list(plain)
    for original in plain:
        made += [augment.map_grids(original, a.apply) for a in augmentations(families, rng)]
    made = _distinct(made)
    any_family = any(vars(families).values())
    copies = []
    for original in made:
        copy = augment.permute_colors(original, rng) if any_family else original
        copies.append(augment.permute_demonstrations(copy, rng))
    made = _distinct(made + copies)
    return [made[i] for i in rng.permutation(len(made))]


def leave_out(task: ArcTask, count: int) -> list[ArcTask]:
    """Tasks with each demonstration as the test pair and `count` (1 or 2) of them, that one included, left out."""
    found = []
    for asked, pair in enumerate(task.train):
        others = [i for i in range(len(task.train)) if i != asked]
        contexts = [others] if count == 1 else [[i for i in others if i != left] for left in others]
        found += [ArcTask(task.id, tuple(task.train[i] for i in context), (pair,)) for context in contexts if context]
    return found


def augmentations(families: DataGeneration, rng: np.random.Generator) -> list[Augmentation]:
    """The functions of the families that are on; how far the shift goes is drawn anew."""
    chosen: list[Augmentation] = []
    if families.use_basic_augmentations:
        chosen += [*augment.BASIC, augment.random_shift(rng)]
    if families.use_size_augmentations:
        chosen += augment.SIZE
    if families.use_chain_augmentations:
        chosen += augment.CHAIN
    if families.use_repeat_augmentations:
        chosen += augment.REPEAT
    return chosen


def _distinct(tasks: Iterable[ArcTask]) -> list[ArcTask]:
    """The first of each kind, of those that fit into 30 by 30."""
    return list({key(task): task for task in tasks if longest_side(task) <= LARGEST}.values())
