"""The tables of a run as plain text: 80 columns are enough, and a pipe or a file gets the same as a terminal."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from seal_jax.runs.progress import duration
from seal_jax.runs.table import Estimate, Line, Round

WIDTH = 80
ABSENT = "–"
TITLES = {"accuracy": "Accuracy, %", "log_likelihood": "Log-likelihood of the gold answers, nats per token"}
SCALES = {"accuracy": (100, 1), "log_likelihood": (1, 2)}  # factor and decimals
SOLVED_HEADER = ("row", "trials that solve their task", "self-edits that failed")
COMPARED = (("over_base", "over base"), ("over_no_rl", "over no RL"), ("over_random", "over random"))


def show_rows(found: Sequence[Line], judge: str, noun: str = "passages") -> str:
    """Both tables of the evaluation, and what could not be graded."""
    total = max((line.passages for line in found), default=0)
    compared = [(field, title) for field, title in COMPARED if any(getattr(line, field) for line in found)]
    parts = [
        f"Evaluation on {total} {noun}: mean ± half of the 95% interval over {noun};\n"
        f"differences are paired by {noun[:-1]}. Judge: {judge}."
    ]
    for measure, title in TITLES.items():
        cells = [
            [row_name(line, total), cell(line.measures[measure], measure)]
            + [cell(getattr(line, field).get(measure), measure, "+") for field, _ in compared]
            for line in found
        ]
        parts.append(f"{title}\n" + columns(["row", "mean", *(title for _, title in compared)], cells))
    if noun == "tasks":
        parts.append(columns(SOLVED_HEADER, solved(found)))
    ungraded = [f"{line.ungraded} of {line.answers} in {line.name}" for line in found if line.ungraded]
    if ungraded:
        listed = "Answers without a verdict, left out of every mean: " + "; ".join(ungraded) + "."
        parts.append(textwrap.fill(listed, WIDTH))
    return "\n\n".join(parts)


def solved(found: Sequence[Line]) -> list[list[str]]:
    """Cells of the table of SOLVED_HEADER."""
    return [[line.name, f"{line.solved} of {line.trials}", str(line.failed)] for line in found]


def show_rounds(found: Sequence[Round], missing: int, noun: str = "passages") -> str:
    """Rewards by round; `missing` answers could not be graded."""
    cells = [
        [round_name(entry), *(cell(value, "reward") for value in (entry.untrained, entry.all, entry.chosen))]
        + [ABSENT if entry.heldout else str(entry.selected)]
        for entry in found
    ]
    text = f"Reward, mean ± half of the 95% interval over {noun}\n"
    text += columns(["round", "untrained", "all", "chosen", "selected"], cells)
    return text + (f"\n\nAnswers without a verdict, left out of every reward: {missing}." if missing else "")


def show_phases(seconds: Mapping[str, float]) -> str:
    """Wall time by phase, over all starts of the run."""
    cells = [[name, duration(value)] for name, value in seconds.items()]
    return columns(["phase", "wall time"], [*cells, ["all phases", duration(sum(seconds.values()))]])


def row_name(line: Line, total: int) -> str:
    """The row's name, and how far it is where not all passages are measured yet."""
    return line.name if line.passages == total else f"{line.name} ({line.passages} of {total})"


def round_name(entry: Round) -> str:
    return f"{entry.arm}, round {entry.number}" + (", held out" if entry.heldout else "")


def cell(value: Estimate | None, measure: str, sign: str = "") -> str:
    """An estimate as text, in percent for accuracies."""
    if value is None or np.isnan(value.mean):
        return ABSENT
    scale, digits = SCALES.get(measure, (1, 2))
    mean = f"{value.mean * scale:{sign}.{digits}f}"
    return mean if np.isnan(value.half) else f"{mean} ± {value.half * scale:.{digits}f}"


def columns(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table with a rule under its header; the first column to the left, the others to the right, nothing cut off."""
    rows = [header, *cells]
    widths = [max(len(row[place]) for row in rows) for place in range(len(header))]
    shape = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([shape.format(*header).rstrip(), rule, *(shape.format(*row).rstrip() for row in cells)])
