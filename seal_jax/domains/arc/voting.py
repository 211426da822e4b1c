"""From the answers to a task's questions to two attempts, by one of two votes.

The two-stage vote (`two_stage`). Within each view the three most frequent answers become finalists. Where several
answers share the first place of a view, up to two constructed answers get a vote more: from the view's answers of the
most frequent size, the grid of the most frequent first row, second row and so on, and the grid of the most frequent
columns; each only if none of its rows (columns) is tied. Then every finalist has one vote from each view that sent it,
and the two with most votes are the attempts. Ties in a view go to the answer that was given first, constructed ones
last. Ties of the second stage go to the one that stands higher among the finalists of the identity view, then to the
one with more answers in all views, then to the first.

The vote of the paper's code (`reference`). All answers together are a group, and so are those of each view. Each group
names three candidates: its three most frequent answers, where the most frequent one also takes the place of a missing
second or third. The candidates of all groups together name C1, C2 and C3 in the same way. C1 is the first attempt. C2
is the second one, unless C3 was named as often and C2 has no more answers in the identity view; then it is C3. Ties go
to what came first; in the paper's code they fall as a set iterates.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from seal_jax.domains.arc.grids import ArcTask, Grid, make_grid
from seal_jax.domains.arc.views import IDENTITY

TWO_STAGE, REFERENCE = "two-stage", "reference"
FINALISTS, ATTEMPTS = 3, 2
# The order of the paper's code, which names a view by what undoes it: 'rotate 90' is its rotation by 270 degrees.
GROUPS = (IDENTITY, "transpose", "flip 0", "flip 1", "rotate 180", "rotate 90")

Cells = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Ballot:
    """An answer as it stands in the task itself, and the name of the view that it was given in; None: no grid."""

    view: str
    grid: Grid | None


def attempts(ballots: Sequence[Ballot], rule: str = TWO_STAGE) -> list[Grid]:
    """The two grids that win the vote of that rule, the better one first; fewer if there are fewer answers."""
    by_view: dict[str, list[Cells]] = {}
    for ballot in ballots:
        if ballot.grid is not None:
            by_view.setdefault(ballot.view, []).append(_cells(ballot.grid))
    vote = {TWO_STAGE: two_stage, REFERENCE: reference}[rule]
    return [make_grid(grid) for grid in vote(by_view)] if by_view else []


def two_stage(by_view: dict[str, list[Cells]]) -> list[Cells]:
    """At most two attempts from the answers of each view, at least one of them, by the two-stage vote."""
    final = {view: finalists(answers) for view, answers in by_view.items()}
    votes = Counter(grid for grids in final.values() for grid in grids)
    answers_of = Counter(grid for answers in by_view.values() for grid in answers)
    home = final.get(IDENTITY, [])

    def rank(grid: Cells) -> tuple[int, int, int]:
        place = home.index(grid) if grid in home else FINALISTS
        return -votes[grid], place, -answers_of[grid]

    return sorted(votes, key=rank)[:ATTEMPTS]  # a stable sort: of equal ones the first


def finalists(answers: Sequence[Cells]) -> list[Cells]:
    """The three most frequent answers of one view, best first."""
    counted = Counter(answers)
    best = max(counted.values())
    if sum(count == best for count in counted.values()) > 1:
        size = Counter(map(_size, answers)).most_common(1)[0][0]
        alike = [grid for grid in answers if _size(grid) == size]
        by_rows, by_columns = _clear_majority(alike), _clear_majority([_transposed(grid) for grid in alike])
        counted.update([by_rows] if by_rows else [])
        counted.update([_transposed(by_columns)] if by_columns else [])
    return [grid for grid, _ in counted.most_common(FINALISTS)]  # of equal counts the first


def reference(by_view: dict[str, list[Cells]]) -> list[Cells]:
    """At most two attempts from the answers of each view, at least one of them, by the vote of the paper's code."""
    everything = [grid for answers in by_view.values() for grid in answers]
    groups = [everything, *(by_view[view] for view in GROUPS if view in by_view)]
    pool = [candidate for answers in groups for candidate in candidates(answers)]
    first, second, third = candidates(pool)
    if IDENTITY in by_view and pool.count(second) == pool.count(third):
        home = by_view[IDENTITY]
        second = second if home.count(second) > home.count(third) else third
    return list(dict.fromkeys([first, second]))


def candidates(answers: Sequence[Cells]) -> list[Cells]:
    """Three candidates of a group, best first; the first is repeated where there are fewer than three answers.

    The paper's code fills up with the row-wise or the column-wise majority of the group. Of one or two different
    answers either is the most frequent of them.
    """
    found = [grid for grid, _ in Counter(answers).most_common(FINALISTS)]
    return found + [found[0]] * (FINALISTS - len(found))


def right(attempts: Iterable[Grid], truth: Grid) -> bool:
    """Whether any attempt is the output grid, cell by cell."""
    return any(np.array_equal(attempt, truth) for attempt in attempts)


def solved(task: ArcTask, attempts_by_test: Sequence[Iterable[Grid]]) -> bool:
    """Whether every test input of the task has a right attempt."""
    return all(right(tries, pair.output) for tries, pair in zip(attempts_by_test, task.test, strict=True))


def _cells(grid: Grid) -> Cells:
    return tuple(tuple(row) for row in grid.tolist())


def _size(grid: Cells) -> tuple[int, int]:
    return len(grid), len(grid[0])


def _clear_majority(grids: Sequence[Cells]) -> Cells | None:
    """The most frequent first row, second row and so on of grids of one size; None if two are equally frequent."""
    found = []
    for rows in zip(*grids, strict=True):
        (row, most), *others = Counter(rows).most_common(2)
        if others and others[0][1] == most:
            return None
        found.append(row)
    return tuple(found)


def _transposed(grid: Cells) -> Cells:
    return tuple(zip(*grid, strict=True))
