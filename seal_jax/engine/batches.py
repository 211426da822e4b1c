"""Prompts or rows of unlike length in batches of like length: each is padded to the longest of its batch. Host code."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from seal_jax.engine.calls import Calls
from seal_jax.engine.groups import cheapest_runs
from seal_jax.engine.packing import Lanes, bucket, count_bucket, row_bucket
from seal_jax.engine.programs import Programs
from seal_jax.engine.weights import Weights

Place = tuple[int, int]  # (candidate, query)


def by_length(
    calls: Calls,
    programs: Programs,
    weights: Weights,
    lengths: Sequence[Sequence[int]],
    extra: int,
    run: Callable[[Weights, list[list[Place]]], list[list[Any]]],
) -> list[list[Any]]:
    """What `run` gives for each query [c][q], whose lengths are lengths[c][q], in one batch or in several.

    run(weights, places) computes one batch, in lanes of places, and gives values in the same order; `weights` has the
    adapters of its lanes. Without adapters there is one lane, whose queries are divided; with them, whole candidates
    are. One more batch must save more than `extra` token slots of a device; there are at most `length_groups`.
    """
    alone, devices = weights.adapters is None, calls.layout.devices
    whole = [[(c, q) for q in range(len(lane))] for c, lane in enumerate(lengths)]
    items = [[place] for place in whole[0]] if alone else [lane for lane in whole if lane]
    items.sort(key=lambda item: (-max(lengths[c][q] for c, q in item), item))
    longest = [bucket(max(lengths[c][q] for c, q in item)) for item in items]
    widest = [len(item) for item in items]

    def slots(begin: int, end: int) -> int:
        count = -(-(end - begin) // devices)
        rows = row_bucket(count) if alone else count_bucket(count) * row_bucket(max(widest[begin:end]))
        return rows * longest[begin]

    padding = sum(size * (longest[0] - length) for size, length in zip(widest, longest, strict=True))
    if padding // devices <= extra or calls.settings.length_groups == 1:
        return run(weights, whole)
    cost = np.full((len(items) + 1,) * 2, np.inf)
    for begin in range(len(items)):
        for end in range(begin + 1, len(items) + 1):
            cost[begin, end] = slots(begin, end) + extra
    _, runs = cheapest_runs(cost, calls.settings.length_groups)
    if len(runs) == 1:
        return run(weights, whole)
    out: list[list[Any]] = [[None] * len(lane) for lane in lengths]
    for begin, end in runs:
        part = sorted(items[begin:end])
        if alone:
            part = [[place for [place] in part]]
            values = run(weights, part)
        else:
            values = run(_of_candidates(calls, programs, weights, [lane[0][0] for lane in part]), part)
        for lane, found in zip(part, values, strict=True):
            for (c, q), value in zip(lane, found, strict=True):
                out[c][q] = value
    return out


def _of_candidates(calls: Calls, programs: Programs, weights: Weights, candidates: Sequence[int]) -> Weights:
    """The same weights with the adapters of these candidates alone."""
    total, devices = jax.tree.leaves(weights.adapters)[0].shape[0], calls.layout.devices
    sources = [Lanes(total, devices).of(candidate) for candidate in candidates]
    order = np.array(Lanes.holding(len(sources), devices).spread(sources), np.int32)
    chosen = programs.run(calls.join(calls.layout.put(order), [weights.adapters]))
    return replace(weights, adapters=chosen)
