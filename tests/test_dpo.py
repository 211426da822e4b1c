"""DPO: its loss, a step and a whole training against plain computations, and the data that the engine gives it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_training import random_adapter, random_rows, tiny_engine, tiny_model

from seal_jax.engine import packing
from seal_jax.engine.packing import Candidate, Row
from seal_jax.engine.pairs import Pairs, pairs_of
from seal_jax.engine.recipe import Recipe
from seal_jax.engine.weights import Weights
from seal_jax.inner import dpo, sft
from seal_jax.inner.sft import Hyper, Optimizer
from seal_jax.model.lora import LoraConfig, init_adapter
from seal_jax.model.transformer import Transformer

LORA = LoraConfig(3, 7.5, ("q_proj", "up_proj"))
BETA = 0.3
HYPER = Hyper(np.float32(0.05), np.int32(5), np.int32(0))
# An eps as large as the gradients makes a step nearly linear in them, so that rounding is not blown up.
HOW = Optimizer("linear", clip_norm=5.0, eps=1e-2, weight_decay=0.1)
PREFERRED = random_rows((14, 9, 11, 7), 1, prompt=3)
REJECTED = random_rows((8, 12, 10, 16), 2, prompt=3)


RECIPE = Recipe(LORA, 2, 2, Optimizer("linear", eps=1e-2))


@pytest.fixture(scope="module")
def model():
    """Configuration, base, and an engine that compiles each program once."""
    shape, base = tiny_model("qwen2")
    return shape, base, tiny_engine(shape)


def padded(rows):
    """Tokens and weights [rows, 16]; what is behind a row has no weight, and nothing before it sees it."""
    pads = [(0,) * (16 - len(row.tokens)) for row in rows]
    tokens = [row.tokens + pad for row, pad in zip(rows, pads, strict=True)]
    return jnp.array(tokens), jnp.array([row.weights + pad for row, pad in zip(rows, pads, strict=True)])


def plain_differences(shape, variables, preferred, rejected):
    """Log-likelihoods of weighted tokens, of preferred less rejected rows, from the full logits."""
    tokens, weights = padded([*preferred, *rejected])

    @jax.jit
    def sums(variables):
        logits = Transformer(shape, LORA.scale).apply(variables, tokens, method="full")
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits)[:, :-1], tokens[:, 1:, None], -1)[..., 0]
        return (log_probs * weights[:, 1:]).sum(-1)

    found = sums(variables)
    return found[: len(preferred)] - found[len(preferred) :]


def equation_7(differences, reference):
    """By log(1 + exp(-x)), of each pair."""
    return jnp.log1p(jnp.exp(-BETA * (differences - jnp.array(reference))))


def batch(pairs, micro, size, length=16):
    """A step's arrays, filled here: pairs one after another, then padding."""
    tokens = np.zeros((micro * size, 2, length), np.int32)
    weights, reference, counts = np.zeros(tokens.shape, np.float32), *np.zeros((2, micro * size), np.float32)
    for place, (preferred, rejected, difference) in enumerate(pairs):
        for side, row in enumerate((preferred, rejected)):
            tokens[place, side, : len(row.tokens)] = row.tokens
            weights[place, side, : len(row.tokens)] = row.weights
        reference[place], counts[place] = difference, 1.0
    split = [part.reshape(micro, size, *part.shape[1:]) for part in (tokens, weights, reference, counts)]
    return dpo.Pairs(*split, np.array(True))


def close(left, right, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), left, right)


def test_the_loss_is_equation_7():
    margins = np.array([-3.0, 0.0, 2.5, 400.0, -400.0])
    wanted = [-np.log(1 / (1 + np.exp(-0.5 * m))) if abs(m) < 99 else max(0.0, -0.5 * m) for m in margins]
    np.testing.assert_allclose(dpo.dpo_loss(margins, 0.5), wanted, rtol=1e-5)


