"""The pictures of the report: matplotlib figures as data URIs, so that the page needs no other file."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seal_jax.report.cells import SCALES
from seal_jax.report.estimates import Estimate
from seal_jax.report.recorded import round_label
from seal_jax.report.tables import Line, Round
from seal_jax.runs import keys

WIDTH = 4.8  # inches: narrow enough to be read on a telephone
INK, GREY, PALE = "#1f2933", "#6b7785", "#c6cdd5"
CURVES = ("#0b6fa4", "#b3541e", "#1a7f37", "#7a3e9d", "#6b7785")
COLORS = {keys.SEAL: "#0b6fa4", keys.RANDOM: "#b3541e"}


def rows(lines: Sequence[Line], measure: str, label: str) -> str:
    """Each row's mean with its 95% interval; the first, where nothing is trained, as a vertical line."""
    scale, _ = SCALES[measure]
    figure, axes = _figure(0.9 + 0.34 * len(lines))
    for place, line in enumerate(lines):
        value = line.measures[measure]
        shape = {"fmt": "o", "color": _color(line.arm), "capsize": 3, "lw": 1.6, "ms": 5}
        axes.errorbar(value.mean * scale, place, xerr=_reach([value]) * scale, **shape)
    axes.axvline(lines[0].measures[measure].mean * scale, color=PALE, lw=1, zorder=0)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel(label)
    if measure == "accuracy" and axes.get_xlim()[1] < 1:  # all wrong: no axis around zero that ends at fractions
        axes.set_xlim(-1, 10)
    return _uri(figure)


def rewards_by_round(found: Sequence[Round]) -> str:
    """The mean reward of all self-edits (hollow) and of the chosen ones (full), round by round, with 95% intervals."""
    figure, axes = _figure(3.6)
    series: dict[tuple[str, bool], list[Round]] = {}
    for entry in found:
        series.setdefault((entry.arm, entry.heldout), []).append(entry)
    shift = dict(zip(series, np.linspace(-0.08, 0.08, len(series)) if len(series) > 1 else [0.0], strict=True))
    for (arm, heldout), entries in series.items():
        color = _color(arm)
        name = arm + (", held out" if heldout else "")
        x = np.array([entry.number for entry in entries]) + shift[arm, heldout]
        for kind, face, aside in (("all", "white", 0.0), ("chosen", color, 0.03)):
            values = [getattr(entry, kind) for entry in entries]
            shape = {"marker": "s", "ls": ":"} if heldout else {"marker": "o", "ls": "-"}
            shape |= {"color": color, "mfc": face, "lw": 1.4, "capsize": 3, "ms": 6}
            means = [value.mean for value in values]
            axes.errorbar(x + aside, means, yerr=_reach(values), label=f"{name}: {kind}", **shape)
    axes.set_xticks(sorted({entry.number for entry in found}))
    axes.set_xlim(0.5, max(entry.number for entry in found) + 0.5)
    axes.set_xlabel("round")
    axes.set_ylabel("mean reward")
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=min(len(series), 2))
    return _uri(figure)


def reward_distribution(rollouts: Sequence[Mapping]) -> str:
    """Every self-edit's reward by round, those that taught the policy in colour; below them the quartiles, with a tick
    at the median."""
    rounds: dict[tuple[str, int], list[Mapping]] = {}
    for record in rollouts:
        if record["rewards"] is not None:
            rounds.setdefault((record["arm"], record["round"]), []).append(record)
    figure, axes = _figure(1.1 + 0.75 * len(rounds))
    jitter = np.random.default_rng(0)
    for place, ((arm, _), of_round) in enumerate(rounds.items()):
        for chosen, style in ((False, {"color": GREY, "s": 14}), (True, {"color": _color(arm), "s": 30})):
            values = [
                value
                for record in of_round
                for k, value in enumerate(record["rewards"])
                if value is not None and (k in record["chosen"]) == chosen
            ]
            axes.scatter(values, place + jitter.uniform(-0.28, 0.2, len(values)), alpha=0.75, lw=0, **style)
        known = [value for record in of_round for value in record["rewards"] if value is not None]
        if known:
            low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
            axes.plot([low, high], [place + 0.34] * 2, color=INK, lw=1.6)
            axes.plot([middle] * 2, [place + 0.26, place + 0.42], color=INK, lw=1.6)
    axes.scatter([], [], color=GREY, s=14, label="self-edit")
    axes.scatter([], [], color=COLORS[keys.SEAL], s=30, label="chosen")
    axes.plot([], [], color=INK, lw=1.6, label="quartiles, median")
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    axes.set_yticks(range(len(rounds)), [round_label(*key) for key in rounds])
    axes.set_ylim(len(rounds) - 0.5, -0.5)
    axes.set_xlabel("reward")
    return _uri(figure)


