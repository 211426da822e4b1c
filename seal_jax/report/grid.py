"""The grid of an inner loop's settings: right answers by rank, learning rate and epochs."""

from collections.abc import Mapping, Sequence

from seal_jax.report.cells import ABSENT, Table, number
from seal_jax.report.recorded import Recorded
from seal_jax.report.tables import Line

RATE = "learning rate "
Cells = Mapping[str, Mapping[int, Line]]  # {learning rate: {epochs: the row of that cell}}


def by_rank(recorded: Recorded, lines: Sequence[Line]) -> dict[str, Cells]:
    """{rank in words, or '' where the run has one rank: its cells}, as far as measured; nothing for other experiments.

    The arm of a cell is 'learning rate 0.001', or 'rank 8, learning rate 0.001' (experiments/grid.py).
    """
    found: dict[str, dict[str, dict[int, Line]]] = {}
    for line in lines if recorded.config.get("experiment") == "grid" else ():
        if line.kind != "untrained":
            rank, _, rate = line.arm.rpartition(RATE)
            found.setdefault(rank.removesuffix(", "), {}).setdefault(rate, {})[line.round] = line
    return found


def tables(recorded: Recorded, lines: Sequence[Line]) -> list[Table]:
    """One table, with a row for each learning rate (of each rank) and a column for each number of epochs."""
    found = by_rank(recorded, lines)
    epochs = sorted({count for rates in found.values() for cells in rates.values() for count in cells})
    several = any(found)
    rows = [
        [*([rank.removeprefix("rank ")] if several else []), rate,
         *(number(cells[count].measures["accuracy"], "accuracy") if count in cells else ABSENT for count in epochs)]
        for rank, rates in found.items() for rate, cells in rates.items()
    ]  # fmt: skip
    counts = (f"{count} epoch{'s' * (count > 1)}" for count in epochs)
    header = [*(["rank"] if several else []), RATE.strip(), *counts]
    by = "rank, learning rate" if several else "learning rate"
    return [Table(f"Right answers, %, by {by} and epochs", header, rows)] if rows else []
