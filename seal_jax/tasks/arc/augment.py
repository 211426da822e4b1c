"""Augmentations of ARC grids: pure functions on arrays, in the four families that a self-edit turns on or off.

The protocol is that of test-time training on ARC, as the paper's few-shot experiment uses it (arXiv 2506.10943).
Axis 0 runs down the rows, axis 1 across the columns. A task is augmented by one function on all of its grids, inputs
and outputs alike, so that the rule of the task changes with them and still holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from seal_jax.tasks.arc.grids import COLORS, ArcTask, Grid, Pair, grids_of

MOST_SHIFT = 3  # cells


def rotate_90(grid: Grid) -> Grid:
    """A quarter turn against the clock; the inverse is `rotate_270`."""
    return np.rot90(grid, 1)


def rotate_180(grid: Grid) -> Grid:
    """Half a turn; its own inverse."""
    return np.rot90(grid, 2)


def rotate_270(grid: Grid) -> Grid:
    """A quarter turn with the clock; the inverse is `rotate_90`."""
    return np.rot90(grid, 3)


def flip_0(grid: Grid) -> Grid:
    """The rows in reverse order; its own inverse."""
    return np.flip(grid, 0)


def flip_1(grid: Grid) -> Grid:
    """The columns in reverse order; its own inverse."""
    return np.flip(grid, 1)


def transpose(grid: Grid) -> Grid:
    """Rows become columns; its own inverse."""
    return grid.T


def shift(grid: Grid, down: int, right: int) -> Grid:
    """Cells moved down and to the right, those that leave the grid coming back on the other side.

    The inverse is the shift by (-down, -right).
    """
    return np.roll(grid, (down, right), axis=(0, 1))


def mirror_down(grid: Grid) -> Grid:
    """Twice as high: the grid, and below it its mirror image."""
    return np.concatenate([grid, flip_0(grid)], axis=0)


def mirror_up(grid: Grid) -> Grid:
    """Twice as high: the mirror image, and below it the grid."""
    return np.concatenate([flip_0(grid), grid], axis=0)


def mirror_right(grid: Grid) -> Grid:
    """Twice as wide: the grid, and right of it its mirror image."""
    return np.concatenate([grid, flip_1(grid)], axis=1)


def mirror_left(grid: Grid) -> Grid:
    """Twice as wide: the mirror image, and right of it the grid."""
    return np.concatenate([flip_1(grid), grid], axis=1)


def double_height(grid: Grid) -> Grid:
    """Every row twice."""
    return grid.repeat(2, axis=0)


def double_width(grid: Grid) -> Grid:
    """Every column twice."""
    return grid.repeat(2, axis=1)


def double_resolution(grid: Grid) -> Grid:
    """Every cell becomes two by two cells."""
    return double_width(double_height(grid))


def repeat_down(grid: Grid) -> Grid:
    """The grid twice, one below the other."""
    return np.tile(grid, (2, 1))


def repeat_across(grid: Grid) -> Grid:
    """The grid twice, side by side."""
    return np.tile(grid, (1, 2))


def repeat_both(grid: Grid) -> Grid:
    """The grid four times, two by two."""
    return np.tile(grid, (2, 2))


@dataclass(frozen=True)
class Augmentation:
    """A function from grid to grid, and its name."""

    name: str
    apply: Callable[[Grid], Grid]


def _named(*functions: Callable[[Grid], Grid]) -> tuple[Augmentation, ...]:
    return tuple(Augmentation(function.__name__, function) for function in functions)


def _then_doubled(first: Augmentation) -> Augmentation:
    return Augmentation(f"{first.name}, double_resolution", lambda grid: double_resolution(first.apply(grid)))


# The basic family has a shift as well: `random_shift` draws how far.
BASIC = _named(
    *(rotate_90, rotate_180, rotate_270, flip_0, flip_1),
    *(mirror_down, mirror_up, mirror_right, mirror_left, transpose),
)
SIZE = _named(double_resolution, double_height, double_width)
CHAIN = tuple(_then_doubled(a) for a in _named(rotate_90, rotate_270, rotate_180, flip_0, flip_1, transpose))
REPEAT = _named(repeat_down, repeat_across, repeat_both)


def random_shift(rng: np.random.Generator) -> Augmentation:
    """A shift by 0 to 3 cells in each direction."""
    down, right = (int(cells) for cells in rng.integers(0, MOST_SHIFT + 1, 2))
    return Augmentation(f"shift by {down}, {right}", lambda grid: shift(grid, down, right))


def map_grids(task: ArcTask, function: Callable[[Grid], Grid]) -> ArcTask:
    """The task with the function applied to every grid of it."""
    return ArcTask(task.id, map_pairs(task.train, function), map_pairs(task.test, function))


def map_pairs(pairs: Sequence[Pair], function: Callable[[Grid], Grid]) -> tuple[Pair, ...]:
    """The pairs with the function applied to inputs and outputs."""
    return tuple(Pair(function(pair.input), function(pair.output)) for pair in pairs)


def color_permutation(used: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """int8 [10], the new colour of each: 0 stays, and the `used` ones take colours outside `used` while there are any.

    A bijection, so that `np.argsort` of it is the inverse.
    """
    taken = [color for color in range(1, COLORS) if color in used]
    free = [color for color in range(1, COLORS) if color not in used]
    sources = [*rng.permutation(taken), *rng.permutation(free)]
    targets = [*rng.permutation(free), *rng.permutation(taken)]
    table = np.zeros(COLORS, np.int8)
    table[np.array(sources, int)] = targets
    return table


def permute_colors(task: ArcTask, rng: np.random.Generator) -> ArcTask:
    """The task in other colours (see `color_permutation`), the same ones in all its grids."""
    used = sorted({int(color) for grid in grids_of(task) for color in np.unique(grid)})
    table = color_permutation(used, rng)
    return map_grids(task, lambda grid: table[grid])


def permute_demonstrations(task: ArcTask, rng: np.random.Generator) -> ArcTask:
    """The task with its demonstrations in random order."""
    return ArcTask(task.id, tuple(task.train[i] for i in rng.permutation(len(task.train))), task.test)
