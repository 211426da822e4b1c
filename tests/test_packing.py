"""Buckets, chunks, orders: nothing is lost or shown twice, and no candidate's order depends on its neighbours."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal_jax.engine import packing
from seal_jax.engine.packing import Candidate, Lanes, Row

CHI_SQUARE_23 = 49.7  # 99.9% point, 23 degrees of freedom


def row(length, mark=0):
    return Row((mark,) * length, (1.0,) * length)


def make(lengths, epochs=1, order=(1,), mark=0):
    """A candidate whose rows can be told apart: row i is full of the number mark + i."""
    rows = tuple(row(length, mark + i) for i, length in enumerate(lengths))
    return Candidate(rows, 1e-3, epochs, 0, seed=(0,), order=order)


ORDERS = st.tuples(st.integers(0, 3), st.integers(0, 2**32 - 1))
SIZES = st.lists(st.integers(1, 200), min_size=0, max_size=12)
CANDIDATES = st.lists(st.tuples(SIZES, st.integers(1, 4)), min_size=1, max_size=6)


def chunk_of(described, order):
    return [make(lengths, epochs, order, 100 * i) for i, (lengths, epochs) in enumerate(described)]


# Buckets


@settings(deadline=None)
@given(st.integers(1, 20_000), st.sampled_from([8, 16, 64]))
def test_bucket_is_tight(length, smallest):
    size = packing.bucket(length, smallest)
    assert size >= length and size % 8 == 0
    assert packing.bucket(size, smallest) == size
    assert size == smallest or size < 1.25 * length + 8


@settings(deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_bucket_is_monotone(a, b):
    small, large = sorted((a, b))
    assert packing.bucket(small) <= packing.bucket(large)


def test_buckets_are_few():
    assert [packing.bucket(n) for n in (1, 16, 17, 33, 41, 49, 57, 65)] == [16, 16, 24, 40, 48, 56, 64, 80]
    assert len({packing.bucket(n) for n in range(1, 8193)}) <= 4 * 9


def test_count_buckets():
    assert [packing.count_bucket(n) for n in range(1, 9)] == list(range(1, 9))
    assert [packing.count_bucket(n) for n in (9, 12, 13, 16, 17, 25, 33, 49)] == [12, 12, 16, 16, 24, 32, 48, 64]
    assert len({packing.count_bucket(n) for n in range(1, 4097)}) == 8 + 2 * 9
    counts = 1, 2, 9, 13, 16, 17, 31, 33, 50, 64, 65
    assert [packing.row_bucket(n) for n in counts] == [1, 2, 9, 13, 16, 18, 32, 36, 52, 64, 72]
    assert all(n <= packing.row_bucket(n) <= n * 9 / 8 for n in range(1, 4097))
    assert len({packing.row_bucket(n) for n in range(1, 4097)}) == 16 + 8 * 8


# Orders


def test_permutations_are_uniform():
    """All 24 orders of four slots, over seeds and over the epochs of one seed."""
    for numbers in ([((seed,), 0) for seed in range(2400)], [((7, 8), epoch) for epoch in range(2400)]):
        seen = Counter(tuple(packing.epoch_order(order, epoch, 4).tolist()) for order, epoch in numbers)
        assert set(seen) <= set(permutations(range(4)))
        statistic = sum((seen[p] - 100) ** 2 / 100 for p in permutations(range(4)))
        assert statistic < CHI_SQUARE_23


@settings(deadline=None)
@given(ORDERS, st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_fewer_slots_keep_the_order_of_more(order, epoch, few, more):
    few, more = sorted((few, more))
    whole = packing.epoch_order(order, epoch, more).tolist()
    assert sorted(whole) == list(range(more))
    assert packing.epoch_order(order, epoch, few).tolist() == [slot for slot in whole if slot < few]


def test_every_number_of_the_seed_matters():
    orders = [packing.epoch_order(order, epoch, 30).tolist() for order in ((1, 2), (2, 1), (1,)) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == len(orders)


# Steps


@settings(deadline=None)
@given(CANDIDATES, ORDERS, st.integers(1, 5))
def test_each_slot_is_shown_once_an_epoch(described, order, batch):
    chunk = chunk_of(described, order)
    steps = packing.schedule_steps(chunk, batch)
    assert all(len(step) == len(chunk) and any(step) for step in steps)
    for lane, candidate in enumerate(chunk):
        own = [step[lane] for step in steps if step[lane]]
        assert len(own) == packing.steps_of(candidate, batch)
        assert all(len(slots) <= batch for slots in own)
        count = len(candidate.rows)
        shown = [slot for slots in own for slot in slots]
        for epoch in range(candidate.epochs):
            assert sorted(shown[epoch * count : (epoch + 1) * count]) == list(range(count))


@settings(deadline=None)
@given(CANDIDATES, ORDERS, st.integers(1, 5))
def test_a_candidate_sees_the_order_that_it_sees_alone(described, order, batch):
    chunk = chunk_of(described, order)
    steps = packing.schedule_steps(chunk, batch)
    for lane, candidate in enumerate(chunk):
        alone = [step[0] for step in packing.schedule_steps([candidate], batch)]
        assert [step[lane] for step in steps if step[lane]] == alone
        count = len(candidate.rows)
        by_hand = [packing.epoch_order(order, e, count).tolist() for e in range(candidate.epochs)]
        assert [slot for slots in alone for slot in slots] == [slot for epoch in by_hand for slot in epoch]


def test_with_one_row_a_step_candidates_meet_at_their_slots():
    """At each step all have rows of similar length: the same slot, of rows sorted by length."""
    chunk = [make((50, 9, 30), 2), make((12, 40), 2), make((7, 60, 20, 33), 2)]
    for step in packing.schedule_steps(chunk, 1):
        assert len({slots for slots in step if slots}) == 1
    assert [len(r.tokens) for r in packing.slots_of(chunk[2])] == [60, 33, 20, 7]


# Chunks


@settings(deadline=None)
@given(
    st.lists(st.tuples(SIZES, st.integers(1, 4), st.integers(0, 2)), min_size=0, max_size=20),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_chunks_are_a_partition(described, batch, limit):
    candidates = [make(lengths, epochs, (order,)) for lengths, epochs, order in described]
    chunks = packing.plan_chunks(candidates, batch, limit)
    assert sorted(i for chunk in chunks for i in chunk) == list(range(len(candidates)))
    assert all(1 <= len(chunk) <= limit for chunk in chunks)
    assert all(len({candidates[i].order for i in chunk}) == 1 for chunk in chunks)
    per_order = Counter(candidate.order for candidate in candidates)
    assert len(chunks) == sum(-(-count // limit) for count in per_order.values())
    assert chunks == packing.plan_chunks(list(candidates), batch, limit)
    for order in per_order:  # of similar step count: sorted by it
        steps = [packing.steps_of(candidates[i], batch) for c in chunks for i in c if candidates[i].order == order]
        assert steps == sorted(steps)


@settings(deadline=None)
@given(
    st.lists(st.tuples(SIZES, st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=20),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 10),
)
def test_the_rest_of_a_list_is_chunked_as_in_the_whole(described, batch, limit, done):
    """Wherever the list begins; retrains of one candidate stand side by side in it."""
    candidates = [make(lengths, epochs, (order,), 100 * i) for i, (lengths, epochs, order) in enumerate(described)]
    chunks = packing.plan_chunks(candidates, batch, limit)
    rest = sorted(i for chunk in chunks[done:] for i in chunk)
    again = packing.plan_chunks([candidates[i] for i in rest], batch, limit)
    assert [[rest[i] for i in chunk] for chunk in again] == chunks[done:]


def test_chunks_are_sorted_by_data_order_not_by_the_list():
    candidates = [make((5,), order=order) for order in ((2, 0), (1, 9), (2, 0), (0, 5))]
    assert packing.plan_chunks(candidates, 1, 8) == [[3], [1], [0, 2]]


@pytest.mark.parametrize(
    ("rows", "epochs", "batch", "steps"), [(5, 2, 1, 10), (5, 2, 2, 6), (4, 3, 2, 6), (0, 3, 2, 0)]
)
def test_steps_round_up_in_each_epoch(rows, epochs, batch, steps):
    assert packing.steps_of(make((4,) * rows, epochs), batch) == steps


# Arrays


DEVICES = st.sampled_from([1, 2, 3, 4])


@settings(deadline=None)
@given(st.integers(1, 20), DEVICES)
def test_candidates_are_dealt_out_evenly(count, devices):
    lanes = Lanes.holding(count, devices)
    places = [lanes.of(candidate) for candidate in range(count)]
    assert len(set(places)) == count and set(places) <= set(range(lanes.total))
    held = [sum(place // lanes.each == device for place in places) for device in range(devices)]
    assert max(held) - min(held) <= 1 and lanes.each == packing.count_bucket(max(held))
    spread = lanes.spread(list(range(count)))
    assert [spread[place] for place in places] == list(range(count)) and len(spread) == lanes.total
    assert set(spread) == set(range(count))


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12).filter(any), st.integers(0, 3), DEVICES)
def test_lanes_without_data_are_left_out_up_to_a_power_of_two(active, spare, devices):
    lanes = Lanes((-(-len(active) // devices) + spare) * devices, devices)
    chosen = packing.computed_lanes([(0,) if flag else () for flag in active], lanes)
    assert chosen == sorted(set(chosen)) and set(chosen) <= set(range(lanes.total))
    busy = {lanes.of(candidate) for candidate, flag in enumerate(active) if flag}
    assert busy <= set(chosen)
    width, *others = (sum(lane // lanes.each == device for lane in chosen) for device in range(devices))
    assert all(other == width for other in others)
    most = max(sum(lane // lanes.each == device for lane in busy) for device in range(devices))
    assert most <= width < 2 * most and (width == lanes.each or width.bit_count() == 1)


@settings(deadline=None)
@given(CANDIDATES, st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), DEVICES)
def test_filled_steps_hold_the_rows_and_nothing_else(described, micro, batch, spare, devices):
    chunk = chunk_of(described, (3, 4))
    slotted = [packing.slots_of(candidate) for candidate in chunk]
    lanes = Lanes((-(-len(chunk) // devices) + spare) * devices, devices)
    for step in packing.schedule_steps(chunk, micro * batch):
        chosen, tokens, weights, valid = packing.fill_step(slotted, step, (micro, batch), lanes)
        assert chosen == packing.computed_lanes(step, lanes)
        assert tokens.shape == weights.shape and tokens.shape[:3] == (len(chosen), micro, batch)
        assert (tokens.dtype, weights.dtype, valid.dtype) == (np.int32, np.float32, bool)
        rows_of = {lanes.of(c): [slotted[c][slot] for slot in slots] for c, slots in enumerate(step)}
        assert valid.tolist() == [bool(rows_of.get(lane)) for lane in chosen]
        longest = max(len(row.tokens) for rows in rows_of.values() for row in rows)
        assert tokens.shape[3] == packing.bucket(longest)
        flat, loss = (part.reshape(len(chosen), micro * batch, -1) for part in (tokens, weights))
        for index, lane in enumerate(chosen):
            rows = rows_of.get(lane, [])
            for place in range(micro * batch):
                shown = rows[place] if place < len(rows) else Row((), ())
                length = len(shown.tokens)
                assert flat[index, place, :length].tolist() == list(shown.tokens)
                assert loss[index, place, :length].tolist() == list(shown.weights)
                assert not loss[index, place, length:].any()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 24, 40, 64, 128]), st.floats(0, 1))
def test_places_are_those_of_the_tokens_that_count(seed, length, share):
    """Every such token but the first of its row, once; and few sizes."""
    rng = np.random.default_rng(seed)
    weights = np.where(rng.random((3, 2, 2, length)) < share, rng.choice([0.5, 1.0], (3, 2, 2, length)), 0)
    places = packing.counted_places(weights.astype(np.float32))
    wanted = [[t for t in range(1, length) if row[t]] for row in weights.reshape(12, length)]
    most = max(map(len, wanted))
    if places is None:
        assert most > 3 * length / 4 - 16
        return
    assert places.dtype == np.int32 and places.shape[:3] == (3, 2, 2)
    width = places.shape[3]
    unit = max(16, length // 4)
    assert width in (unit, 2 * unit, 3 * unit) and width <= 3 * length // 4 and width - unit < max(most, 1) <= width
    for row, found in zip(places.reshape(12, width).tolist(), wanted, strict=True):
        assert row == found + [0] * (width - len(found))
