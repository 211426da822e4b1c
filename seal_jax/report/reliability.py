"""How much of what self-edits earn is theirs: the reliability of the mean accuracy of n inner loops on each."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from seal_jax.report.recorded import Record
from seal_jax.runs import keys

COUNTS = tuple(range(1, 11))

Groups = Mapping[tuple, Mapping[int, Sequence[float]]]  # of one item: {sample: accuracy of each retrain}


def curve(trials: Iterable[Record]) -> list[float] | None:
    """The ICC of the mean of 1 to 10 retrains, from the accuracy of a run's inner loops; None where it is not known."""
    groups: dict[tuple, dict[int, list[float]]] = {}
    for trial in trials:
        if trial["purpose"] == keys.REWARD and trial["failure"] is None:
            known = [float(verdict) for verdict in trial["correct"] or [] if verdict is not None]
            if known:
                of_item = groups.setdefault((trial["arm"], trial["round"], trial["item"]), {})
                of_item.setdefault(trial["sample"], []).append(float(np.mean(known)))
    found = variances(groups)
    if found is None or not any(found):
        return None
    between, within = found
    return [between / (between + within / count) if between else 0.0 for count in COUNTS]


def variances(groups: Groups) -> tuple[float, float] | None:
    """(variance between the self-edits of an item, variance between retrains of one): a one-way analysis of variance.

    Self-edits with one inner loop alone tell nothing and are left out; all others count by their first loops, as many
    as the least of them has. None where fewer than two self-edits of an item are left.
    """
    kept = [[values for values in samples.values() if len(values) > 1] for samples in groups.values()]
    kept = [samples for samples in kept if len(samples) > 1]
    if not kept:
        return None
    retrains = min(len(values) for samples in kept for values in samples)
    tables = [np.array([values[:retrains] for values in samples]) for samples in kept]  # [self-edit, retrain]
    inside = sum(((table - table.mean(1, keepdims=True)) ** 2).sum() for table in tables)
    across = sum(retrains * ((table.mean(1) - table.mean()) ** 2).sum() for table in tables)
    within = inside / sum(len(table) * (retrains - 1) for table in tables)
    between = (across / sum(len(table) - 1 for table in tables) - within) / retrains
    return max(float(between), 0.0), float(within)
