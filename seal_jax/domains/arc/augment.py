"""Augmentations of ARC tasks: pure functions on grids, in the four families that a self-edit turns on or off.

The families are those of the paper's few-shot experiment (arXiv 2506.10943). Axis 0 runs down the rows, axis 1 across
the columns. An augmentation changes all grids of a task alike, so that one rule still turns every input into its
output. A shift is the exception: it moves all inputs by one amount and all outputs by another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from seal_jax.domains.arc.grids import COLORS, ArcTask, Grid, Pair, grids_of

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
    """Every cell moved down and to the right; what leaves the grid on one side comes back on the other.

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
    """A name, and what is done to the inputs and to the outputs of a task; only for shifts these two differ."""

    name: str
    on_input: Callable[[Grid], Grid]
    on_output: Callable[[Grid], Grid]


def _named(*functions: Callable[[Grid], Grid]) -> tuple[Augmentation, ...]:
    return tuple(Augmentation(function.__name__, function, function) for function in functions)


def _then_doubled(first: Callable[[Grid], Grid]) -> Augmentation:
    def both(grid: Grid) -> Grid:
        return double_resolution(first(grid))

    return Augmentation(f"{first.__name__}, double_resolution", both, both)


# The basic family also has a shift, which `random_shift` draws.
BASIC = _named(
    *(rotate_90, rotate_180, rotate_270, flip_0, flip_1),
    *(mirror_down, mirror_up, mirror_right, mirror_left, transpose),
)
SIZE = _named(double_resolution, double_height, double_width)
CHAIN = tuple(map(_then_doubled, (rotate_90, rotate_270, rotate_180, flip_0, flip_1, transpose)))
REPEAT = _named(repeat_down, repeat_across, repeat_both)


def random_shift(rng: np.random.Generator) -> Augmentation:
    """A shift by 0 to 3 cells along each axis, drawn once for all inputs of a task and once more for all outputs."""
    moved_input, moved_output = rng.integers(0, MOST_SHIFT + 1, (2, 2)).tolist()
    name = "shift inputs by {}, {} and outputs by {}, {}".format(*moved_input, *moved_output)
    return Augmentation(name, lambda grid: shift(grid, *moved_input), lambda grid: shift(grid, *moved_output))


def augmented(task: ArcTask, augmentation: Augmentation) -> ArcTask:
    """The task with the augmentation applied to all its pairs."""

    def change(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
        return tuple(Pair(augmentation.on_input(p.input), augmentation.on_output(p.output)) for p in pairs)

    return ArcTask(task.id, change(task.train), change(task.test))


def map_grids(task: ArcTask, function: Callable[[Grid], Grid]) -> ArcTask:
    """The task with the function applied to every grid of it."""
    return ArcTask(task.id, map_pairs(task.train, function), map_pairs(task.test, function))


def map_pairs(pairs: Sequence[Pair], function: Callable[[Grid], Grid]) -> tuple[Pair, ...]:
    """The pairs with the function applied to inputs and outputs."""
    return tuple(Pair(function(pair.input), function(pair.output)) for pair in pairs)


def color_permutation(used: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """int8 [10]: the new colour of each colour. 0 stays 0; `used` colours first take those that are not used.

    A permutation, so `np.argsort` of it is its inverse.
    """
    taken = [color for color in range(1, COLORS) if color in used]
    free = [color for color in range(1, COLORS) if color not in used]
    sources = [*rng.permutation(taken), *rng.permutation(free)]
    targets = [*rng.permutation(free), *rng.permutation(taken)]
    table = np.zeros(COLORS, np.int8)
    table[np.array(sources, int)] = targets
    return table


def permute_colors(task: ArcTask, rng: np.random.Generator) -> ArcTask:
    """The task with one random permutation of the colours (see `color_permutation`) applied to all its grids."""
    used = sorted({int(color) for grid in grids_of(task) for color in np.unique(grid)})
    table = color_permutation(used, rng)
    return map_grids(task, lambda grid: table[grid])


def permute_demonstrations(task: ArcTask, rng: np.random.Generator) -> ArcTask:
    """The task with its demonstrations in random order."""
    return ArcTask(task.id, tuple(task.train[i] for i in rng.permutation(len(task.train))), task.test)
