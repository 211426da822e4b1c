"""In 16 bits: scores keep the float32 sums of their products, all weights learn as in float32, and a candidate that
diverges stops while no other one notices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import VOCAB, random_adapter, random_rows, stack, tiny_engine, tiny_model

from seal_jax.engine.packing import Candidate
from seal_jax.engine.recipe import Recipe
from seal_jax.inner import sft
from seal_jax.inner.sft import Batch, Hyper, Optimizer, Program
from seal_jax.model import precision
from seal_jax.model.lora import LoraConfig
from seal_jax.model.transformer import Transformer

LORA = LoraConfig(3, 7.5, ("q_proj", "up_proj"))
HOW = Optimizer("linear")
step = jax.jit(sft.sft_step, static_argnums=0)


def in_16_bits(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), tree)


def test_products_are_those_of_float32():
    rng = np.random.default_rng(0)
    a, b = in_16_bits((rng.standard_normal((4, 96)), rng.standard_normal((96, 50))))
    exact = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    np.testing.assert_allclose(precision.einsum("ij,jk->ik", a, b), exact, atol=1e-4)
    assert np.abs(np.asarray(a @ b, np.float64) - exact).max() > 1e-2  # what is avoided


@pytest.mark.parametrize("spec", ["ij,jk->ik", "...j,jk->...k"])
def test_gradients_are_those_of_any_product(spec):
    rng = np.random.default_rng(1)
    a, b, weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 6), (6, 5), (4, 5)))
    ours = jax.grad(lambda a, b: (precision.einsum(spec, a, b) * weights).sum(), (0, 1))(a, b)
    np.testing.assert_allclose(ours[0], weights @ b.T, rtol=1e-5)
    np.testing.assert_allclose(ours[1], a.T @ weights, rtol=1e-5)
    half = jax.grad(lambda a, b: (precision.einsum(spec, a, b) * weights).sum(), (0, 1))(*in_16_bits((a, b)))
    assert {leaf.dtype for leaf in half} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(np.asarray(half[0], np.float32), weights @ b.T, atol=0.1)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_do_not_tie(tied):
    """The two most likely tokens have the same logit only where float32 gives them the same one."""
    config, base = tiny_model(tied=tied)
    model, variables = Transformer(config), {"params": in_16_bits(base)}
    tokens = np.random.default_rng(2).integers(3, VOCAB, (8, 40)).astype(np.int32)
    hidden, _ = model.apply(variables, tokens)
    assert hidden.dtype == jnp.bfloat16
    logits = np.asarray(model.apply(variables, hidden, method="logits"))
    head = variables["params"]["embed"]["embedding"].T if tied else variables["params"]["lm_head"]["kernel"]
    exact = np.asarray(hidden, np.float64) @ np.asarray(head, np.float64)
    np.testing.assert_allclose(logits, exact, atol=1e-4)
    best = np.sort(logits, -1)
    assert logits.dtype == np.float32 and (best[..., -1] > best[..., -2]).all()


def losses_of(base, dtype, steps=80, micro=1):
    """Losses of full finetuning on the same three batches again and again, and by how much a norm's weights moved."""
    config, _ = tiny_model()
    program = Program(Transformer(config), HOW, 64, dtype=dtype)
    rng = np.random.default_rng(3)
    texts = rng.integers(3, VOCAB, (3, micro, 2, 16)).astype(np.int32)
    batches = [Batch(tokens, np.ones(tokens.shape, np.float32), np.bool_(True)) for tokens in texts]
    start = precision.masters(base, jax.random.key(5))
    state, losses = sft.init_state(HOW, {"params": start}), []
    for number in range(steps):
        state, loss = step(program, {}, state, batches[number % 3], Hyper(np.float32(1e-4), steps, 0))
        losses.append(float(loss))
    ends, begins = (np.asarray(tree["final_norm"]["scale"]) for tree in (state.trainable["params"], start))
    return np.array(losses), ends - begins


@pytest.mark.parametrize("micro", [1, 4])
def test_all_weights_learn_as_in_float32(micro):
    """From the first step on; 1e-4 is less than half of what separates neighbouring 16-bit numbers near 1."""
    _, base = tiny_model()
    base = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), in_16_bits(base))
    wide, wide_moved = losses_of(base, "float32", micro=micro)
    half, half_moved = losses_of(in_16_bits(base), "bfloat16", micro=micro)
    fell = wide[:3].mean() - wide[-3:].mean()
    assert fell > 0.1
    assert half[:3].mean() - half[-3:].mean() == pytest.approx(fell, rel=0.005)
    np.testing.assert_allclose(half[:78].reshape(-1, 6).mean(1), wide[:78].reshape(-1, 6).mean(1), atol=0.004)
    assert (half_moved != 0).all() and np.corrcoef(wide_moved, half_moved)[0, 1] > 0.98


