"""The training set that a self-edit makes of a task's demonstrations (arXiv 2506.10943, few-shot learning).

1. Leave-one-out and leave-two-out tasks: each demonstration in turn is the test pair, and the context is all the
   others, or all the others but one. So a task of two demonstrations also gives tasks without any demonstration.
2. Beside each of these tasks, a copy of it for every function of the families that the self-edit turns on.
3. Of every task so far, a copy with its demonstrations in random order and, when any family is on, with permuted
   colours.

Duplicates are removed, and so are tasks with a side over 30 cells. The rest is put in random order.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from seal_jax.domains.arc import augment, text
from seal_jax.domains.arc.augment import Augmentation
from seal_jax.domains.arc.edit import ALL_TOKENS, Configuration, DataGeneration
from seal_jax.domains.arc.grids import LARGEST, ArcTask, key, longest_side
from seal_jax.domains.domain import Example


@dataclass(frozen=True)
class Limits:
    """How much an inner loop is trained on.

    examples: at most so many. tokens: each example has fewer. steps: a self-edit that needs more optimizer steps fails.
    """

    examples: int = 250
    tokens: int = 8192
    steps: int = 375


def training_set(
    task: ArcTask,
    configuration: Configuration,
    seed: tuple[int, ...],
    length: Callable[[Example], int],
    form: text.Form,
    limits: Limits,
) -> list[Example]:
    """At most `limits.examples` training examples in random order; none if all are too long.

    seed: integers of at least 0; the same seed gives the same examples. length: counts the tokens of an example; it is
    called only until there are enough examples.
    """
    chosen: list[Example] = []
    for made in training_tasks(task, configuration.data_generation, seed):
        if len(chosen) == limits.examples:
            break
        example = text.example(made, configuration.training.strategy == ALL_TOKENS, form)
        if length(example) < limits.tokens:
            chosen.append(example)
    return chosen


def training_tasks(task: ArcTask, families: DataGeneration, seed: tuple[int, ...]) -> list[ArcTask]:
    """All training tasks, each with one test pair, distinct, no side over 30 cells, in random order."""
    rng = np.random.default_rng(seed)
    plain = leave_out(task, 1) + leave_out(task, 2)
    made = list(plain)
    for original in plain:
        made += [augment.augmented(original, function) for function in augmentations(families, rng)]
    made = _distinct(made)
    any_family = any(vars(families).values())
    copies = []
    for original in made:
        copy = augment.permute_colors(original, rng) if any_family else original
        copies.append(augment.permute_demonstrations(copy, rng))
    made = _distinct(made + copies)
    return [made[i] for i in rng.permutation(len(made))]


def leave_out(task: ArcTask, count: int) -> list[ArcTask]:
    """Tasks that each have one demonstration as the test pair and lack `count` (1 or 2) of them in their context.

    The test pair is always one of those left out; a context may be empty.
    """
    found = []
    for asked, pair in enumerate(task.train):
        others = [i for i in range(len(task.train)) if i != asked]
        contexts = [others] if count == 1 else [[i for i in others if i != left] for left in others]
        found += [ArcTask(task.id, tuple(task.train[i] for i in context), (pair,)) for context in contexts]
    return found


def augmentations(families: DataGeneration, rng: np.random.Generator) -> list[Augmentation]:
    """The functions of the families that are on; each call draws a new shift for the basic family."""
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
    """The tasks without duplicates (the first of equals stays) and without those that have a side over 30 cells."""
    return list({key(task): task for task in tasks if longest_side(task) <= LARGEST}.values())
