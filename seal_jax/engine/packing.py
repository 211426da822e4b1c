"""How candidates' sequences become arrays: length buckets, chunks, and the order of the steps. Host code, numpy only.

Each candidate's sequences are sorted by length into slots, longest first, and one permutation of slots per epoch serves
the whole chunk: every candidate sees a uniformly random order of its own data, and at each step all candidates have
sequences of similar length, so that little padding is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Row:
    """One training sequence: token ids and their loss weights, of equal length.

    teacher: ids of what a teacher reads before the text, where there is one; the text begins at the first token that
    has a loss weight and goes to the end. targets: what it expects there, (ids int32, probabilities float32) [text, K].
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    teacher: tuple[int, ...] = ()
    targets: tuple[np.ndarray, np.ndarray] | None = field(default=None, compare=False)

    @property
    def text(self) -> tuple[int, ...]:
        """The ids from the first token that has a loss weight on."""
        return self.tokens[next((i for i, weight in enumerate(self.weights) if weight), len(self.tokens)) :]


@dataclass(frozen=True)
class Candidate:
    """One inner loop: its data, hyper-parameters, and the numbers that seed its adapter and its data order.

    Candidates with the same `order` see their sequences in the same order of slots and may share a chunk.
    """

    rows: tuple[Row, ...]
    learning_rate: float
    epochs: int
    warmup_steps: int
    seed: tuple[int, ...]  # of the adapter
    order: tuple[int, ...]  # of the data order