def test_masters_round_to_the_weights_and_lie_evenly_about_them():
    rng = np.random.default_rng(4)
    weights = in_16_bits({"a": rng.standard_normal((300, 50)), "b": 2.0 ** np.arange(-9, 9), "c": np.zeros(5)})
    weights["d"] = jnp.asarray(rng.standard_normal(7), jnp.float32)
    found = precision.masters(weights, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    for name in "abc":
        np.testing.assert_array_equal(found[name].astype(jnp.bfloat16), weights[name])
    np.testing.assert_array_equal(found["d"], weights["d"])
    _, exponent = np.frexp(np.asarray(weights["a"], np.float64))
    off = (np.asarray(found["a"], np.float64) - np.asarray(weights["a"], np.float64)) / np.exp2(exponent - 8.0)
    assert abs(off).max() <= 0.5 and abs(off.mean()) < 0.01  # in distances of neighbouring numbers
    np.testing.assert_allclose(np.histogram(off, 10, (-0.5, 0.5))[0] / off.size, 0.1, atol=0.01)
    other = precision.masters(weights, jax.random.key(1))
    assert (other["a"] != found["a"]).mean() > 0.99


def test_all_weights_of_an_engine_learn_so_too():
    config, base = tiny_model()
    half = in_16_bits(base)
    learner = Candidate(random_rows((16, 16, 16), 4), 1e-4, 8, 0, (1,), (2,))
    losses = [
        tiny_engine(config).teach(weights, learner, Recipe(None, 1, 1, HOW))[1].reshape(8, 3).mean(-1)
        for weights in (jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half), half)
    ]
    assert losses[0][0] - losses[0][-1] > 0.1
    np.testing.assert_allclose(*losses, atol=0.004)


def test_adapters_learn_as_in_float32():
    config, base = tiny_model()
    rows = random_rows((14, 12, 9), 4)
    candidate = Candidate(rows, 3e-3, 10, 0, (1,), (2,))
    half = in_16_bits(base)
    found = [
        tiny_engine(config).finetune(weights, [candidate], Recipe(LORA, 1, 1, HOW))[1][0]
        for weights in (jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half), half)
    ]
    fell = [losses[:3].mean() - losses[-3:].mean() for losses in found]
    assert fell[0] > 0.1 and fell[1] == pytest.approx(fell[0], rel=0.03)


def test_one_that_diverges_is_frozen_and_no_other_notices():
    config, base = tiny_model()
    program = Program(Transformer(config, LORA.scale), HOW, 8)
    steps = jax.jit(jax.vmap(functools.partial(sft.sft_step, program), in_axes=(None, 0, 0, 0)))
    rng = np.random.default_rng(5)
    tokens = rng.integers(3, VOCAB, (4, 3, 1, 2, 16)).astype(np.int32)  # four steps of three candidates
    weights = np.ones(tokens.shape, np.float32)
    start = stack([random_adapter(base, LORA, seed) for seed in range(3)])
    hyper = Hyper(np.full(3, 1e-2, np.float32), np.full(3, 4), np.zeros(3))
    outcomes = []
    for poison in (1.0, np.inf):
        state = jax.vmap(functools.partial(sft.init_state, HOW))({"lora": start})
        seen, losses = [state], []
        for number in range(4):
            counts = weights[number].copy()
            counts[1, 0, 0, 3] = poison if number == 1 else 1.0
            batch = Batch(tokens[number], counts, np.ones(3, bool))
            state, loss = steps({"params": base}, state, batch, hyper)
            seen.append(state)
            losses.append(np.asarray(loss))
        outcomes.append((seen, np.array(losses)))
    (clean, clean_losses), (seen, losses) = outcomes
    for lane in (0, 2):
        np.testing.assert_array_equal(losses[:, lane], clean_losses[:, lane])
        same_bits(seen[-1], clean[-1], lane)
    assert np.isfinite(losses[0, 1]) and np.isnan(losses[1:, 1]).all()
    for later in seen[2:]:  # as it was after its first step, moments and count too
        same_bits(later._replace(diverged=seen[1].diverged), seen[1], 1)
    assert seen[-1].diverged.tolist() == [False, True, False]


def same_bits(left, right, lane):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[lane], b[lane]), left, right)
