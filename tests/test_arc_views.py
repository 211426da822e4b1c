"""The questions about a test input: contexts, orders, views, and answers brought back."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from seal_jax.domains.arc.grids import ArcTask, Pair, make_grid
from seal_jax.domains.arc.views import VIEWS, questions, undo

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
def test_every_context_comes_in_its_own_order_and_in_two_more(count):
    numbers = range(1, count + 1)
    sizes = set()
    for seed in range(30):
        found = questions(task_of(count), 1, (0, seed))
        plain = [members(question) for question in found if question.view == "identity"]
        assert plain == [members(question) for question in found[: len(plain)]]
        for left in numbers:
            orders = [order for order in plain if left not in order]
            assert orders[0] == [n for n in numbers if n != left]  # the task's own order comes first
            assert all(sorted(order) == orders[0] for order in orders)
            assert 1 <= len(orders) <= 3 and len(set(map(tuple, orders))) == len(orders)
            sizes.add(len(orders))
        assert [question.view for question in found[len(plain) :]] == list(VIEWS)[1:]
        assert all(question.test_input.max() == 8 for question in found)
    assert max(sizes) == (2 if count == 3 else 3)  # contexts of two have but two orders


def test_the_two_orders_are_drawn_among_all():
    found = [questions(task_of(4), 0, (seed,)) for seed in range(200)]
    drawn = {tuple(members(question)) for asked in found for question in asked if question.view == "identity"}
    assert len(drawn) == 4 * 6
    # Two draws of six orders are both new and different 5/6 · 4/6 of the time, so 5/9 of 800 contexts have three.
    counts = [sum(4 not in members(q) for q in asked if q.view == "identity") for asked in found]
    assert 0.4 < counts.count(3) / len(counts) < 0.7 and 1 in counts


def test_views_show_any_of_the_questions_and_in_its_order():
    """Not the demonstrations in their own order alone, and no order that was not asked in the identity view."""
    other = 0
    for seed in range(40):
        found = questions(task_of(4), 0, (seed,))
        plain = [members(question) for question in found if question.view == "identity"]
        viewed = [members(question) for question in found if question.view != "identity"]
        assert len(viewed) == 5 and all(order in plain for order in viewed)
        other += sum(order != sorted(order) for order in viewed)
    assert 0.4 < other / 200 < 0.8


def test_views_are_drawn_among_different_questions():
    """An order that was drawn twice is no likelier: the own order has a share of 0.585, else it would have 2/3."""
    own = []
    for seed in range(400):
        viewed = [q for q in questions(task_of(3), 0, (seed,)) if q.view != "identity"]
        own += [members(question) == sorted(members(question)) for question in viewed]
    assert len(own) == 2000 and 0.55 < np.mean(own) < 0.62


def test_a_question_that_is_there_already_is_left_out():
    same = make_grid([[1, 2, 1], [2, 3, 2], [1, 2, 1]])  # looks alike in every view
    pairs = tuple(Pair(same, same) for _ in range(3))
    assert len(questions(ArcTask("t", pairs, pairs[:1]), 0, (0,))) == 1
    row = make_grid([[1, 2, 3]])  # turned by 180 degrees it is as flipped, and upside down as it is
    task = ArcTask("t", (Pair(row, row),), (Pair(row, row),))
    assert [question.view for question in questions(task, 0, (0,))] == ["identity", "transpose", "flip 1", "rotate 90"]
    lone = ArcTask("t", (Pair(row, row),), (Pair(make_grid([[4]]), row),))
    assert [q.view for q in questions(lone, 0, (0,))] == ["identity", "transpose", "flip 1", "rotate 90"]


def test_a_view_shows_all_grids_alike():
    viewed = [question for question in questions(task_of(3), 0, (5,)) if question.view != "identity"]
    assert len(viewed) == 5
    for question in viewed:
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
    drawn = {tuple(tuple(members(q)) for q in questions(task_of(4), 0, (seed,))[-5:]) for seed in range(20)}
    assert len(drawn) > 10
    again = [[members(q) for q in questions(task_of(4), 0, (3, 1))] for _ in range(2)]
    assert again[0] == again[1]
