"""Votes counted on ballots made by hand, ties included."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seal_jax.tasks.arc.grids import ArcTask, Pair, make_grid
from seal_jax.tasks.arc.voting import Ballot, attempts, finalists, right, solved

A, B, C, D, E = (((n, n), (n, n)) for n in (1, 2, 3, 4, 5))
any_speed = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
HOME = "identity"
SQUARE = ((1, 2, 3), (4, 5, 6), (7, 8, 0))
WRONG = [  # each differs from SQUARE in one cell, all in different rows and columns
    ((9, 2, 3), (4, 5, 6), (7, 8, 0)),
    ((1, 2, 3), (4, 9, 6), (7, 8, 0)),
    ((1, 2, 3), (4, 5, 6), (7, 8, 9)),
]


def tally(**views) -> list[int]:
    """The attempts as the colour in their corner; views by name, in order; identity as `home`."""
    ballots = [
        Ballot(HOME if view == "home" else view.replace("_", " "), None if grid is None else make_grid(grid))
        for view, grids in views.items()
        for grid in grids
    ]
    return [int(grid[0, 0]) for grid in attempts(ballots)]


def test_the_most_frequent_answers_of_one_view():
    assert finalists([A, B, B, C, B, C]) == [B, C, A]
    assert finalists([D, A, A, B, B, B, C, C, C, C]) == [C, B, A]  # three at most
    assert finalists([A]) == [A]


def test_a_tie_in_a_view_goes_to_the_first_answer():
    assert finalists([B, A, A, B, C]) == [B, A, C]
    assert finalists([A, B, A, B, C]) == [A, B, C]


def test_row_majority_breaks_a_tie():
    first, second, third = ((1, 2), (3, 4)), ((9, 9), (3, 4)), ((1, 2), (8, 8))
    # Rows: (1 2) twice, (3 4) twice: `first`, though it came last. Columns: all different, so they say nothing.
    assert finalists([second, third, first]) == [first, second, third]


def test_column_majority_breaks_a_tie():
    first, second, third = ((1, 3), (2, 4)), ((9, 3), (9, 4)), ((1, 8), (2, 8))
    assert finalists([second, third, first]) == [first, second, third]


def test_majorities_may_make_an_answer_that_nobody_gave():
    made = ((1, 1), (2, 2), (3, 3))
    given = [((9, 9), *made[1:]), (made[0], (8, 8), made[2]), (*made[:2], (7, 7))]
    # The rows make it, the columns differ in all answers: one ballot, as each answer has, and so it comes behind them.
    assert finalists(given) == given
    same = [tuple(zip(*grid, strict=True)) for grid in given]
    assert finalists(same) == same
    # Where rows and columns agree on it, it has two ballots and comes first.
    assert finalists(WRONG) == [SQUARE, WRONG[0], WRONG[1]]


def test_majorities_are_not_asked_without_a_tie():
    fourth = ((1, 2, 3), (9, 5, 6), (7, 8, 0))
    assert finalists([*WRONG, WRONG[2], fourth]) == [WRONG[2], WRONG[0], WRONG[1]]


def test_majorities_are_of_the_most_frequent_size():
    wide = ((1, 2, 3),)
    assert finalists([wide, *WRONG]) == [SQUARE, wide, WRONG[0]]
    assert finalists([A, wide]) == [A, wide]


def test_views_vote_over_the_winners():
    assert tally(home=[A, A, A, A], transpose=[B], flip_0=[B], flip_1=[C]) == [2, 1]
    # A view has one vote for each finalist, however many ballots it cast.
    assert tally(home=[A] * 9, transpose=[B], flip_0=[B]) == [2, 1]


def test_ties_of_the_second_stage():
    assert tally(transpose=[B], home=[A], flip_0=[C]) == [1, 2]  # identity first, then who was first
    assert tally(home=[A, A, B], transpose=[A], flip_0=[B] * 5) == [1, 2]  # the order among identity's finalists
    assert tally(transpose=[D], flip_0=[C, C]) == [3, 4]  # no identity: more ballots in all
    assert tally(transpose=[E], flip_0=[D]) == [5, 4]


def test_malformed_answers_have_no_vote():
    assert tally(home=[None, None, A], transpose=[None]) == [1]
    assert tally(home=[None]) == [] and tally() == []


def test_only_two_attempts():
    assert tally(home=[A, A, A, B, B, C]) == [1, 2]


@any_speed
@given(st.lists(st.tuples(st.sampled_from([HOME, "transpose", "flip 0"]), st.integers(0, 3)), max_size=12))
def test_a_unanimous_answer_wins_and_attempts_differ(votes):
    made = attempts([Ballot(view, make_grid([[n, 0]])) for view, n in votes])
    assert len(made) <= 2 and len({grid.tobytes() for grid in made}) == len(made)
    assert bool(made) == bool(votes)
    if len({n for _, n in votes}) == 1:
        assert [grid.tolist() for grid in made] == [[[votes[0][1], 0]]]


def test_right_is_cell_by_cell_and_either_attempt_may_be():
    truth = make_grid([[1, 2]])
    assert right([make_grid([[2, 1]]), make_grid([[1, 2]])], truth)
    assert not right([make_grid([[1], [2]]), make_grid([[1, 2, 0]])], truth) and not right([], truth)
    assert not right([make_grid([[1, 1]])], make_grid([[1]]))


def test_a_task_is_solved_when_every_test_is():
    one, two = make_grid([[1]]), make_grid([[2]])
    task = ArcTask("t", (), (Pair(one, two), Pair(two, one)))
    assert solved(task, [[two], [two, one]]) and not solved(task, [[two], [two]])
    with pytest.raises(ValueError):
        solved(task, [[two]])
    assert np.array_equal(attempts([Ballot(HOME, two)])[0], two)
