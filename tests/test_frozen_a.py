"""LoRA-FA: one A for all candidates, which stays as it was drawn; B is trained as a plain loop trains it."""

import functools

import jax
import numpy as np
import optax
import pytest
from tiny_training import random_rows, stack, steps_by_hand, tiny_engine, tiny_model

from seal_jax.config import Inner, Training
from seal_jax.domains.domain import Lesson
from seal_jax.engine.packing import Candidate, Lanes, bucket
from seal_jax.engine.recipe import Recipe, recipe
from seal_jax.inner.sft import Optimizer
from seal_jax.model.adapter_file import read_adapter
from seal_jax.model.export import save_adapter
from seal_jax.model.lora import LoraConfig, factor, init_adapter, joined
from seal_jax.model.transformer import Transformer
from seal_jax.student.train import Loop, candidate

LORA = LoraConfig(3, 7.5, ("q_proj", "down_proj"), freeze_a=True)
RECIPE = Recipe(LORA, 1, 1, Optimizer("constant", clip_norm=0.5))
CANDIDATES = [Candidate(random_rows((12,) * 3, c), 10.0 ** -(c + 1), 2, 0, seed=(3, 7), order=(9,)) for c in range(2)]


@pytest.fixture(scope="module")
def base():
    return tiny_model()[1]


@pytest.fixture(scope="module")
def engine():
    return tiny_engine(tiny_model()[0])


@pytest.fixture(scope="module")
def trained(engine, base):
    """(adapters, losses), and how many programs that took where the step had been compiled before there was data."""
    engine.programs.needs(engine.calls.blank_step(base, RECIPE, Lanes(2, 1), (2, bucket(12))))
    count = engine.programs.count
    return *engine.finetune(base, CANDIDATES, RECIPE), engine.programs.count - count


@pytest.fixture(scope="module")
def drawn(base):
    return init_adapter(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 3), 7), base, LORA)


def of(tree, lane):
    return jax.tree.map(lambda leaf: np.asarray(leaf[lane]), tree)


def same_bits(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_b_is_trained_and_a_stays_as_drawn(engine, base, trained, drawn):
    adapters, losses, _ = trained
    model, frozen = Transformer(engine.config, LORA.scale), factor(drawn, "A")

    @jax.jit
    @jax.value_and_grad
    def loss(b, tokens):
        logits = model.apply({"params": base, "lora": joined(frozen, b)}, tokens[None], method="full")[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits[:-1], tokens[1:]).mean()

    for lane, one in enumerate(CANDIDATES):
        optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(one.learning_rate))
        b, expected = factor(drawn, "B"), []
        state = optimizer.init(b)
        for [row] in steps_by_hand(one, 1):
            value, gradient = loss(b, np.array(row.tokens, np.int32))
            updates, state = optimizer.update(gradient, state)
            b = optax.apply_updates(b, updates)
            expected.append(value)
        np.testing.assert_allclose(losses[lane], expected, rtol=1e-5)
        found = of(adapters, lane)
        same_bits(factor(found, "A"), frozen)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5), factor(found, "B"), b)
        assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(b))


def test_what_a_step_works_on(engine, base, trained):
    """One A for all lanes, and moments of B alone."""
    call = engine.calls.blank_step(base, RECIPE, Lanes(2, 1), (2, bucket(12)))
    frozen, state, *_ = call.args
    assert {leaf.ndim for leaf in jax.tree.leaves(frozen["shared"])} == {3}
    names = {path[-1].key for path, leaf in jax.tree_util.tree_leaves_with_path(state) if len(leaf.shape) > 1}
    assert names == {"B"}
    assert trained[2] == 3  # the start, the A, and the adapters as a whole: the step was compiled before


def test_beside_what_was_learned_before(engine, base, trained, drawn):
    """An adapter without effect changes nothing."""
    adapters, losses = engine.finetune(base, CANDIDATES, RECIPE, stack([drawn, drawn]))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5), adapters, trained[0])
    np.testing.assert_allclose(losses[0], trained[1][0], rtol=1e-5)


def test_the_file_holds_both_factors(trained, tmp_path):
    save_adapter(tmp_path / "adapter", of(trained[0], 1), LORA, "some/model")
    read, _, _ = read_adapter(tmp_path / "adapter")
    same_bits(read, of(trained[0], 1))


def test_all_loops_of_a_run_start_from_one_draw():
    def seed(training, item):
        lesson = Lesson(examples=(), learning_rate=1e-3, epochs=1)
        return candidate(None, Loop(lesson, (2, 42, 0, item, 1), (3, 42, 0, 1)), training).seed

    assert seed(Inner(freeze_a=True), 5) == seed(Inner(freeze_a=True), 6) == (2, 42)
    assert seed(Inner(), 5) == (2, 42, 0, 5, 1)
    assert recipe(Inner(freeze_a=True)).lora.freeze_a and not recipe(Training()).lora.freeze_a
