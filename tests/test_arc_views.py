"""The questions about a test input: contexts, orders, views, and answers brought back."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from seal_jax.tasks.arc.grids import ArcTask, Pair, make_grid
from seal_jax.tasks.arc.views import VIEWS, questions, undo

any_speed = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
grids = arrays(np.int8, array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 9))


def task_of(count: int) -> ArcTask:
    """Demonstration i has input [[i, 0], [0, 0]] and output [[i, 9]]; the test inputs hold 7 and 8."""
    pairs = [Pair(make_grid([[i, 0], [0, 0]]), make_grid([[i, 9]])) for i in range(1, count + 1)]
    tests = tuple(Pair(make_grid([[n, 0, 0]]), make_grid([[n]])) for n in (7, 8))
    return ArcTask("t", tuple(pairs), tests)


def members(question) -> list[int]:
    return [int(pair.input.max()) for pair in question.demonstrations]


@any_speed
@given(grids)
def test_undo_undoes_every_view(grid):
    for name, (see, _) in VIEWS.items():
        assert np.array_equal(undo(name, see(grid)), grid), name


def test_views_by_hand():
    grid = make_grid([[1, 2, 3]])
    seen = {name: see(grid).tolist() for name, (see, _) in VIEWS.items()}
    assert seen == {
        "identity": [[1, 2, 3]],
        "transpose": [[1], [2], [3]],
        "flip 0": [[1, 2, 3]],
        "flip 1": [[3, 2, 1]],
        "rotate 90": [[3], [2], [1]],
        "rotate 180": [[3, 2, 1]],
    }


@pytest.mark.parametrize("count", [3, 4, 6])
def test_every_context_twice_and_every_view_once(count):
    found = questions(task_of(count), 1, (0, 1))
    assert [question.view for question in found] == ["identity"] * (2 * count) + list(VIEWS)[1:]
    for i in range(count):
        orders = [members(question) for question in found[2 * i : 2 * i + 2]]
        assert [sorted(order) for order in orders] == [[n for n in range(1, count + 1) if n != i + 1]] * 2
        assert orders[0] != orders[1]
    assert all(question.test_input.max() == 8 for question in found)


def test_a_view_shows_all_grids_alike():
    for question in questions(task_of(3), 0, (5,))[6:]:
        see = VIEWS[question.view][0]
        assert np.array_equal(question.test_input, see(make_grid([[7, 0, 0]])))
        assert len(question.demonstrations) == 2
        for pair, i in zip(question.demonstrations, members(question), strict=True):
            assert np.array_equal(pair.input, see(make_grid([[i, 0], [0, 0]])))
            assert np.array_equal(pair.output, see(make_grid([[i, 9]])))


def test_few_demonstrations_have_fewer_orders():
    two = questions(task_of(2), 0, (0,))
    assert [members(question) for question in two[:2]] == [[2], [1]] and len(two) == 7
    one = questions(task_of(1), 0, (0,))
    assert [members(question) for question in one] == [[1]] * 6


def test_views_draw_their_contexts_by_the_seed():
    drawn = {tuple(tuple(members(q)) for q in questions(task_of(4), 0, (seed,))[8:]) for seed in range(20)}
    assert len(drawn) > 10
    again = [[members(q) for q in questions(task_of(4), 0, (3, 1))] for _ in range(2)]
    assert again[0] == again[1]
