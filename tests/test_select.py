"""Selection: pure functions from rewards to the samples that teach."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from seal_jax.outer.select import above_base, best_of, random_choice

rewards = st.lists(st.none() | st.floats(-5, 5), min_size=1, max_size=8)


def test_best_is_the_greatest_and_the_first_of_equals():
    assert best_of([0.1, 0.5, 0.5, -1.0]) == [1]
    assert best_of([-3.0]) == [0]  # kept even when it does not beat the base


def test_what_could_not_be_graded_is_never_chosen():
    assert best_of([None, -2.0, None]) == [1]
    assert best_of([None, None]) == []
    assert above_base([None, 1.0], 0.5) == [1]
    assert above_base([1.0, 2.0], None) == []


def test_above_base_means_above():
    assert above_base([0.2, 0.3, 0.1, 0.4], 0.2) == [1, 3]


@given(rewards, st.floats(-5, 5))
def test_selections_by_their_definition(values, base):
    known = [value for value in values if value is not None]
    assert [values[k] for k in best_of(values)] == [max(known)][: len(known)] if known else best_of(values) == []
    assert above_base(values, base) == [k for k in range(len(values)) if values[k] is not None and values[k] > base]


def test_random_choice_is_uniform_and_depends_on_the_seed_alone():
    assert random_choice(5, "0/1/p") == random_choice(5, "0/1/p")
    counts = Counter(random_choice(4, f"0/0/{passage}") for passage in range(4000))
    assert sorted(counts) == [0, 1, 2, 3] and min(counts.values()) > 850
