"""Rows that go on are found again where they are put, and neither rows nor slots change for less than a program."""

import numpy as np
import pytest

from seal_jax.engine import room
from seal_jax.engine.packing import bucket


@pytest.mark.parametrize("limit", [1, 16, 33, 128, 200, 1000, 4096])
def test_slots_at_first_double_into_all_that_may_be_needed(limit):
    before = bucket(limit)
    for rows in (1, 2, 8, 64, 512):
        slots = room.first_slots(rows, limit)
        assert slots <= before and bucket(limit) in [slots * 2**k for k in range(12)]  # more rows, fewer slots
        assert slots == bucket(limit) or rows * slots**2 >= room.PROGRAM * room.SLOTS
        before = slots


def test_slots_of_the_sizes_that_occur():
    assert [room.first_slots(rows, 128) for rows in (1, 16, 32, 64)] == [128] * 4  # no program more for a short text
    assert [room.first_slots(rows, 4096) for rows in (1, 16, 64, 256)] == [1024, 256, 128, 64]


def check(alive, samples, fewer):
    """Every row alive has one place, beside rows of its prompt alone and at a copy of that prompt."""
    count = fewer.copies.shape[1] * fewer.samples
    assert fewer.rows.shape == fewer.padding.shape == (len(alive), count)
    assert 2 * count < alive.shape[1] + 2 * fewer.samples
    for lane, flags in enumerate(alive):
        kept = fewer.rows[lane][~fewer.padding[lane]]
        assert sorted(kept) == np.flatnonzero(flags).tolist()
        copies = np.repeat(fewer.copies[lane], fewer.samples)[~fewer.padding[lane]]
        assert (kept // samples == copies).all()


def test_all_rows_that_go_on_have_a_place():
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        lanes, prompts, samples = rng.integers(1, 4), rng.integers(1, 9), rng.integers(1, 7)
        alive = rng.random((lanes, prompts * samples)) < rng.random() / 2
        lengths = int(rng.choice([16, 1000])), int(rng.choice([16, 1000]))
        fewer = room.remaining(alive, int(samples), lengths, 10**6)
        if fewer is not None:
            check(alive, samples, fewer)
            (prompt, own), copies = lengths, fewer.copies.shape[1]
            assert copies * (prompt + fewer.samples * own) <= prompts * (prompt + samples * own)
            found.append(fewer.samples < samples)
        else:  # half the rows would not have held them, or not with more copies of their prompts
            assert 2 * alive.sum(-1).max() > alive.shape[1] or prompts * samples == 1 or lengths[0] > lengths[1]
    assert 20 < sum(found) < len(found) - 20


def test_rows_share_prompts_where_copies_would_take_more_than_was_freed():
    alive = np.zeros((1, 32), bool)
    alive[0, [0, 1, 2, 16]] = True  # of two prompts with 16 samples each
    for prompt, shape in ((10, (4, 1)), (10_000, (2, 4))):
        fewer = room.remaining(alive, 16, (prompt, 64), 10**6)
        assert (fewer.copies.shape[1], fewer.samples) == shape
        check(alive, 16, fewer)


def test_a_program_has_to_pay():
    alive = np.arange(64)[None] < 16
    assert room.remaining(alive, 1, (16, 16), 10) is None  # 48 rows for 10 steps
    assert room.remaining(alive, 1, (16, 16), 11).rows.shape == (1, 16)
    assert room.remaining(np.arange(64)[None] < 33, 1, (16, 16), 10**6) is None
