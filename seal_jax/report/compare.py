"""One table over several runs, from their records: a column for each config, the seeds of one config pooled.

Differences are paired by item. Of one run their intervals are from a bootstrap over items (Efron 1979). Of several
seeds every item is averaged over them first, and what whole runs differ by is part of the interval: the variance is
that of the mean over items plus that of the mean over runs, with Student's t at the degrees of freedom of
Satterthwaite (1946). Chance within a run is in both, so that the interval is rather too wide than too narrow.
A result file of the paper's authors is a column of its own (released.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from scipy import stats

from seal_jax.config import MACHINE, completed
from seal_jax.errors import UserError
from seal_jax.report import tables
from seal_jax.report.estimates import DIGITS, LEVEL, Estimate, estimate
from seal_jax.report.recorded import Recorded, load
from seal_jax.report.released import EXPERIMENT, load_released
from seal_jax.report.tables import BOUNDS, DIFFERENCE_BOUNDS, MEASURES
from seal_jax.runs import keys

RESAMPLES, SEED = 10_000, 0
Values = Mapping[str, float]  # of one row: {item: value}
ABSENT, UNKNOWN = "(absent)", "–"


class Row(NamedTuple):
    """A row of the table; those of two runs are one where they agree in all three."""

    arm: str
    round: int
    name: str


@dataclass(frozen=True)
class Column:
    """Runs of one config, which differ in their seed alone. names: of their folders, in order of the seeds."""

    names: Sequence[str]
    seeds: Sequence[int]
    runs: Sequence[Recorded]

    @property
    def name(self) -> str:
        """'mine', or 'mine (3 seeds)' by the first of them."""
        return self.names[0] + (f" ({len(self.names)} seeds)" if len(self.names) > 1 else "")

    @property
    def config(self) -> Mapping[str, Any]:
        return self.runs[0].config

    @property
    def is_file(self) -> bool:
        """Whether it is a result file, without a config."""
        return self.config.get("experiment") == EXPERIMENT

    @property
    def untrained(self) -> Row | None:
        """The row that its others are compared with."""
        rows = self.runs[0].rows
        return next((Row(row["arm"], row["round"], row["name"]) for row in rows if row["kind"] == "untrained"), None)

    @property
    def judge(self) -> str:
        """Of the evaluation; there is only one, because it is part of the config."""
        return tables.judge_of(trial for run in self.runs for trial in run.trials_of(keys.EVALUATION))

    @property
    def items(self) -> frozenset[str]:
        """What its rows are evaluated on."""
        return frozenset(item["item"] for run in self.runs for item in run.items_of(keys.EVALUATION))


@dataclass(frozen=True)
class Cell:
    """A row in a column. runs: the mean of each seed; over: paired differences from other rows of the same column."""

    value: Estimate
    runs: Sequence[float]
    over: Mapping[str, Estimate] = field(default_factory=dict)
    versus_first: Estimate | None = None  # difference from the same row of the first column; None where unpaired

    @property
    def spread(self) -> float | None:
        """Standard deviation between the seeds' means; None for one seed."""
        return float(np.std(self.runs, ddof=1)) if len(self.runs) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """rows: in the order in which the runs declared them; cells: {measure: {(row, column's index): cell}}, the accuracy
    first."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    cells: Mapping[str, Mapping[tuple[Row, int], Cell]]
    changes: Sequence[tuple[str, Sequence[str]]]  # (field, its value in each column)


def compare(folders: Sequence[str]) -> Comparison:
    """Reads the runs in some folders. Raises UserError where one holds no rows, or their domains differ."""
    found = columns(folders)
    values = [row_values(column) for column in found]
    rows = list(dict.fromkeys(row for one in values for measured in one.values() for row in measured))
    cells = {
        measure: _cells(found, [one.get(measure, {}) for one in values], measure)
        for measure in MEASURES
        if any(one.get(measure) for one in values)
    }
    return Comparison(found, rows, cells, changes([None if column.is_file else column.config for column in found]))


def columns(folders: Sequence[str]) -> list[Column]:
    """Runs grouped by config, in the order in which they are named; those of one config by their seeds. Then the result
    files, a column each: FILE, or ROW=FILE for that row of the runs."""
    groups: dict[str, list[tuple[int, str, Recorded]]] = {}
    names = list(dict.fromkeys(folders))
    files = [name for name in names if epath.Path(name.rpartition("=")[2]).is_file()]
    for folder in dict.fromkeys(str(epath.Path(name)) for name in names if name not in files):
        path = epath.Path(folder)
        recorded = load(path)
        if not recorded.config or not recorded.rows:
            raise UserError(f"{path} holds no run with a table; name the folder of a run, as --workdir did")
        recorded = replace(recorded, config=completed(recorded.config))
        fixed = {name: value for name, value in flat(recorded.config).items() if name != "seed"}
        groups.setdefault(repr(sorted(fixed.items())), []).append((recorded.config.get("seed", 0), path.name, recorded))
    runs = [run for group in groups.values() for _, _, run in group]
    released = [_released(name, runs) for name in files]
    if len({run.words for run in (*runs, *(column.runs[0] for column in released))}) > 1:
        raise UserError("some of these runs are of passages and some of ARC tasks; compare those of one kind")
    found = []
    for group in groups.values():
        group = sorted(group, key=lambda one: one[0])
        seeds = [seed for seed, _, _ in group]
        if len(set(seeds)) < len(seeds):
            raise UserError(f"{group[0][1]} and another run have the same config and seed; name one of them")
        found.append(Column([name for _, name, _ in group], seeds, [run for _, _, run in group]))
    return found + released


def _released(name: str, runs: Sequence[Recorded]) -> Column:
    """The column of a result file, whose row is one of the runs where its name is given before the file."""
    row, _, path = name.rpartition("=")
    stem = epath.Path(path).stem
    known = {one["name"]: (one["arm"], one["round"], one["name"]) for run in reversed(runs) for one in run.rows}
    if row and row not in known:
        raise UserError(f"{name}: no run has a row {row!r}; there are {', '.join(map(repr, known)) or 'none'}")
    return Column([stem], [0], [load_released(path, known[row] if row else (stem, 0, stem))])


def row_values(column: Column) -> dict[str, dict[Row, list[Values]]]:
    """{measure: {row: [{item: value} of each seed that measured it]}}."""
    found: dict[str, dict[Row, list[Values]]] = {}
    for run in column.runs:
        declared, trials = tables.declared_rows(run), tables.evaluation_trials(run)
        for key, fields in declared.items():
            measured, row = trials.get(tables.source_of(key, declared), []), Row(*key, fields["name"])
            for measure in MEASURES:
                values = tables.per_item(measured, measure)
                if values:
                    found.setdefault(measure, {}).setdefault(row, []).append(values)
    return found


def pooled(runs: Sequence[Values]) -> Values:
    """Every item averaged over the seeds that measured it."""
    items = dict.fromkeys(item for values in runs for item in values)
    return {item: float(np.mean([values[item] for values in runs if item in values])) for item in items}


def over_runs(value: Estimate, items: Sequence[float], runs: Sequence[Sequence[float]]) -> Estimate:
    """An estimate from `items`, one number each, with an interval that holds the spread between whole runs as well.

    runs: the means of the runs of each column that the estimate is made of; a single run says nothing of its spread.
    Unchanged where no column has several, or there are fewer than two items.
    """
    several = [np.asarray(means, float) for means in runs if len(means) > 1]
    if not several or len(items) < 2:
        return value
    parts = [(np.var(items, ddof=1) / len(items), len(items) - 1)]
    parts += [(means.var(ddof=1) / len(means), len(means) - 1) for means in several]
    variance = sum(part for part, _ in parts)
    if variance < 10 ** (-2 * DIGITS):
        return value
    freedom = variance**2 / sum(part**2 / free for part, free in parts)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance))
    return Estimate(value.mean, value.mean - half, value.mean + half, value.count)


def paired(ours: Values, theirs: Values, bounds: tuple[float, float] | None) -> Estimate:
    """Mean difference over the items of both, with a bootstrap interval; see `estimate` where all are equal."""
    values = np.array([ours[item] - theirs[item] for item in ours if item in theirs])
    if len(values) < 2 or np.ptp(values.round(9)) == 0:
        return estimate(values, bounds)
    draws = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def difference(
    ours: Sequence[Values], theirs: Sequence[Values], bounds: tuple[float, float] | None, same_runs: bool
) -> Estimate:
    """Mean difference between two rows, each measured by several runs, over the items of both.

    same_runs: the rows are of the same runs, so that the spread is that of each run's own difference.
    """
    mine, others = pooled(ours), pooled(theirs)
    common = [item for item in mine if item in others]
    if same_runs and len(ours) == len(theirs):
        pairs = zip(ours, theirs, strict=True)
        shared = [[one[item] - other[item] for item in one if item in other] for one, other in pairs]
        runs = [[float(np.mean(values)) for values in shared if values]]
    else:
        runs = [[_mean(one) for one in ours], [_mean(one) for one in theirs]]
    return over_runs(paired(mine, others, bounds), [mine[item] - others[item] for item in common], runs)


def flat(config: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """{dotted name: value} of what defines a run's numbers."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if not place and name in MACHINE:
            continue
        found |= flat(value, f"{place}{name}.") if isinstance(value, Mapping) else {f"{place}{name}": value}
    return found


