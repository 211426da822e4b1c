"""Votes counted on ballots made by hand, ties included."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seal_jax.domains.arc.grids import ArcTask, Pair, make_grid
from seal_jax.domains.arc.voting import (
    REFERENCE,
    TWO_STAGE,
    Ballot,
    attempts,
    candidates,
    finalists,
    right,
    solved,
)

A, B, C, D, E = (((n, n), (n, n)) for n in (1, 2, 3, 4, 5))
any_speed = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
HOME = "identity"
NAMES = [HOME, "transpose", "flip 0", "flip 1", "rotate 180", "rotate 90"]
SQUARE = ((1, 2, 3), (4, 5, 6), (7, 8, 0))
WRONG = [  # each differs from SQUARE in one cell, all in different rows and columns
    ((9, 2, 3), (4, 5, 6), (7, 8, 0)),
    ((1, 2, 3), (4, 9, 6), (7, 8, 0)),
    ((1, 2, 3), (4, 5, 6), (7, 8, 9)),
]


def tally(rule=TWO_STAGE, **views) -> list[int]:
    """The attempts as the colour in their corner; views by name, in order; identity as `home`."""
    ballots = [
        Ballot(HOME if view == "home" else view.replace("_", " "), None if grid is None else make_grid(grid))
        for view, grids in views.items()
        for grid in grids
    ]
    return [int(grid[0, 0]) for grid in attempts(ballots, rule)]


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


@pytest.mark.parametrize("rule", [TWO_STAGE, REFERENCE])
def test_malformed_answers_have_no_vote(rule):
    assert tally(rule, home=[None, None, A], transpose=[None]) == [1]
    assert tally(rule, home=[None]) == [] and tally(rule) == []


def test_only_two_attempts():
    assert tally(home=[A, A, A, B, B, C]) == [1, 2]


# ---------------------------------------------------------------- the vote of the paper's code


def test_candidates_are_the_most_frequent_answers():
    assert candidates([A, B, B, C, B, C]) == [B, C, A]
    assert candidates([D, A, A, B, B, B, C, C, C, C]) == [C, B, A]
    assert candidates([C, B, A]) == [C, B, A]  # of equal ones the first


def test_a_group_with_one_answer_names_it_three_times():
    assert candidates([A]) == candidates([A, A]) == [A, A, A]


def test_of_two_answers_the_most_frequent_is_named_again():
    assert candidates([A, B, B]) == [B, A, B]
    assert candidates([B, A]) == [B, A, B]  # equally frequent: the first


def test_a_view_of_one_answer_gives_it_three_votes():
    # A is named by all once, by the first two views twice each: 5. C by all once, by flip 0 three times: 4. B: 3.
    views = dict(home=[A, A, B], transpose=[A, B], flip_0=[C])
    assert tally(REFERENCE, **views) == [1, 3]
    assert tally(TWO_STAGE, **views) == [1, 2]


@pytest.mark.parametrize(
    ("home", "second"),
    [([C, C, B, D], 3), ([C, B, D], 3), ([B, B, C, D], 2)],  # more answers there; as many: the third; fewer
)
def test_second_and_third_named_as_often_are_decided_by_the_identity_view(home, second):
    """B and C are named three times each, B first because it is more frequent in all views together."""
    assert tally(REFERENCE, home=home, transpose=[A, A, A, B, B, B], flip_0=[A, A, C]) == [1, second]


def test_a_second_named_more_often_stays_whatever_the_identity_view_says():
    assert tally(REFERENCE, home=[C, C, D], transpose=[A, A, B], flip_0=[A, A, B], flip_1=[A, A, B]) == [1, 2]


def test_without_answers_in_the_identity_view_the_second_stays():
    assert tally(REFERENCE, transpose=[A, A, B, C], flip_0=[A]) == [1, 2]
    assert tally(REFERENCE, home=[A], transpose=[A, A, B, C]) == [1, 3]  # with one, as often in it: the third


@pytest.mark.parametrize(("earlier", "later"), list(itertools.pairwise(NAMES[2:])))
def test_views_are_gone_through_in_the_order_of_the_papers_code(earlier, later):
    """D and E are named three times each; the view that comes later has the third candidate, which wins the tie."""
    given = [(later, E), (earlier, D), ("transpose", A), *((HOME, grid) for grid in (A, A, A, B, B, C, C))]
    made = attempts([Ballot(view, make_grid(grid)) for view, grid in given], REFERENCE)
    assert [int(grid[0, 0]) for grid in made] == [1, 5]


def slow_candidates(answers):
    """The rule word by word; of equally frequent ones the first."""

    def most(options, among):
        best = options[0]
        for option in options:
            if among.count(option) > among.count(best):
                best = option
        return best

    def distinct(values):
        return [value for i, value in enumerate(values) if value not in values[:i]]

    def by_rows(grids):
        sizes = [np.array(grid).shape for grid in grids]
        height, width = most(distinct(sizes), sizes)
        made = []
        for place in range(height):
            rows = [grid[place] for grid in grids if len(grid) > place and len(grid[place]) == width]
            made.append(most(distinct(rows), rows))
        return tuple(made)

    def turned(grid):
        return tuple(map(tuple, np.array(grid).T.tolist()))

    left, named = distinct(answers), []
    while left and len(named) < 3:
        named.append(most(left, answers))
        left.remove(named[-1])
    rows, columns = by_rows(answers), turned(by_rows([turned(grid) for grid in answers]))
    while len(named) < 3:
        named.append(columns if rows in named else rows)
    return named


def slow_reference(ballots):
    groups = {"all": []}
    for view in NAMES:
        groups[view] = [answer for name, answer in ballots if name == view]
    for view in dict.fromkeys(name for name, _ in ballots):
        groups["all"] += groups[view]
    pool = [candidate for answers in groups.values() if answers for candidate in slow_candidates(answers)]
    first, second, third = slow_candidates(pool)
    tied = pool.count(second) == pool.count(third)
    if tied and groups[HOME] and not groups[HOME].count(second) > groups[HOME].count(third):
        second = third
    return [first] if first == second else [first, second]


GRIDS = [((1, 2), (3, 4)), ((1, 2), (5, 4)), ((1, 0), (3, 4)), ((1, 2),), ((3,), (4,)), ((1, 2), (3, 4), (1, 2))]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(GRIDS)), min_size=1, max_size=14))
def test_the_reference_vote_is_its_rule_word_by_word(ballots):
    assert candidates([grid for _, grid in ballots]) == slow_candidates([grid for _, grid in ballots])
    made = attempts([Ballot(view, make_grid(grid)) for view, grid in ballots], REFERENCE)
    assert [tuple(map(tuple, grid.tolist())) for grid in made] == slow_reference(ballots)


# ---------------------------------------------------------------- both


@any_speed
@given(
    st.lists(st.tuples(st.sampled_from([HOME, "transpose", "flip 0"]), st.integers(0, 3)), max_size=12),
    st.sampled_from([TWO_STAGE, REFERENCE]),
)
def test_a_unanimous_answer_wins_and_attempts_differ(votes, rule):
    made = attempts([Ballot(view, make_grid([[n, 0]])) for view, n in votes], rule)
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
