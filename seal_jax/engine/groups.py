"""Groups by length: the lanes of a step become a few calls of the step program, each with a length of its own, because
one length for all would make most of the tokens padding. Host code, numpy only.

Candidates do not see each other, so the split changes their results by rounding at most. It costs calls and programs:
what is minimised is the token slots computed, and so many more for each call and for each program.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from seal_jax.engine import packing
from seal_jax.engine.packing import Candidate, Lanes, Row, bucket, counted_width

# Both in token slots of SmolLM2-135M on a CPU, where a slot takes 12 ms of a core, and were measured there.
CALL = 32  # what one more call costs: it reads the base, and reads and writes the state of its lanes
PROGRAM = 512  # what one more program costs each chunk that has use for it; to compile one takes about 640, once


@dataclass(frozen=True)
class Part:
    """The part of a step that is one call: what its candidates train on, as in `packing.schedule_steps`, none for those
    of other parts; lanes of each device that are computed, and the length of their sequences."""

    slots: list[tuple[int, ...]]
    width: int
    length: int

    @property
    def size(self) -> tuple[int, int]:
        """(lanes of each device, length), which parts of one program have in common."""
        return self.width, self.length


def plan_parts(
    slotted: Sequence[Sequence[Row]],
    steps: Sequence[Sequence[tuple[int, ...]]],
    lanes: Lanes,
    limit: int,
    rows: int = 1,
) -> list[Part]:
    """The calls of all steps of a chunk, in order; at most `limit` of each step.

    slotted: every candidate's sequences, longest first; rows: sequences that a lane computes in a step. With a limit of
    1 every step is one call of the least shape that holds it. The plan depends on the arguments alone.
    """
    ranked = [_ranked(slotted, step, lanes) for step in steps]
    keys = [tuple(max(length for length, _ in rank) for rank in ranks) for ranks in ranked]
    splits = _Splits(keys, lanes.each, limit, rows)
    parts = []
    for step, ranks, key in zip(steps, ranked, keys, strict=True):
        for begin, end, (width, length) in splits.of(key):
            members = {candidate for rank in ranks[begin:end] for _, candidate in rank}
            slots = [own if candidate in members else () for candidate, own in enumerate(step)]
            parts.append(Part(slots, width, length))
    return parts


def plan_all(
    candidates: Sequence[Candidate], together: int, devices: int, limit: int, rows: int = 1
) -> Iterator[tuple[int, list[Part]]]:
    """(steps, their calls) of each chunk in which candidates train, at most `together` in one, `rows` sequences of each
    in a step: what a run will compute, without running it."""
    for chunk in packing.plan_chunks(candidates, rows, together):
        members = [candidates[index] for index in chunk]
        steps = packing.schedule_steps(members, rows)
        slotted = [packing.slots_of(one) for one in members]
        yield len(steps), plan_parts(slotted, steps, Lanes.holding(len(members), devices), limit, rows)


def places_widths(parts: Sequence[Part], weights: Sequence[np.ndarray]) -> dict[tuple[int, int], int]:
    """Room for the places of tokens that count, for all parts of a size, whose loss weights are weights[part] [..., T]:
    `packing.counted_width`, so that the parts share a program."""
    widths: dict[tuple[int, int], int] = {}
    for part, values in zip(parts, weights, strict=True):
        widths[part.size] = max(widths.get(part.size, 0), counted_width(values))
    return widths


def cheapest_runs(cost: np.ndarray, limit: int) -> tuple[float, list[tuple[int, int]]]:
    """The cheapest way to cut n things into at most `limit` runs: (cost, [(first, the one behind the last)]).

    cost [n+1, n+1] is that of the run from one to another, infinite where there is none; if no way goes, so is the sum,
    and there are no runs.
    """
    count = len(cost) - 1
    best, came = [cost[0]], []  # of the first ones, in one run, in two, ...
    for _ in range(1, limit):
        through = best[-1][:, None] + cost
        came.append(np.argmin(through, axis=0))
        best.append(np.min(through, axis=0))
    turns = int(np.argmin([values[count] for values in best]))
    total, runs, end = float(best[turns][count]), [], count
    while end and np.isfinite(total):
        begin = int(came[turns - 1][end]) if turns else 0
        runs.append((begin, end))
        end, turns = begin, turns - 1
    return total, runs[::-1]


def _ranked(slotted, step: Sequence[tuple[int, ...]], lanes: Lanes) -> list[list[tuple[int, int]]]:
    """(length, candidate) of those with data: first the longest of each device, then the second of each, and so on."""
    homes: list[list[tuple[int, int]]] = [[] for _ in range(lanes.devices)]
    for candidate, slots in enumerate(step):
        if slots:
            longest = max(len(slotted[candidate][slot].tokens) for slot in slots)
            homes[lanes.of(candidate) // lanes.each].append((longest, candidate))
    for home in homes:
        home.sort(key=lambda one: (-one[0], one[1]))
    return [[home[rank] for home in homes if rank < len(home)] for rank in range(max(map(len, homes)))]


Shape = tuple[int, int]  # (lanes of a device, length)
Run = tuple[int, int, Shape]  # (first rank, the one behind the last, shape)


class _Splits:
    """The cheapest split found of every kind of step; a kind is the lengths of its ranks, falling, one lane of each
    device."""

    def __init__(self, keys: Sequence[tuple[int, ...]], most: int, limit: int, rows: int):
        self.rows = rows
        self.counts = {key: keys.count(key) for key in sorted(set(keys))}
        lengths = sorted({bucket(length) for key in self.counts for length in key})
        widths = sorted({min(2**k, most) for k in range(most.bit_length() + 1)})
        self.shapes = [(width, length) for width in widths for length in lengths]
        plans = [self._plan(turns, few=limit > 1) for turns in range(1, limit + 1)]
        self.found = min(plans, key=self._total)

    def of(self, key: tuple[int, ...]) -> list[Run]:
        """The parts of a kind of step."""
        return self.found[key][1]

    def _plan(self, limit: int, few: bool) -> dict[tuple[int, ...], tuple[float, list[Run]]]:
        """Every kind's cost and parts, at most `limit` of them. `few`: shapes that save less than a program costs are
        left out, the least used first."""
        found = {key: self._split(key, self.shapes, limit) for key in self.counts}
        used = self._used(found)
        shapes = set(used)
        for shape in sorted(used, key=lambda one: (used[one], one)) if few else ():
            others = sorted(shapes - {shape})
            concerned = [key for key, (_, parts) in found.items() if any(part[2] == shape for part in parts)]
            again = {key: self._split(key, others, limit) for key in concerned}
            if sum(self.counts[key] * (again[key][0] - found[key][0]) for key in concerned) < PROGRAM:
                shapes.remove(shape)
                found |= again
        return found

    def _used(self, found: dict) -> dict[Shape, int]:
        """Token slots of each shape in a plan."""
        used: dict[Shape, int] = {}
        for key, (_, parts) in found.items():
            for _, _, shape in parts:
                used[shape] = used.get(shape, 0) + self.counts[key] * shape[0] * shape[1]
        return used

    def _total(self, found: dict) -> float:
        return sum(self.counts[key] * cost for key, (cost, _) in found.items()) + PROGRAM * len(self._used(found))

    def _split(self, key: tuple[int, ...], shapes: Sequence[Shape], limit: int) -> tuple[float, list[Run]]:
        """(cost, parts) of the cheapest split into at most `limit` runs of ranks; infinite where nothing holds them."""
        count = len(key)
        cost = np.full((count + 1, count + 1), np.inf)  # of the run from one rank to another
        choice = np.zeros(cost.shape, int)
        ends = np.arange(count + 1)
        runs = ends[None, :] - ends[:, None]
        for number, (width, length) in enumerate(shapes):
            slots = width * length * self.rows + CALL
            fits = np.array([size <= length for size in (*key, np.inf)])
            better = fits[:, None] & (runs > 0) & (runs <= width) & (slots < cost)
            cost[better], choice[better] = slots, number
        total, found = cheapest_runs(cost, limit)
        return total, [(begin, end, shapes[choice[begin, end]]) for begin, end in found]