def test_a_step_is_adamw_on_the_plain_loss(model):
    """Three pairs in two micro-batches of two, so that one is padding."""
    shape, base, _ = model
    adapter = random_adapter(base, LORA)
    sides, reference = (PREFERRED[:3], REJECTED[:3]), (0.5, -1.0, 2.0)
    pairs = list(zip(*sides, reference, strict=True))

    def plain(adapter):
        found = plain_differences(shape, {"params": base, "lora": adapter}, *sides)
        return equation_7(found, reference).mean()

    adamw = optax.chain(optax.clip_by_global_norm(5.0), optax.adamw(0.05, 0.9, 0.999, 1e-2, weight_decay=0.1))

    @jax.jit
    def plain_step(adapter):
        value, grads = jax.value_and_grad(plain)(adapter)
        updates, _ = adamw.update(grads, adamw.init(adapter), adapter)
        return value, optax.apply_updates(adapter, updates)

    value, wanted = plain_step(adapter)
    program = dpo.Program(sft.Program(Transformer(shape, LORA.scale), HOW, 8), BETA)
    state = sft.init_state(HOW, {"lora": adapter})
    step = jax.jit(dpo.dpo_step, static_argnums=0)
    state, loss = step(program, {"params": base}, state, batch(pairs, 2, 2), HYPER)
    np.testing.assert_allclose(loss, value, rtol=1e-5)
    close(state.trainable["lora"], wanted)
    idle = batch(pairs, 2, 2)._replace(valid=np.array(False))
    same, nothing = step(program, {"params": base}, state, idle, HYPER)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    assert nothing == 0.0


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapter", "full"])
def test_a_training_is_a_plain_loop_over_its_pairs(model, lora):
    """Two epochs of four pairs, all in one step: schedule, micro-batches, and what the reference is."""
    shape, base, engine = model
    reference = tuple(np.asarray(plain_differences(shape, {"params": base}, PREFERRED, REJECTED)).tolist())
    learner, before = Candidate(PREFERRED, 0.02, 2, 0, (4, 1), (5,)), engine.usage.real
    pairs = Pairs(learner, REJECTED, reference)
    trained, losses = engine.prefer(engine.put_base(base), pairs, replace(RECIPE, lora=lora), BETA)

    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 4), 1)
    weights = init_adapter(key, base, LORA) if lora else base

    def variables(weights):
        return {"params": base, "lora": weights} if lora else {"params": weights}

    def plain(weights):
        return equation_7(plain_differences(shape, variables(weights), PREFERRED, REJECTED), reference).mean()

    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(0.9, 0.999, 1e-2))
    moments, wanted = jax.jit(adam.init)(weights), []

    @jax.jit
    def plain_step(weights, moments, rate):
        value, grads = jax.value_and_grad(plain)(weights)
        updates, moments = adam.update(grads, moments)
        return value, jax.tree.map(lambda w, u: w - rate * u, weights, updates), moments

    for epoch in range(2):
        value, weights, moments = plain_step(weights, moments, 0.02 * (1 - epoch / 2))
        wanted.append(float(value))
    assert losses.tolist() == pytest.approx(wanted, rel=1e-4) and wanted[0] == pytest.approx(np.log(2))
    assert losses[1] < np.log(2) - 0.01
    close(trained, weights, 2e-5)
    assert engine.usage.real - before == 2 * sum(len(row.tokens) for row in PREFERRED + REJECTED)


def test_batches_smaller_than_the_pairs_are_drawn_from_their_order(model):
    """A step of four pairs and one of the fifth, against the plain loss of each at the start."""
    shape, base, engine = model
    rows = PREFERRED + random_rows((6,), 5, prompt=3), REJECTED + random_rows((6,), 6, prompt=3)
    reference = (0.3, -0.4, 0.5, -0.6, 0.7)
    learner = Candidate(rows[0], 1e-9, 1, 0, (4,), (8,))  # learns next to nothing
    _, losses = engine.prefer(engine.put_base(base), Pairs(learner, rows[1], reference), RECIPE, BETA)
    each = equation_7(plain_differences(shape, {"params": base}, *rows), reference)
    order = [(3, 0, 1, 2, 4)[slot] for slot in packing.epoch_order((8,), 0, 5)]  # by the longer: 16, 14, 12, 11, 6
    for number, loss in enumerate(losses):
        assert loss == pytest.approx(np.mean([each[i] for i in order[4 * number : 4 * number + 4]]), rel=1e-4)
    assert len(losses) == 2 and order[4:] != [4] and abs(losses[0] - losses[1]) > 1e-3


def test_the_preferred_becomes_likelier_and_the_rejected_less(model):
    shape, base, engine = model
    placed = engine.put_base(base)

    def difference(weights):
        sides = [engine.log_likelihood(Weights(weights), [rows])[0] for rows in (PREFERRED, REJECTED)]
        return np.subtract(*sides)

    before = difference(placed)
    learner = Candidate(PREFERRED, 5e-3, 8, 0, (4,), (5,))
    trained, losses = engine.prefer(placed, Pairs(learner, REJECTED, tuple(before.tolist())), RECIPE, BETA)
    after = difference(engine.merge(placed, trained, LORA))
    assert (after > before + 1).all() and losses[-1] < losses[0] / 2


def test_pairs_stand_with_the_longest_first_and_keep_together():
    rows = [Row((k,) * n, (1.0,) * n) for k, n in enumerate((2, 5, 3, 3, 4, 1))]
    learner = Candidate((rows[0], rows[2], rows[4]), 0.1, 1, 0, (1,), (2,))
    [preferred, rejected], reference = Pairs(learner, (rows[3], rows[1], rows[5]), (0.1, 0.2, 0.3)).slots()
    assert (preferred, rejected) == ([rows[2], rows[4], rows[0]], [rows[1], rows[5], rows[3]])
    assert reference == [0.2, 0.3, 0.1]
    values, counts = pairs_of((2, 0, 1), reference, (2, 2))
    np.testing.assert_allclose(values, [[0.1, 0.2], [0.3, 0.0]], rtol=1e-6)
    assert counts.tolist() == [[1, 1], [1, 0]] and values.dtype == counts.dtype == np.float32
