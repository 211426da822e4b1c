"""A picture of one ARC task: demonstrations, test inputs, their truth and the attempts, in the colours of ARC."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

# 0 to 9 as on the corpus's own site: black, blue, red, green, yellow, grey, magenta, orange, sky, maroon.
COLORS = (
    *("#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00"),
    *("#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25"),
)
LINE, INK, RIGHT, WRONG = "#555555", "#1f2933", "#1a7f37", "#b3261e"
ATTEMPTS = 2
SIDE = 1.45  # inches of a grid


@dataclass(frozen=True, eq=False)
class Answered:
    """One test input with its truth, and up to two attempts, best first, None where nobody tried; grids are int
    arrays [rows, columns], 0..9."""

    input: np.ndarray
    truth: np.ndarray
    attempts: Sequence[np.ndarray] | None = None


def draw(title: str, demonstrations: Sequence[tuple[np.ndarray, np.ndarray]], tested: Sequence[Answered]) -> Figure:
    """A column per demonstration, input above output, and per test, input above truth; behind it one of its attempts,
    the first above the second, where anybody tried."""
    columns = len(demonstrations) + sum(1 if test.attempts is None else 2 for test in tested)
    figure = Figure(figsize=(SIDE * columns, 2 * SIDE + 0.9), dpi=130, layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for i, (given, output) in enumerate(demonstrations):
        _grid(axes[0, i], given, f"input {i + 1}")
        _grid(axes[1, i], output, f"output {i + 1}")
    free = iter(range(len(demonstrations), columns))
    for test in tested:
        column = next(free)
        _grid(axes[0, column], test.input, "test input", weight="bold")
        _grid(axes[1, column], test.truth, "truth", weight="bold")
        if test.attempts is not None:
            column = next(free)
            for j in range(ATTEMPTS):
                _attempt(axes[j, column], list(test.attempts)[j : j + 1], j + 1, test.truth)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def file_name(task: str, row: str) -> str:
    """Of the sheet of a task with the attempts of a row: its id, two hyphens, and the row in words of letters."""
    return f"{task}--{re.sub(r'[^a-z0-9]+', '-', row.lower()).strip('-')}.png"


def save(path: Path, figure: Figure) -> None:
    """Write the picture as PNG; the folder must exist."""
    figure.savefig(path, format="png", facecolor="white")


def _attempt(axes: Axes, found: Sequence[np.ndarray], number: int, truth: np.ndarray) -> None:
    if not found:
        axes.axis("off")
        axes.set_title(f"attempt {number}: none", fontsize=8, color=WRONG)
        return
    right = np.array_equal(found[0], truth)
    _grid(axes, found[0], f"attempt {number}: {'right' if right else 'wrong'}", color=RIGHT if right else WRONG)


def _grid(axes: Axes, grid: np.ndarray, title: str, color: str = INK, weight: str = "normal") -> None:
    axes.imshow(grid, cmap=ListedColormap(COLORS), vmin=0, vmax=9, interpolation="nearest")
    rows, columns = grid.shape
    axes.set_xticks(np.arange(-0.5, columns), [])
    axes.set_yticks(np.arange(-0.5, rows), [])
    axes.grid(color=LINE, lw=0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_color(color)
    axes.spines[:].set_linewidth(1.5)
    axes.set_title(title, fontsize=8, color=color, weight=weight)
