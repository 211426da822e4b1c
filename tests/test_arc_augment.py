"""Every augmentation by hand, its inverse on any grid, and permutations that lose nothing."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from seal_jax.domains.arc import augment
from seal_jax.domains.arc.grids import ArcTask, Pair, key, make_grid

any_speed = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
GRID = make_grid([[1, 2, 3], [4, 5, 6]])
grids = arrays(np.int8, array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 9))
seeds = st.integers(0, 2**32 - 1)
BY_HAND = {
    "rotate_90": [[3, 6], [2, 5], [1, 4]],
    "rotate_180": [[6, 5, 4], [3, 2, 1]],
    "rotate_270": [[4, 1], [5, 2], [6, 3]],
    "flip_0": [[4, 5, 6], [1, 2, 3]],
    "flip_1": [[3, 2, 1], [6, 5, 4]],
    "transpose": [[1, 4], [2, 5], [3, 6]],
    "mirror_down": [[1, 2, 3], [4, 5, 6], [4, 5, 6], [1, 2, 3]],
    "mirror_up": [[4, 5, 6], [1, 2, 3], [1, 2, 3], [4, 5, 6]],
    "mirror_right": [[1, 2, 3, 3, 2, 1], [4, 5, 6, 6, 5, 4]],
    "mirror_left": [[3, 2, 1, 1, 2, 3], [6, 5, 4, 4, 5, 6]],
    "double_height": [[1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]],
    "double_width": [[1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6]],
    "double_resolution": [[1, 1, 2, 2, 3, 3]] * 2 + [[4, 4, 5, 5, 6, 6]] * 2,
    "repeat_down": [[1, 2, 3], [4, 5, 6], [1, 2, 3], [4, 5, 6]],
    "repeat_across": [[1, 2, 3, 1, 2, 3], [4, 5, 6, 4, 5, 6]],
    "repeat_both": [[1, 2, 3, 1, 2, 3], [4, 5, 6, 4, 5, 6]] * 2,
    "rotate_90, double_resolution": [[3, 3, 6, 6]] * 2 + [[2, 2, 5, 5]] * 2 + [[1, 1, 4, 4]] * 2,
    "rotate_270, double_resolution": [[4, 4, 1, 1]] * 2 + [[5, 5, 2, 2]] * 2 + [[6, 6, 3, 3]] * 2,
    "rotate_180, double_resolution": [[6, 6, 5, 5, 4, 4]] * 2 + [[3, 3, 2, 2, 1, 1]] * 2,
    "flip_0, double_resolution": [[4, 4, 5, 5, 6, 6]] * 2 + [[1, 1, 2, 2, 3, 3]] * 2,
    "flip_1, double_resolution": [[3, 3, 2, 2, 1, 1]] * 2 + [[6, 6, 5, 5, 4, 4]] * 2,
    "transpose, double_resolution": [[1, 1, 4, 4]] * 2 + [[2, 2, 5, 5]] * 2 + [[3, 3, 6, 6]] * 2,
}
INVERSES = {
    "rotate_90": "rotate_270",
    "rotate_270": "rotate_90",
    **{name: name for name in ("rotate_180", "flip_0", "flip_1", "transpose")},
}
ALL = {a.name: a for a in (*augment.BASIC, *augment.SIZE, *augment.CHAIN, *augment.REPEAT)}


def test_the_families_hold_what_the_paper_names():
    assert set(ALL) == set(BY_HAND) and len(ALL) == 22
    assert all(a.on_input is a.on_output for a in ALL.values())
    assert [len(f) for f in (augment.BASIC, augment.SIZE, augment.CHAIN, augment.REPEAT)] == [10, 3, 6, 3]


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    assert ALL[name].on_input(GRID).tolist() == BY_HAND[name]


def test_shift_by_hand():
    assert augment.shift(GRID, 1, 0).tolist() == [[4, 5, 6], [1, 2, 3]]
    assert augment.shift(GRID, 0, 1).tolist() == [[3, 1, 2], [6, 4, 5]]
    assert augment.shift(GRID, 1, 2).tolist() == [[5, 6, 4], [2, 3, 1]]


def moved(grid) -> tuple[int, int]:
    """How far the 0 of NUMBERED, or of a grid made of it, was moved."""
    down, right = divmod(int(np.flatnonzero(grid == 0)[0]), 9)
    return down, right


NUMBERED = np.arange(81).reshape(9, 9)


def test_shifts_move_inputs_and_outputs_by_amounts_of_their_own():
    rng = np.random.default_rng(0)
    drawn = [augment.random_shift(rng) for _ in range(600)]
    amounts = [(moved(a.on_input(NUMBERED)), moved(a.on_output(NUMBERED))) for a in drawn]
    every = {(down, right) for down in range(4) for right in range(4)}
    assert {one for one, _ in amounts} == {other for _, other in amounts} == every
    assert len(set(amounts)) > 200  # of the 256 pairs; 16 if outputs moved with their inputs
    for a, (one, other) in zip(drawn, amounts, strict=True):
        assert a.name == f"shift inputs by {one[0]}, {one[1]} and outputs by {other[0]}, {other[1]}"
        assert np.array_equal(a.on_input(GRID), augment.shift(GRID, *one))
        assert np.array_equal(a.on_output(GRID), augment.shift(GRID, *other))


def test_a_shift_moves_all_inputs_of_a_task_by_one_amount_and_all_outputs_by_another():
    pair = Pair(NUMBERED, NUMBERED)
    task = ArcTask("t", (pair, pair), (pair,))
    for seed in range(20):
        shift = augment.random_shift(np.random.default_rng(seed))
        new = augment.augmented(task, shift)
        assert new.id == "t" and (len(new.train), len(new.test)) == (2, 1)
        found = {(moved(p.input), moved(p.output)) for p in (*new.train, *new.test)}
        assert found == {(moved(shift.on_input(NUMBERED)), moved(shift.on_output(NUMBERED)))}


@any_speed
@given(grids)
def test_inverses(grid):
    for name, inverse in INVERSES.items():
        assert np.array_equal(ALL[inverse].on_input(ALL[name].on_input(grid)), grid), name


@any_speed
@given(grids, st.integers(-9, 9), st.integers(-9, 9))
def test_shift_has_its_inverse(grid, down, right):
    assert np.array_equal(augment.shift(augment.shift(grid, down, right), -down, -right), grid)


@any_speed
@given(grids)
def test_larger_grids_hold_the_grid(grid):
    rows, columns = grid.shape
    for name in ("mirror_down", "mirror_right", "repeat_down", "repeat_across", "repeat_both"):
        assert np.array_equal(ALL[name].on_input(grid)[:rows, :columns], grid), name
    assert np.array_equal(ALL["mirror_up"].on_input(grid)[rows:], grid)
    assert np.array_equal(ALL["mirror_left"].on_input(grid)[:, columns:], grid)
    for name, step in (("double_resolution", (2, 2)), ("double_height", (2, 1)), ("double_width", (1, 2))):
        assert np.array_equal(ALL[name].on_input(grid)[:: step[0], :: step[1]], grid), name


@any_speed
@given(st.sets(st.integers(0, 9)), seeds)
def test_color_permutation(used, seed):
    table = augment.color_permutation(sorted(used), np.random.default_rng(seed))
    assert sorted(table) == list(range(10)) and table[0] == 0
    assert np.array_equal(np.argsort(table)[table], np.arange(10))
    taken = used - {0}
    targets = {int(table[color]) for color in taken}
    assert len(targets - taken) == min(len(taken), 9 - len(taken))  # unused colours first


@any_speed
@given(grids, seeds)
def test_colors_of_a_task_change_together(grid, seed):
    task = ArcTask("t", (Pair(grid, grid.T),), (Pair(grid.T, grid),))
    new = augment.permute_colors(task, np.random.default_rng(seed))
    pairs = zip([grid] * 2, [new.train[0].input, new.test[0].output], strict=True)
    assert all(np.array_equal(old == 0, made == 0) and made.dtype == np.int8 for old, made in pairs)
    assert np.array_equal(new.train[0].output, new.train[0].input.T)
    mapping = {(int(old), int(made)) for old, made in zip(grid.flat, new.train[0].input.flat, strict=True)}
    assert len(mapping) == len({old for old, _ in mapping}) == len({made for _, made in mapping})


def test_demonstrations_are_permuted_whole():
    pairs = tuple(Pair(make_grid([[i]]), make_grid([[i + 1]])) for i in range(5))
    task = ArcTask("t", pairs, (Pair(GRID, GRID),))
    new = augment.permute_demonstrations(task, np.random.default_rng(0))
    assert sorted(int(pair.input[0, 0]) for pair in new.train) == list(range(5)) and key(new) != key(task)
    assert all(pair.output[0, 0] == pair.input[0, 0] + 1 for pair in new.train) and new.test == task.test