def matrix(mean: np.ndarray) -> str:
    """Accuracies [K + 1, K] from 0 to 1, of passage k after n updates, as shades with their numbers in percent."""
    rows, columns = mean.shape
    figure, axes = _figure(0.9 + 0.36 * rows)
    axes.imshow(mean, cmap="Blues", vmin=0, vmax=max(0.01, np.nanmax(mean, initial=0)) * 1.6, aspect="auto")
    for n, k in zip(*np.nonzero(np.isfinite(mean)), strict=True):
        axes.text(k, n, f"{100 * mean[n, k]:.0f}", ha="center", va="center", color=INK, fontsize=9)
    axes.grid(False)
    axes.set_xticks(range(columns), range(1, columns + 1))
    axes.set_yticks(range(rows), ["untrained", *range(1, rows)])
    axes.set_xlabel("passage, in the order of learning")
    axes.set_ylabel("passages learned")
    return _uri(figure)


def highest(grids: Mapping[str, Mapping[str, Mapping[int, Line]]]) -> float:
    """The greatest accuracy of some grids, from 0 to 1, its interval included where it has one."""
    values = [line.measures["accuracy"] for rates in grids.values() for cells in rates.values()
              for line in cells.values()]  # fmt: skip
    return float(np.nanmax([value.high if value.has_interval else value.mean for value in values], initial=0.01))


def by_epochs(found: Mapping[str, Mapping[int, Line]], top: float) -> str:
    """Accuracy by epochs, on a logarithmic axis, with 95% intervals: a curve for each learning rate.

    top: accuracy from 0 to 1 up to which the axis reaches, the same for pictures that are to be compared.
    """
    figure, axes = _figure(3.6)
    scale, _ = SCALES["accuracy"]
    shades = np.linspace(0.9, 0.35, len(found))
    for (rate, cells), shade in zip(found.items(), shades, strict=True):
        epochs = sorted(cells)
        values = [cells[count].measures["accuracy"] for count in epochs]
        means = np.array([value.mean for value in values])
        shape = {"marker": "o", "color": str(1 - shade), "lw": 1.4, "capsize": 3, "ms": 5}
        axes.errorbar(epochs, means * scale, yerr=_reach(values) * scale, label=f"learning rate {rate}", **shape)
    axes.set_ylim(0, 1.05 * top * scale)
    ticks = sorted({count for cells in found.values() for count in cells})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.minorticks_off()
    axes.set_xlabel("epochs")
    axes.set_ylabel("accuracy, %")
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    return _uri(figure)


def reliability(curve: Sequence[float]) -> str:
    """The reliability of the mean of 1, 2, … inner loops."""
    figure, axes = _figure(2.8)
    counts = range(1, len(curve) + 1)
    axes.plot(counts, curve, "o-", color=COLORS[keys.SEAL], lw=1.6, ms=5)
    axes.set_xticks(list(counts))
    axes.set_ylim(0, 1)
    axes.set_xlabel("inner loops on each self-edit")
    axes.set_ylabel("reliability (ICC)")
    axes.grid(axis="y", color="#e8ebee", lw=0.8)
    return _uri(figure)


def losses(inner: Mapping[str, Sequence[float]], outer: Mapping[tuple[str, str], float]) -> str:
    """Loss in the last epoch: of inner loops by row or round (points and their median), of one model by name, arm."""
    names = [*inner, *(name for name, _ in outer)]
    figure, axes = _figure(0.9 + 0.34 * len(names))
    jitter = np.random.default_rng(0)
    for place, values in enumerate(inner.values()):
        axes.scatter(values, place + jitter.uniform(-0.2, 0.2, len(values)), color=GREY, s=10, alpha=0.5, lw=0)
        axes.plot([np.median(values)] * 2, [place - 0.3, place + 0.3], color=INK, lw=2)
    for place, ((_, arm), value) in enumerate(outer.items(), len(inner)):
        axes.plot(value, place, "D", color=_color(arm), ms=6)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("loss, nats per token")
    return _uri(figure)


def loss_curves(found: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Loss of inner loops by epoch: of each round the median over its loops, and a band between the quartiles."""
    figure, axes = _figure(3.0)
    grid = np.linspace(0, 1, 41)
    for place, (name, curves) in enumerate(found.items()):
        on_grid = [np.interp(grid, (np.arange(len(curve)) + 0.5) / len(curve), curve) for curve in curves]
        low, middle, high = np.quantile(on_grid, [0.25, 0.5, 0.75], axis=0)
        color = CURVES[place % len(CURVES)]
        axes.fill_between(grid, low, high, color=color, alpha=0.15, lw=0)
        axes.plot(grid, middle, color=color, lw=1.8, label=name)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of the inner loop")
    axes.set_ylabel("loss, nats per token")
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    return _uri(figure)


def _reach(values: Sequence[Estimate]) -> np.ndarray:
    """[2, values]: how far each interval reaches below and above its mean; 0 where there is none."""
    pairs = [(v.mean - v.low, v.high - v.mean) if v.has_interval else (0.0, 0.0) for v in values]
    return np.array(pairs).T


def _color(arm: str) -> str:
    return COLORS.get(arm, INK)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), dpi=160, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e8ebee", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, color=GREY, labelcolor=INK)
    return figure, axes


def _uri(figure: Figure) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", facecolor="white")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
