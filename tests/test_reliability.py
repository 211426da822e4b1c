"""Reliability: variances that are put in come out, and what cannot tell is left out."""

import numpy as np
import pytest

from seal_jax.report import figures
from seal_jax.report.reliability import COUNTS, curve, variances


def simulated(items, samples, retrains, between, within, seed=0):
    rng = np.random.default_rng(seed)
    groups = {}
    for item in range(items):
        worth = rng.normal(rng.normal(0, 5), between, samples)  # items differ by much more, which must not count
        groups[item,] = {k: rng.normal(worth[k], within, retrains).tolist() for k in range(samples)}
    return groups


@pytest.mark.parametrize(("between", "within"), [(1.0, 0.5), (0.3, 1.0)])
def test_variances_that_are_put_in_come_out(between, within):
    found = variances(simulated(3000, 5, 3, between, within))
    assert found[0] == pytest.approx(between**2, rel=0.1)
    assert found[1] == pytest.approx(within**2, rel=0.05)


def test_by_hand():
    """Two self-edits with means 1 and 3: between 2 · 2 / 1 over, within ((1)² · 2 + 0) / 2."""
    between, within = variances({("a",): {0: [0.0, 2.0], 1: [3.0, 3.0]}})
    assert within == pytest.approx(1.0) and between == pytest.approx((2 * 2 - 1.0) / 2)


def trial(item, sample, retrain, correct, **others):
    return {"purpose": "reward", "failure": None, "arm": "SEAL", "round": 1, "item": item, "sample": sample,
            "retrain": retrain, "correct": correct} | others  # fmt: skip


def test_the_curve_rises_with_retrains_and_leaves_out_what_failed():
    rng = np.random.default_rng(1)
    trials = []
    for item in "abcdefgh":
        for sample in range(4):
            chance = rng.random()
            trials += [trial(item, sample, r, (rng.random(5) < chance).tolist()) for r in range(3)]
    found = curve(trials)
    assert len(found) == len(COUNTS) and all(a < b for a, b in zip(found, found[1:], strict=False))
    assert 0 < found[0] < 1
    worse = [trial("a", 0, 9, [True] * 5, failure="diverged"), trial("a", 0, 9, None),
             trial("a", 0, 9, [True], purpose="answers")]  # fmt: skip
    assert curve(trials + worse) == found
    assert figures.reliability(found).startswith("data:image/png;base64,")


def test_where_nothing_is_known_there_is_no_curve():
    assert curve([]) is None
    assert curve([trial("a", k, 0, [True, False]) for k in range(4)]) is None  # one loop each
    assert curve([trial("a", 0, r, [True]) for r in range(4)]) is None  # one self-edit
    assert curve([trial("a", k, r, [True]) for k in range(3) for r in range(2)]) is None  # nothing differs