def bucket(length: int, smallest: int = 16) -> int:
    """The least of smallest × {1, 1.25, 1.5, 1.75} × 2^k, rounded to a multiple of 8, that holds `length`."""
    size = smallest
    while size < length:
        for quarter in (5, 6, 7):
            between = -(-size * quarter // 32) * 8
            if length <= between:
                return between
        size *= 2
    return size


def count_bucket(count: int) -> int:
    """The least of 1, 2, … 8, 12, 16, 24, 32, … that is at least `count`."""
    size = 8
    while size < count:
        if size + size // 2 >= count:
            return size + size // 2
        size *= 2
    return size if count > 8 else count


def row_bucket(count: int) -> int:
    """The least number that is at least `count` and has no more than four binary digits before its zeros: 1, 2, … 16,
    18, … 32, 36, … 64, 72, …, so that at most an eighth of the rows is padding."""
    step = 1 << max(0, (count - 1).bit_length() - 4)
    return -(-count // step) * step


def count_buckets(limit: int) -> list[int]:
    """All values of `count_bucket` for counts up to `limit`, rising."""
    return sorted({count_bucket(count) for count in range(1, limit + 1)})


def steps_of(candidate: Candidate, batch: int) -> int:
    """Optimizer steps of a candidate in all its epochs, `batch` sequences each."""
    return candidate.epochs * -(-len(candidate.rows) // batch)


def plan_chunks(candidates: Sequence[Candidate], batch: int, limit: int) -> list[list[int]]:
    """Indices of candidates that train together, at most `limit` in a chunk.

    Only candidates with the same data order share a chunk (so retrains of one candidate go to different ones), and
    among them those of similar step count and length. Chunks are sorted by data order, then by cost: without the
    candidates of the first chunks, the others are chunked as before.
    """
    by_order: dict[tuple[int, ...], list[int]] = {}
    for index, candidate in enumerate(candidates):
        by_order.setdefault(candidate.order, []).append(index)

    def cost(index):
        candidate = candidates[index]
        lengths = sorted((len(row.tokens) for row in candidate.rows), reverse=True)
        return steps_of(candidate, batch), lengths, index

    chunks = []
    for order in sorted(by_order):
        members = sorted(by_order[order], key=cost)
        chunks += [members[i : i + limit] for i in range(0, len(members), limit)]
    return chunks


def epoch_order(order: tuple[int, ...], epoch: int, count: int) -> np.ndarray:
    """A uniformly random permutation of `count` slots; that of fewer slots is its restriction to them."""
    return np.argsort(np.random.default_rng([*order, epoch]).random(count), kind="stable")


def schedule_steps(candidates: Sequence[Candidate], batch: int) -> list[list[tuple[int, ...]]]:
    """What each candidate trains on at each step: [step][candidate] -> slots, none where it has no data left.

    With one sequence a step, all candidates train on the same slot at the same step; larger batches are drawn
    consecutively from each candidate's own order.
    """
    steps = []
    for epoch in range(max(candidate.epochs for candidate in candidates)):
        lanes = []
        for candidate in candidates:
            count = len(candidate.rows) if epoch < candidate.epochs else 0
            slots = epoch_order(candidate.order, epoch, count).tolist()
            lanes.append([tuple(slots[i : i + batch]) for i in range(0, count, batch)])
        if batch == 1:
            longest = max(len(lane) for lane in lanes)
            order = epoch_order(candidates[0].order, epoch, longest).tolist()
            steps += [[(slot,) if slot < len(lane) else () for lane in lanes] for slot in order]
        else:
            longest = max(len(lane) for lane in lanes)
            steps += [[lane[i] if i < len(lane) else () for lane in lanes] for i in range(longest)]
    return steps


def slots_of(candidate: Candidate) -> list[Row]:
    """The candidate's sequences, longest first."""
    return sorted(candidate.rows, key=lambda row: -len(row.tokens))


@dataclass(frozen=True)
class Lanes:
    """The lanes of a candidate axis, equally many on each device. Candidates go to the devices in turn; a lane without
    a candidate is padding."""

    total: int
    devices: int

    @staticmethod
    def holding(count: int, devices: int) -> "Lanes":
        """The least bucketed number of lanes for `count` candidates."""
        return Lanes(count_bucket(-(-count // devices)) * devices, devices)

    @property
    def each(self) -> int:
        """Lanes of one device."""
        return self.total // self.devices

    def of(self, candidate: int) -> int:
        """The lane index of a candidate."""
        return candidate % self.devices * self.each + candidate // self.devices

    def spread(self, items: Sequence) -> list:
        """`items`, one for each candidate, in the order of the lanes; padding lanes repeat the last one."""
        filled = [items[-1]] * self.total
        for candidate, item in enumerate(items):
            filled[self.of(candidate)] = item
        return filled


def computed_lanes(step: Sequence[tuple[int, ...]], lanes: Lanes, width: int = 0) -> list[int]:
    """The lane indices to compute at a step, equally many on each device, rising.

    On each device these are the lanes with data, padded with lanes without to `width` of them; for a width of 0 to a
    power of two, or to all of its lanes.
    """
    busy = {lanes.of(candidate) for candidate, slots in enumerate(step) if slots}
    homes = [range(device * lanes.each, (device + 1) * lanes.each) for device in range(lanes.devices)]
    if not width:
        width = 2 ** (max(sum(lane in busy for lane in home) for home in homes) - 1).bit_length()
    chosen = []
    for home in homes:
        busy_first = sorted(home, key=lambda lane: (lane not in busy, lane))
        chosen += sorted(busy_first[: min(width, lanes.each)])
    return chosen


def fill_step(
    slotted: Sequence[Sequence[Row]],
    step: Sequence[tuple[int, ...]],
    shape: tuple[int, int],
    lanes: Lanes,
    size: tuple[int, int] = (0, 0),
) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """One step's arrays: (the c lanes computed, tokens int32 and weights float32 [c, A, B, T], valid bool [c]).

    `shape` is (A, B), micro-batches and sequences in each; `size` is (c on each device, T), 0 for the least bucket that
    holds the step. `valid` is False for lanes without data at this step.
    """
    micro, batch = shape
    width, length = size
    if not length:
        rows = (slotted[candidate][slot] for candidate, slots in enumerate(step) for slot in slots)
        length = bucket(max(len(row.tokens) for row in rows))
    chosen = computed_lanes(step, lanes, width)
    tokens = np.zeros((len(chosen), micro * batch, length), np.int32)
    weights = np.zeros(tokens.shape, np.float32)
    valid = np.zeros(len(chosen), bool)
    for index, place, row in _placed(slotted, step, chosen, lanes):
        valid[index] = True
        tokens[index, place, : len(row.tokens)] = row.tokens
        weights[index, place, : len(row.tokens)] = row.weights
    split = (len(chosen), micro, batch, tokens.shape[-1])
    return chosen, tokens.reshape(split), weights.reshape(split), valid


def counted_width(weights: np.ndarray) -> int:
    """Room P for the places of the tokens of each row whose loss weight [..., T] is not 0: a multiple of a quarter of
    T, or of 16 in short rows; T where three quarters of it do not hold them. The first token of a row is none of them.
    """
    length = weights.shape[-1]
    unit = max(16, length // 4)
    width = max(1, -(-int((weights[..., 1:] != 0).sum(-1).max()) // unit)) * unit
    return length if width > 3 * length // 4 else width


def counted_places(weights: np.ndarray, width: int = 0) -> np.ndarray | None:
    """Places of the tokens whose loss weight [..., T] is not 0, int32 [..., P] rising, and 0 behind them.

    P is `width`, or for 0 their `counted_width`; None where that is T.
    """
    width = width or counted_width(weights)
    if width == weights.shape[-1]:
        return None
    counts = weights[..., 1:] != 0
    places = np.argsort(~counts, axis=-1, kind="stable")[..., :width]
    return np.where(np.take_along_axis(counts, places, -1), places + 1, 0).astype(np.int32)


def targets_width(slotted: Sequence[Sequence[Row]], step: Sequence[tuple[int, ...]]) -> int:
    """K of the teacher's targets at a step; 0 where none of its rows has any."""
    rows = [slotted[candidate][slot] for candidate, slots in enumerate(step) for slot in slots]
    return max((row.targets[0].shape[1] for row in rows if row.targets is not None), default=0)


def fill_targets(
    slotted: Sequence[Sequence[Row]], step: Sequence[tuple[int, ...]], shape: tuple[int, ...], lanes: Lanes
) -> tuple[np.ndarray, np.ndarray] | None:
    """The teacher's targets of one step, aligned with its tokens: ids int32 and probabilities float32 [c, A, B, T, K].

    `shape` is that of the tokens, [c, A, B, T]. Rows without a teacher have probabilities of 0. None where no row has
    one.
    """
    width = targets_width(slotted, step)
    if not width:
        return None
    count, micro, batch, length = shape
    ids = np.zeros((count, micro * batch, length, width), np.int32)
    probs = np.zeros(ids.shape, np.float32)
    chosen = computed_lanes(step, lanes, count // lanes.devices)
    for index, place, row in _placed(slotted, step, chosen, lanes):
        if row.targets is not None:
            end = len(row.tokens)
            begin = end - len(row.targets[0])
            ids[index, place, begin:end], probs[index, place, begin:end] = row.targets
    return ids.reshape(*shape, width), probs.reshape(*shape, width)


def _placed(slotted, step, chosen: Sequence[int], lanes: Lanes) -> Iterator[tuple[int, int, Row]]:
    """The rows of a step, each with its places among the chosen lanes and in its lane."""
    place_of = {lane: place for place, lane in enumerate(chosen)}
    for candidate, slots in enumerate(step):
        for place, slot in enumerate(slots):
            yield place_of[lanes.of(candidate)], place, slotted[candidate][slot]
