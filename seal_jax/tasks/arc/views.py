"""The questions that a trained model is asked about one test input, in several invertible views of the task.

Contexts are the demonstrations with one left out. Each is asked twice as it is, with its demonstrations in two orders;
each of five other views is asked once, about a context drawn at random (arXiv 2506.10943, few-shot learning). So a task
of n demonstrations gets 2n + 5 questions, whose answers `voting` counts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from seal_jax.tasks.arc import augment
from seal_jax.tasks.arc.grids import ArcTask, Grid, Pair

ORDERS = 2  # of the demonstrations of each context
IDENTITY = "identity"


def _same(grid: Grid) -> Grid:
    return grid


# name: (the view, its inverse)
VIEWS: dict[str, tuple[Callable[[Grid], Grid], Callable[[Grid], Grid]]] = {
    IDENTITY: (_same, _same),
    "transpose": (augment.transpose, augment.transpose),
    "flip 0": (augment.flip_0, augment.flip_0),
    "flip 1": (augment.flip_1, augment.flip_1),
    "rotate 90": (augment.rotate_90, augment.rotate_270),
    "rotate 180": (augment.rotate_180, augment.rotate_180),
}


@dataclass(frozen=True, eq=False)
class Viewed:
    """One question: a context and a test input, both seen in the view of that name."""

    view: str
    demonstrations: tuple[Pair, ...]
    test_input: Grid


def questions(task: ArcTask, test: int, seed: tuple[int, ...]) -> list[Viewed]:
    """All questions about the test input of that index, those of the identity view first.

    The two orders of a context differ where it has two demonstrations or more; with one there is one order, and n + 5
    questions. A task of one demonstration has that one as its context.
    """
    rng = np.random.default_rng(seed)
    contexts = [task.train[:i] + task.train[i + 1 :] for i in range(len(task.train))]
    if len(task.train) == 1:
        contexts = [task.train]
    asked = task.test[test].input
    found = [Viewed(IDENTITY, ordered, asked) for context in contexts for ordered in _orders(context, rng)]
    for view, (see, _) in VIEWS.items():
        if view != IDENTITY:
            context = contexts[rng.integers(len(contexts))]
            found.append(Viewed(view, augment.map_pairs(context, see), see(asked)))
    return found


def undo(view: str, grid: Grid) -> Grid:
    """An answer given in a view, as it stands in the task itself."""
    return VIEWS[view][1](grid)


def _orders(context: tuple[Pair, ...], rng: np.random.Generator) -> list[tuple[Pair, ...]]:
    """Random orders of a context, all different; fewer than ORDERS if there are no more."""
    orders: dict[tuple[int, ...], None] = {}
    while len(orders) < (1 if len(context) < 2 else ORDERS):
        orders[tuple(rng.permutation(len(context)).tolist())] = None
    return [tuple(context[i] for i in order) for order in orders]
