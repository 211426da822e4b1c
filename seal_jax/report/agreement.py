"""How far a judge's ratings of self-edits agree with what the self-edits earn by inner loops.

The rubric is a proxy (arXiv 2506.10943, proxy reward); in the authors' released files its rank correlation with the
reward is about .09 within a passage.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import stats

from seal_jax.report.estimates import Estimate, estimate
from seal_jax.report.recorded import Recorded


def of_run(recorded: Recorded) -> Estimate | None:
    """Spearman's correlation of rating and reward within an item, mean and 95% interval over items.

    None where the run has no ratings beside rewards by inner loops, or they say nothing (see `within`).
    """
    if recorded.config.get("reward", {}).get("kind") == "rubric":
        return None  # the ratings are the rewards
    earned = {(one["arm"], one["round"], one["item"]): one["rewards"] for one in recorded.rollouts if one["rewards"]}
    groups: dict[tuple, list[tuple[float, float]]] = {}
    for rating in recorded.ratings:
        key = rating["arm"], rating["round"], rating["item"]
        reward = earned[key][rating["sample"]] if key in earned else None
        if reward is not None and rating["total"] is not None:
            groups.setdefault(key, []).append((rating["total"], reward))
    rounds: dict[str, list[float]] = {}
    for (_, _, item), pairs in groups.items():
        rounds.setdefault(item, []).extend(within([pairs]))
    found = [float(np.mean(values)) for values in rounds.values() if values]
    return estimate(found, (-1.0, 1.0)) if found else None


def within(groups: Iterable[Sequence[tuple[float, float]]]) -> list[float]:
    """Spearman's correlation of each group of pairs, ties by their mean rank. Groups of one, or in which either number
    is always the same, say nothing and are left out."""
    found = []
    for pairs in groups:
        ranks = [stats.rankdata(values) for values in zip(*pairs, strict=True)]
        if len(pairs) > 1 and all(np.ptp(values) > 0 for values in ranks):
            found.append(float(np.corrcoef(*ranks)[0, 1]))
    return found
