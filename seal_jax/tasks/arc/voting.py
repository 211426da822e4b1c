"""From the answers to a task's questions to two attempts: a vote in two stages.

Within each view the answers are counted and the three most frequent become finalists. Where several share the first
place, up to two more ballots are cast in that view, over its answers of the most frequent size: the grid of the most
frequent first row, second row and so on, and that of the most frequent columns. Either is cast only if none of its rows
(columns) is tied, and may decide the tie or be an answer that nobody gave. Then each finalist has a vote from each view
that sent it, and the two with most votes are the attempts.

Ties in a view go to the answer that was given first, constructed ones counting as last. Ties in the second stage go to
the one that stands higher among the finalists of the identity view, then to the one with more ballots in all views,
then to the one that became a finalist first.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from seal_jax.tasks.arc.grids import ArcTask, Grid, make_grid
from seal_jax.tasks.arc.views import IDENTITY

FINALISTS, ATTEMPTS = 3, 2

_Cells = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Ballot:
    """An answer with its view undone, and the name of the view; None where the answer was no grid."""

    view: str
    grid: Grid | None


def attempts(ballots: Sequence[Ballot]) -> list[Grid]:
    """The two grids with most votes, the better one first; fewer if there are fewer answers."""
    by_view: dict[str, list[_Cells]] = {}
    for ballot in ballots:
        if ballot.grid is not None:
            by_view.setdefault(ballot.view, []).append(_cells(ballot.grid))
    final = {view: finalists(answers) for view, answers in by_view.items()}
    votes = Counter(grid for grids in final.values() for grid in grids)
    ballots_of = Counter(grid for answers in by_view.values() for grid in answers)
    home = final.get(IDENTITY, [])

    def rank(grid: _Cells) -> tuple[int, int, int]:
        place = home.index(grid) if grid in home else FINALISTS
        return -votes[grid], place, -ballots_of[grid]

    return [make_grid(grid) for grid in sorted(votes, key=rank)[:ATTEMPTS]]  # stable: first come, first served


def finalists(answers: Sequence[_Cells]) -> list[_Cells]:
    """The three most frequent answers of one view, best first."""
    counted = Counter(answers)
    best = max(counted.values())
    if sum(count == best for count in counted.values()) > 1:
        sizes = [(len(grid), len(grid[0])) for grid in answers]
        size = Counter(sizes).most_common(1)[0][0]
        alike = [grid for grid, of in zip(answers, sizes, strict=True) if of == size]
        by_rows, by_columns = _row_majority(alike), _row_majority([_transposed(grid) for grid in alike])
        counted.update([by_rows] if by_rows else [])
        counted.update([_transposed(by_columns)] if by_columns else [])
    return [grid for grid, _ in counted.most_common(FINALISTS)]  # equal counts: first come, first served


def right(attempts: Iterable[Grid], truth: Grid) -> bool:
    """Whether any attempt is the output grid, cell by cell."""
    return any(np.array_equal(attempt, truth) for attempt in attempts)


def solved(task: ArcTask, attempts_by_test: Sequence[Iterable[Grid]]) -> bool:
    """Whether every test input of the task has a right attempt."""
    return all(right(tries, pair.output) for tries, pair in zip(attempts_by_test, task.test, strict=True))


def _cells(grid: Grid) -> _Cells:
    return tuple(tuple(row) for row in grid.tolist())


def _row_majority(grids: Sequence[_Cells]) -> _Cells | None:
    """Grids of one size -> the most frequent first row, second row, and so on; None if two are equally frequent."""
    found = []
    for rows in zip(*grids, strict=True):
        (row, most), *others = Counter(rows).most_common(2)
        if others and others[0][1] == most:
            return None
        found.append(row)
    return tuple(found)


def _transposed(grid: _Cells) -> _Cells:
    return tuple(zip(*grid, strict=True))
