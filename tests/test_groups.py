"""Groups by length: every candidate is in one call of each step, and the calls are the cheapest there are."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal_jax.engine import groups, packing
from seal_jax.engine.packing import Candidate, Lanes, Row

SIZES = st.lists(st.integers(1, 200), min_size=0, max_size=9)
CHUNKS = st.lists(st.tuples(SIZES, st.integers(1, 3)), min_size=1, max_size=9)
DEVICES = st.sampled_from([1, 2, 4])


def make(lengths, epochs=1):
    rows = tuple(Row((1,) * length, (0.0,) + (1.0,) * (length - 1)) for length in lengths)
    return Candidate(rows, 1e-3, epochs, 0, seed=(0,), order=(1, 2))


def planned(chunk, lanes, limit, batch=1):
    slotted, steps = [packing.slots_of(candidate) for candidate in chunk], packing.schedule_steps(chunk, batch)
    return slotted, steps, groups.plan_parts(slotted, steps, lanes, limit, batch)


@settings(deadline=None)
@given(CHUNKS, DEVICES, st.integers(1, 4), st.integers(1, 3))
def test_every_step_is_done_once_and_in_order(described, devices, limit, batch):
    chunk = [make(*one) for one in described]
    lanes = Lanes.holding(len(chunk), devices)
    slotted, steps, parts = planned(chunk, lanes, limit, batch)
    rest = iter(parts)
    for step in steps:
        left = list(step)
        calls = 0
        while any(left):
            part, calls = next(rest), calls + 1
            for candidate, slots in enumerate(part.slots):
                if slots:
                    assert slots == left[candidate]
                    left[candidate] = ()
            chosen, tokens, _, valid = packing.fill_step(slotted, part.slots, (1, batch), lanes, part.size)
            assert len(chosen) == part.width * devices and tokens.shape[-1] == part.length
            assert valid.sum() == sum(map(bool, part.slots)) > 0
            assert chosen == sorted(set(chosen)) and {lane // lanes.each for lane in chosen} == set(range(devices))
        assert 1 <= calls <= limit
    assert not list(rest)
    assert [part.slots for part in parts] == [part.slots for part in planned(chunk, lanes, limit, batch)[2]]


@settings(deadline=None)
@given(CHUNKS, DEVICES, st.integers(1, 2))
def test_one_group_is_the_least_shape_that_holds_the_step(described, devices, batch):
    chunk = [make(*one) for one in described]
    lanes = Lanes.holding(len(chunk), devices)
    slotted, steps, parts = planned(chunk, lanes, 1, batch)
    assert [part.slots for part in parts] == steps
    for part in parts:
        chosen, tokens, *_ = packing.fill_step(slotted, part.slots, (1, batch), lanes)
        assert (part.width * devices, part.length) == (len(chosen), tokens.shape[-1])


def by_trying(lengths, most, limit):
    """Token slots and calls of the cheapest split of lengths, by trying every one."""
    lengths, found = sorted(lengths, reverse=True), []
    for turns in range(1, min(limit, len(lengths)) + 1):
        for cuts in itertools.combinations(range(1, len(lengths)), turns - 1):
            runs = [lengths[a:b] for a, b in itertools.pairwise((0, *cuts, len(lengths)))]
            widths = [min(2 ** (len(run) - 1).bit_length(), most) for run in runs]
            slots = sum(width * packing.bucket(run[0]) for width, run in zip(widths, runs, strict=True))
            found.append(slots + groups.CALL * turns)
    return min(found)


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.integers(1, 4))
def test_the_split_of_a_step_is_the_cheapest(lengths, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "PROGRAM", 0)
        _, _, parts = planned([make((length,)) for length in lengths], Lanes.holding(len(lengths), 1), limit)
    assert sum(part.width * part.length + groups.CALL for part in parts) == by_trying(lengths, len(lengths), limit)


def test_a_program_must_save_more_than_it_costs(monkeypatch):
    """One short sequence among long ones earns no program of its own; in many steps it does."""
    few = [make((100,)), make((100,)), make((20,))]
    lanes, sizes = Lanes.holding(3, 1), []
    for program in (0, 512):
        monkeypatch.setattr(groups, "PROGRAM", program)
        sizes.append([part.size for part in planned(few, lanes, 4)[2]])
    assert sizes == [[(2, 112), (1, 24)], [(3, 112)]]
    many = [make((100,), 20), make((100,), 20), make((20,), 20)]
    assert [part.size for part in planned(many, lanes, 4)[2]] == sizes[0] * 20


def test_groups_have_the_same_number_of_lanes_on_each_device(monkeypatch):
    """Candidates go to the devices in turn: the first device has the long sequences here, and more of them."""
    monkeypatch.setattr(groups, "PROGRAM", 0)
    chunk = [make((length,)) for length in (150, 20, 140, 30, 25)]
    _, _, parts = planned(chunk, Lanes.holding(5, 2), 4)
    assert [(part.size, [bool(slots) for slots in part.slots]) for part in parts] == [
        ((2, 160), [True, True, True, True, False]),
        ((1, 32), [False, False, False, False, True]),
    ]


def test_parts_of_a_size_share_a_program():
    """Room for the places of tokens that count is the greatest that any of them needs."""
    chunk = [make((100, 99, 30))]
    slotted, _, parts = planned(chunk, Lanes.holding(1, 1), 4)
    weights = [packing.fill_step(slotted, part.slots, (1, 1), Lanes(1, 1), part.size)[2] for part in parts]
    for half in weights:
        half[..., 40:] = 0
    assert groups.places_widths(parts, weights) == {(1, 112): 56}
    assert groups.places_widths(parts, [weights[0] * 0 + 1, *weights[1:]]) == {(1, 112): 112}
