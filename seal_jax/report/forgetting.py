"""What continual self-edits keep and forget: the matrix of each arm, as in the paper (arXiv 2506.10943)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seal_jax.config import FREE
from seal_jax.report import agreement
from seal_jax.report.cells import ABSENT, Table, number
from seal_jax.report.estimates import Estimate, estimate
from seal_jax.report.recorded import Recorded
from seal_jax.report.tables import per_item
from seal_jax.runs import keys

NOTE = (
    "Row n: after n passages; column k: the questions of the k-th passage of each sequence; “seen”: of all passages "
    "learned so far. Mean over sequences ± its standard error."
)
TITLE = "What was learned and forgotten"
SUMMARY = ("untrained", "just learned", "at the end", "forgotten", "undone", "failed")
SUMMARY_NOTE = (
    "“just learned”: each passage after its own update; “at the end”: after the last one; “forgotten”: the difference. "
    "Mean ± half of the 95% interval over sequences, differences paired by sequence."
)
GATE_NOTE = (
    "Rank correlation of the rise in loss that the gate goes by with the fall in accuracy on earlier passages, over "
    "the updates of a sequence, mean over sequences:"
)


@dataclass(frozen=True)
class Matrix:
    """Accuracies [sequences, K + 1, K] from 0 to 1: of passage k after n updates; n = 0 is the untrained student. nan
    where nothing is measured, as above the diagonal. undone, failed: updates that a gate undid, or that taught nothing.
    items: the passages of each sequence in their order.
    """

    arm: str
    items: Sequence[tuple[str, ...]]
    values: np.ndarray
    undone: int
    failed: int

    @property
    def mean(self) -> np.ndarray:
        """Over sequences, [K + 1, K]; nan where nothing is measured."""
        return _over_sequences(self.values, np.mean)

    @property
    def error(self) -> np.ndarray:
        """Standard error of the mean, [K + 1, K]; nan where fewer than two sequences are measured."""
        return _over_sequences(self.values, lambda found: found.std(ddof=1) / len(found) ** 0.5, 2)

    @property
    def untrained(self) -> np.ndarray:
        """Of each sequence: mean over its passages."""
        return self.values[:, 0].mean(-1)

    @property
    def learned(self) -> np.ndarray:
        """Of each sequence: mean over passages, each just after it was learned (the diagonal)."""
        return np.diagonal(self.values[:, 1:], axis1=1, axis2=2).mean(-1)

    @property
    def last(self) -> np.ndarray:
        """Of each sequence: mean over passages after the last update."""
        return self.values[:, -1].mean(-1)

    @property
    def complete(self) -> bool:
        return bool(np.isfinite(self.last).all())


def matrices(recorded: Recorded) -> list[Matrix]:
    """Of the arms of a run that learned something, in their order; none for other experiments."""
    config = recorded.config.get("continual")
    if not config:
        return []
    accuracy: dict[tuple, float] = {}
    for trial in recorded.trials_of(keys.EVALUATION):
        value = per_item([trial], "accuracy")
        if value:
            accuracy[trial["arm"], trial["round"], trial["item"], trial["sample"]] = value[trial["item"]]
    declared = {row["arm"]: row["kind"] for row in recorded.rows}
    untrained = next((arm for arm, kind in declared.items() if kind == "untrained"), None)
    items = {(one["sequence"], one["round"]): one["item"] for one in recorded.updates}  # the same in all arms
    found, total = [], config["passages"]
    sequences = [tuple(items.get((s, place), "") for place in range(1, total + 1)) for s in range(config["sequences"])]
    for arm in (arm for arm, kind in declared.items() if kind == "continual"):
        updates = [one for one in recorded.updates if one["arm"] == arm]
        values = np.full((config["sequences"], total + 1, total), np.nan)
        for (sequence, place), item in items.items():
            k = place - 1
            values[sequence, 0, k] = accuracy.get((untrained, 0, item, 0), np.nan)
            for n in range(place, total + 1):
                values[sequence, n, k] = accuracy.get((arm, n, item, sequence), np.nan)
        undone, failed = (sum(bool(one[name]) for one in updates) for name in ("undone", "failure"))
        found.append(Matrix(arm, sequences, values, undone, failed))
    return found


def joined(parts: Sequence[Matrix]) -> Matrix:
    """The sequences of several runs of one arm as those of one."""
    items = [item for one in parts for item in one.items]
    undone, failed = sum(one.undone for one in parts), sum(one.failed for one in parts)
    return Matrix(parts[0].arm, items, np.concatenate([one.values for one in parts]), undone, failed)


def is_controlled(recorded: Recorded) -> bool:
    """Whether the run has an arm with controls of forgetting."""
    config = recorded.config["continual"]
    given = {name: config.get(name, free) for name, free in FREE.items()}
    return any((tuple(value) if isinstance(value, list) else value) != FREE[name] for name, value in given.items())


def tables(recorded: Recorded) -> list[Table]:
    """The matrix of each arm, and what they come to."""
    found = matrices(recorded)
    shown = [Table(f"Accuracy, %, passage by passage: {one.arm}", *_cells(one), NOTE) for one in found]
    whole = [one for one in found if one.complete]
    if not whole:
        return shown
    rows = [_summary(one.arm, one) for one in whole]
    if len(whole) == 2:
        gained = [_percent(np.array(part), "+") for part in zip(*_gained(*whole), strict=True)]
        rows.append(["difference", ABSENT, *gained, ABSENT, ABSENT, ABSENT])
    agreed = gate_agreement(found, recorded.updates)
    note = SUMMARY_NOTE if agreed is None else f"{SUMMARY_NOTE} {GATE_NOTE} {number(agreed, 'correlation', '+')}."
    return [*shown, Table(TITLE, ["arm", *SUMMARY], rows, note)]


def gate_agreement(found: Sequence[Matrix], updates: Sequence[Mapping[str, Any]]) -> Estimate | None:
    """How far the rise in loss that a gate goes by agrees with what an update costs in right answers.

    Spearman's correlation, over the updates of a sequence that were kept, of the rise with the fall in accuracy on the
    passages before; mean and 95% interval over sequences. None where too little is known, or no gate was set.
    """
    values = {one.arm: one.values for one in found}
    pairs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for one in updates:
        arm, s, n = one["arm"], one["sequence"], one["round"]
        if one["rise"] is not None and not one["undone"]:
            fall = float(np.mean(values[arm][s, n - 1, : n - 1] - values[arm][s, n, : n - 1]))
            if np.isfinite([one["rise"], fall]).all():
                pairs.setdefault((arm, s), []).append((one["rise"], fall))
    correlations = agreement.within(pairs.values())
    return estimate(correlations, (-1.0, 1.0)) if correlations else None


def side_by_side(runs: Sequence[tuple[str, Sequence[Recorded]]]) -> list[Table]:
    """What each arm of several runs learned and forgot, and its differences from the first arm of the first run; none
    where no run went through whole sequences. runs: (name, the run with each seed)."""
    found = []
    for name, seeds in runs:
        arms: dict[str, list[Matrix]] = {}
        for one in (matrix for run in seeds for matrix in matrices(run) if matrix.complete):
            arms.setdefault(one.arm, []).append(one)
        found += [(name, joined(parts)) for parts in arms.values()]
    if not found:
        return []
    rows = []
    for place, (name, one) in enumerate(found):
        pairs = _gained(found[0][1], one) if place else []
        gained = [_percent(np.array(part), "+") for part in zip(*pairs, strict=True)] or [ABSENT, ABSENT]
        rows.append([name, *_summary(one.arm, one), *gained])
    first = f"{found[0][0]}, {found[0][1].arm}"
    note = f"{SUMMARY_NOTE} The last two columns are the differences from {first}, over the sequences of both."
    return [Table(TITLE, ["run", "arm", *SUMMARY, "learned more", "kept more"], rows, note)]


def _gained(free: Matrix, held: Matrix) -> list[tuple[float, float]]:
    """(just learned, at the end): by how much the second is more, for each sequence of the same passages."""
    places = {items: place for place, items in enumerate(free.items)}
    pairs = [(places[items], place) for place, items in enumerate(held.items) if items in places]
    return [(held.learned[own] - free.learned[other], held.last[own] - free.last[other]) for other, own in pairs]


def _summary(arm: str, one: Matrix) -> list[str]:
    """The row of an arm under SUMMARY."""
    means = [_percent(value) for value in (one.untrained, one.learned, one.last)]
    return [arm, *means, _percent(one.learned - one.last, "+"), str(one.undone), str(one.failed)]


def _cells(matrix: Matrix) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Header and rows of a matrix."""
    mean, error = matrix.mean, matrix.error
    count = mean.shape[1]
    rows = []
    for n in range(count + 1):
        cells = [_cell(mean[n, k], error[n, k]) if n == 0 or k < n else "" for k in range(count)]
        seen = matrix.values[:, n, : n or count].mean(-1)
        seen = seen[np.isfinite(seen)]
        error_seen = seen.std(ddof=1) / len(seen) ** 0.5 if len(seen) > 1 else np.nan
        rows.append([str(n), *cells, _cell(seen.mean() if len(seen) else np.nan, error_seen)])
    return ["after", *(str(k + 1) for k in range(count)), "seen"], rows


def _cell(mean: float, error: float) -> str:
    if np.isnan(mean):
        return ABSENT
    return f"{100 * mean:.0f}" + (f" ± {100 * error:.0f}" if np.isfinite(error) else "")


def _percent(values: np.ndarray, sign: str = "") -> str:
    """The mean over sequences with its interval; differences have a sign."""
    return number(estimate(values.tolist(), (-1, 1) if sign else (0, 1)), "accuracy", sign)


def _over_sequences(values: np.ndarray, of, least: int = 1) -> np.ndarray:
    """of(values of one cell that are known) for each cell; nan where there are fewer than `least`."""
    out = np.full(values.shape[1:], np.nan)
    for place in np.ndindex(out.shape):
        found = values[(slice(None), *place)]
        found = found[np.isfinite(found)]
        if len(found) >= least:
            out[place] = of(found)
    return out
