"""Selection: pure functions from the rollouts of one item to the samples that teach."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from seal_jax.authors.author import SelfEdit
from seal_jax.domains.domain import Prompt
from seal_jax.outer.rollouts import Rollout
from seal_jax.outer.select import RULES, above_base, at_random, best, best_and_worst, correct, pair_at_random

REWARDS = st.lists(st.none() | st.floats(-5, 5) | st.integers(-2, 2).map(float), min_size=1, max_size=8)


def found(rewards, base=None, accuracies=None, first=0):
    """Rollouts with these rewards, their samples counted from `first`."""
    accuracies = accuracies or [None] * len(rewards)
    edit, prompt = SelfEdit("text"), Prompt("p", False)
    pairs = enumerate(zip(rewards, accuracies, strict=True), first)
    return [Rollout("item", prompt, k, edit, reward, base, right) for k, (reward, right) in pairs]


def test_best_is_the_greatest_and_the_first_of_equals():
    assert best(found([0.1, 0.5, 0.5, -1.0])) == [1]
    assert best(found([-3.0], base=0.0)) == [0]  # kept even when it does not beat the base
    assert best(found([0.1, 0.5], first=3)) == [4]  # samples, not places


def test_rewards_that_differ_by_float_noise_are_equal():
    assert best(found([0.1 + 0.2 - 1e-12, 0.3, 0.30000000000000004])) == [0]
    assert best(found([0.3, 0.3 + 2e-9])) == [1]
    assert above_base(found([0.1 + 0.2, 0.3, 0.3 + 2e-9], base=0.3)) == [2]


def test_best_is_one_that_was_not_dropped_from_the_race():
    some = [replace(one, retrains=n) for one, n in zip(found([0.9, 0.1, 0.3, None]), (1, 3, 3, 5), strict=True)]
    assert best(some) == [2] and best(some[:2]) == [1] and best(some[:1]) == [0] and best(some[3:]) == []


def test_what_has_no_reward_is_never_chosen_even_if_all_others_do_harm():
    assert best(found([None, -2.0, None])) == [1]
    assert best(found([None, None])) == []
    assert above_base(found([None, 1.0], base=0.5)) == [1]
    assert correct(found([None, 1.0], accuracies=[1.0, 1.0])) == [1]


def test_above_base_means_above_and_needs_a_base():
    assert above_base(found([0.2, 0.3, 0.1, 0.4], base=0.2)) == [1, 3]
    assert above_base(found([1.0, 2.0], base=None)) == []


def test_correct_means_every_answer_right():
    assert correct(found([0.1, 0.9, 0.5, 0.7], accuracies=[1.0, 0.999, None, 1.0])) == [0, 3]


@given(REWARDS, st.floats(-5, 5))
def test_selections_by_their_definition(values, base):
    short = [None if value is None else round(value, 9) for value in values]
    known = [value for value in short if value is not None]
    assert best(found(values)) == ([short.index(max(known))] if known else [])
    above = [k for k, value in enumerate(short) if value is not None and value > round(base, 9)]
    assert above_base(found(values, base)) == above


def test_the_best_against_the_worst_and_nothing_between_equals():
    assert best_and_worst(found([0.2, 0.9, None, -1.0, -1.0], first=2)) == [3, 5]
    assert best_and_worst(found([0.3, 0.1 + 0.2, None])) == best_and_worst(found([0.3])) == []
    assert best_and_worst(found([None, None])) == []
    some = [replace(one, retrains=n) for one, n in zip(found([0.9, 0.1, 0.3, -0.2]), (1, 3, 3, 1), strict=True)]
    assert best_and_worst(some) == [2, 3]  # the best is one that was not dropped, the worst may have been
    assert best_and_worst(some[:2]) == []  # one that was dropped and earned more is not a worse one


def test_a_random_pair_is_any_two_in_any_order():
    some = found([1.0, None, 3.0], first=1)
    pairs = Counter(tuple(pair_at_random(some, f"0/0/{item}")) for item in range(3000))
    assert set(pairs) == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b} and min(pairs.values()) > 400
    assert sorted(pair_at_random(some[:2], "0/0/x")) == [1, 2]
    assert pair_at_random(some[:1], "0/0/x") == [] and pair_at_random(some, "s") == pair_at_random(some, "s")


def test_a_random_choice_depends_on_the_seed_alone_and_not_on_rewards():
    some, others = found([1.0, 2.0, 3.0, 4.0, 5.0]), found([None] * 5)
    assert at_random(some, 2, "0/1/p") == at_random(others, 2, "0/1/p")
    assert at_random(some, 9, "0/1/p") == [0, 1, 2, 3, 4] and at_random(some, 0, "0/1/p") == []
    assert at_random([], 1, "0/1/p") == []


def test_a_random_choice_is_uniform_rising_and_without_repeats():
    pairs = Counter(tuple(at_random(found([1.0] * 4, first=2), 2, f"0/0/{item}")) for item in range(6000))
    assert sorted(pairs) == [(2, 3), (2, 4), (2, 5), (3, 4), (3, 5), (4, 5)] and min(pairs.values()) > 850


def test_the_rules_have_the_names_that_configs_use():
    assert {"best": best, "above_base": above_base, "correct": correct} == RULES
