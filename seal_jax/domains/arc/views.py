"""The questions that a student is asked about one test input, in several invertible views of the task.

Every context is the demonstrations with one left out. Each context is shown in its own order and in two random ones;
then each of five other views shows one of these questions, drawn at random, with all its grids transformed. Questions
that equal an earlier one are left out. So a task of n demonstrations gets up to 3n + 5 questions (arXiv 2506.10943,
few-shot learning), and `voting` makes two attempts of their answers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from seal_jax.domains.arc import augment
from seal_jax.domains.arc.grids import ArcTask, Grid, Pair, key

PERMUTATIONS = 2  # of the demonstrations of each context, beside their own order
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
    """One question: demonstrations and a test input, all transformed as the view of that name does."""

    view: str
    demonstrations: tuple[Pair, ...]
    test_input: Grid


def questions(task: ArcTask, test: int, seed: tuple[int, ...]) -> list[Viewed]:
    """All questions about the test input of that index, all different, those of the identity view first.

    A task of one demonstration has that one as its only context. The same seed gives the same questions.
    """
    rng = np.random.default_rng(seed)
    asked = task.test[test].input
    plain = _distinct([Viewed(IDENTITY, shown, asked) for shown in _contexts(task.train, rng)])
    seen = []
    for view in VIEWS:
        if view != IDENTITY:
            seen.append(_see(view, plain[rng.integers(len(plain))]))
    return _distinct(plain + seen)


def undo(view: str, grid: Grid) -> Grid:
    """An answer given in a view, as it stands in the task itself."""
    return VIEWS[view][1](grid)


def _contexts(train: tuple[Pair, ...], rng: np.random.Generator) -> Iterator[tuple[Pair, ...]]:
    """Each leave-one-out context in its own order, then in random ones; equal ones among them."""
    for i in range(len(train)):
        context = train[:i] + train[i + 1 :] or train
        yield context
        for _ in range(PERMUTATIONS):
            yield tuple(context[i] for i in rng.permutation(len(context)))


def _see(view: str, question: Viewed) -> Viewed:
    see = VIEWS[view][0]
    pairs = tuple(Pair(see(pair.input), see(pair.output)) for pair in question.demonstrations)
    return Viewed(view, pairs, see(question.test_input))


def _distinct(asked: list[Viewed]) -> list[Viewed]:
    """The questions without those that show the same grids as an earlier one, whatever the view is called."""
    first: dict[bytes, Viewed] = {}
    for question in asked:
        pair = Pair(question.test_input, question.test_input)
        first.setdefault(key(ArcTask("", question.demonstrations, (pair,))), question)
    return list(first.values())