def changes(configs: Sequence[Mapping[str, Any] | None]) -> list[tuple[str, list[str]]]:
    """The fields in which configs differ, their seeds aside, with the value of each; nothing is known of a None."""
    every = [None if config is None else flat(config) for config in configs]
    names = dict.fromkeys(name for one in every if one is not None for name in one if name != "seed")
    shown = {name: [UNKNOWN if one is None else str(one.get(name, ABSENT)) for one in every] for name in names}
    return [(name, values) for name, values in shown.items() if len(set(values) - {UNKNOWN}) > 1]


def _cells(
    found: Sequence[Column], values: Sequence[Mapping[Row, list[Values]]], measure: str
) -> dict[tuple[Row, int], Cell]:
    means = [{row: pooled(runs) for row, runs in one.items()} for one in values]
    bounds, cells = DIFFERENCE_BOUNDS[measure], {}
    for place, (column, own) in enumerate(zip(found, means, strict=True)):
        named = {(row.arm, row.round): row for row in own}
        comparable = column.items == found[0].items and column.judge == found[0].judge
        for row in own:
            untrained = column.untrained and column.untrained[:2]
            others = tables.compared_with(column.config, row[:2], untrained)
            each = values[place]
            over = {
                name: difference(each[row], each[named[other]], bounds, same_runs=True)
                for name, other in others.items()
                if other in named and row[:2] not in (other, untrained)
            }
            versus = None
            if place and comparable and row in means[0]:
                versus = difference(each[row], values[0][row], bounds, same_runs=False)
            runs, each_item = [_mean(one) for one in each[row]], list(own[row].values())
            value = over_runs(estimate(each_item, BOUNDS[measure]), each_item, [runs])
            cells[row, place] = Cell(value, runs, over, versus)
    return cells


def _mean(values: Values) -> float:
    return float(np.mean(list(values.values())))
