"""The table of a run, from its records alone: a row per condition with 95% intervals over passages and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from scipy import stats

PREFIX = "evaluation: "
MEASURES = ("accuracy", "log_likelihood")


@dataclass(frozen=True)
class Estimate:
    """A mean over passages with the half-width of its 95% t-interval (nan for one passage)."""

    mean: float
    half: float
    count: int


@dataclass(frozen=True)
class Line:
    """One row: each measure, and its paired differences from the base and from self-edits without RL."""

    name: str
    measures: Mapping[str, Estimate]
    over_base: Mapping[str, Estimate]
    over_no_rl: Mapping[str, Estimate]
    missing: int  # answers that the judge could not grade


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95% interval of independent values."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return Estimate(float(values.mean()) if len(values) else float("nan"), float("nan"), len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Estimate(float(values.mean()), float(half), len(values))


def per_passage(trials: Sequence[Mapping], measure: str) -> dict[str, float]:
    """Mean over questions, then over a passage's trials -> {passage id: value}; passages without a value are left out."""
    values: dict[str, list[float]] = {}
    for trial in trials:
        answers = trial["correct"] if measure == "accuracy" else trial["log_likelihood"]
        known = [float(value) for value in answers or [] if value is not None]
        if known:
            values.setdefault(trial["passage"], []).append(float(np.mean(known)))
    return {passage: float(np.mean(found)) for passage, found in values.items()}


def lines(trials: Sequence[Mapping]) -> list[Line]:
    """The rows of the evaluation in the order in which they were measured."""
    rows: dict[str, list[Mapping]] = {}
    for trial in trials:
        if trial["stage"].startswith(PREFIX):
            rows.setdefault(trial["stage"].removeprefix(PREFIX), []).append(trial)
    values = {name: {measure: per_passage(found, measure) for measure in MEASURES} for name, found in rows.items()}

    def differences(name: str, other: str) -> dict[str, Estimate]:
        if other not in values or other == name:
            return {}
        return {m: _paired(values[name][m], values[other][m]) for m in MEASURES}

    return [
        Line(
            name,
            {measure: estimate(list(values[name][measure].values())) for measure in MEASURES},
            differences(name, "base"),
            differences(name, "self-edits, no RL"),
            sum(verdict is None for trial in found for verdict in trial["correct"] or []),
        )
        for name, found in rows.items()
    ]


def _paired(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Estimate:
    return estimate([ours[passage] - theirs[passage] for passage in ours if passage in theirs])


def show(found: Sequence[Line], judge: str) -> Table:
    """The table for a terminal; accuracy in percent, log-likelihood in nats per answer token."""
    passages = max((line.measures["log_likelihood"].count for line in found), default=0)
    table = Table(title=f"{passages} passages, judge: {judge}; mean ± half of the 95% interval; Δ paired by passage")
    table.add_column("row", no_wrap=True)
    for title in ("accuracy %", "Δ base", "Δ no RL", "log-lik.", "Δ base", "Δ no RL", "ungraded"):
        table.add_column(title, justify="right", no_wrap=True)
    for line in found:
        cells = []
        for measure, scale, digits in (("accuracy", 100, 1), ("log_likelihood", 1, 2)):
            cells.append(_cell(line.measures.get(measure), scale, digits, ""))
            cells.append(_cell(line.over_base.get(measure), scale, digits, "+"))
            cells.append(_cell(line.over_no_rl.get(measure), scale, digits, "+"))
        table.add_row(line.name, *cells, str(line.missing))
    return table


def _cell(value: Estimate | None, scale: float, digits: int, sign: str) -> str:
    if value is None or np.isnan(value.mean):
        return "–"
    mean = f"{value.mean * scale:{sign}.{digits}f}"
    return mean if np.isnan(value.half) else f"{mean} ± {value.half * scale:.{digits}f}"
