"""The grid of an inner loop's settings: right answers by learning rate and epochs."""

from collections.abc import Sequence

from seal_jax.report.cells import ABSENT, Table, number
from seal_jax.report.recorded import Recorded
from seal_jax.report.tables import Line


def by_rate(recorded: Recorded, lines: Sequence[Line]) -> dict[str, dict[int, Line]]:
    """{arm of a learning rate: {epochs: the row of that cell}}, as far as measured; nothing for other experiments."""
    found: dict[str, dict[int, Line]] = {}
    for line in lines if recorded.config.get("experiment") == "grid" else ():
        if line.kind != "untrained":
            found.setdefault(line.arm, {})[line.round] = line
    return found


def tables(recorded: Recorded, lines: Sequence[Line]) -> list[Table]:
    """One table, with a row for each learning rate and a column for each number of epochs."""
    found = by_rate(recorded, lines)
    epochs = sorted({count for cells in found.values() for count in cells})
    rows = [
        [arm.removeprefix("learning rate "),
         *(number(cells[count].measures["accuracy"], "accuracy") if count in cells else ABSENT for count in epochs)]
        for arm, cells in found.items()
    ]  # fmt: skip
    header = ["learning rate", *(f"{count} epoch{'s' * (count > 1)}" for count in epochs)]
    return [Table("Right answers, %, by learning rate and epochs", header, rows)] if rows else []
