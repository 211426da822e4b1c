"""One optimizer step: AdamW, schedules, accumulation, and steps that must change nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import VOCAB, random_adapter, tiny_model

from seal_jax.inner import loss, sft
from seal_jax.inner.sft import Batch, Hyper, Optimizer, Program
from seal_jax.model.lora import LoraConfig
from seal_jax.model.transformer import Transformer

LENGTH = 16
LORA = LoraConfig(3, 7.5, ("q_proj", "up_proj"))
HOW = Optimizer("cosine", clip_norm=0.2, weight_decay=0.3)
HYPER = Hyper(np.float32(0.05), np.int32(7), np.int32(2))
step = jax.jit(sft.sft_step, static_argnums=0)


def nll(*args):
    return -loss.log_likelihood(*args).sum()


@pytest.fixture(scope="module")
def model():
    """Configuration, base and adapter."""
    config, base = tiny_model("qwen2")
    return config, base, random_adapter(base, LORA)


def program(config):
    return Program(Transformer(config, LORA.scale), HOW, 8)


def batch(seed, micro=1, size=2, valid=True):
    """Random rows of different lengths, the first three tokens of each without loss."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, VOCAB, (micro, size, LENGTH)).astype(np.int32)
    lengths = rng.integers(6, LENGTH + 1, (micro, size, 1))
    places = np.arange(LENGTH)
    weights = ((places >= 3) & (places < lengths)).astype(np.float32)
    return Batch(tokens, weights, np.array(valid))


def same_bits(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def close(left, right, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), left, right)


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", sft.SCHEDULES)
def test_schedules_are_those_of_transformers(schedule, warmup):
    torch = pytest.importorskip("torch", reason="transformers' schedules drive torch optimizers")
    transformers = pytest.importorskip("transformers")
    name = "constant_with_warmup" if schedule == "constant" and warmup else schedule
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-3)
    reference = transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=11)
    theirs = []
    for _ in range(12):  # the rate at the end, too
        theirs.append(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    hyper = Hyper(jnp.float32(3e-3), jnp.int32(11), jnp.int32(warmup))
    ours = [float(sft.learning_rate(schedule, hyper, jnp.int32(number))) for number in range(12)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-9)


def test_warmup_longer_than_the_training():
    hyper = Hyper(1.0, 3, 10)
    assert [round(float(sft.learning_rate("linear", hyper, number)), 6) for number in range(3)] == [0.0, 0.1, 0.2]


def test_steps_are_those_of_adamw(model):
    """Against AdamW written out in float64, with clipping at work, decay, warm-up and cosine."""
    config, base, adapter = model
    how = program(config)
    gradient = jax.jit(
        jax.grad(lambda a, b: nll(how.model, {"params": base, "lora": a}, b.tokens[0], b.weights[0], 8))
    )
    state = sft.init_state(HOW, {"lora": adapter})
    leaves, tree = jax.tree.flatten(adapter)
    weights = [np.asarray(leaf, np.float64) for leaf in leaves]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for number in range(5):
        data = batch(number)
        now = jax.tree.unflatten(tree, [w.astype(np.float32) for w in weights])
        grads = [np.asarray(g, np.float64) / data.weights.sum() for g in jax.tree.leaves(gradient(now, data))]
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        assert norm > HOW.clip_norm
        rate = 0.05 * (number / 2 if number < 2 else 0.5 * (1 + np.cos(np.pi * (number - 2) / 5)))
        for i, grad in enumerate(grads):
            grad = grad * HOW.clip_norm / norm
            first[i] = 0.9 * first[i] + 0.1 * grad
            second[i] = 0.999 * second[i] + 0.001 * grad**2
            adam = first[i] / (1 - 0.9 ** (number + 1)) / (np.sqrt(second[i] / (1 - 0.999 ** (number + 1))) + 1e-8)
            weights[i] = weights[i] - rate * (adam + 0.3 * weights[i])
        state, _ = step(how, {"params": base}, state, data, HYPER)
        close(state.trainable["lora"], jax.tree.unflatten(tree, weights), 2e-4)
    moved = max(np.abs(a - b).max() for a, b in zip(leaves, jax.tree.leaves(state.trainable), strict=True))
    assert moved > 0.1 and int(state.step) == 5


def test_the_loss_is_the_mean_over_tokens_with_a_weight(model):
    """One row counts for a quarter, the other three times: the mean is still over the tokens."""
    config, base, adapter = model
    data = batch(3)
    data = data._replace(weights=data.weights * np.array([0.25, 3.0], np.float32)[:, None])
    variables = {"params": base, "lora": adapter}
    logits = np.asarray(Transformer(config, LORA.scale).apply(variables, data.tokens[0], method="full"), np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_probs[:, :-1], data.tokens[0, :, 1:, None], -1)[..., 0]
    weights = data.weights[0, :, 1:]
    _, got = step(program(config), {"params": base}, sft.init_state(HOW, {"lora": adapter}), data, HYPER)
    np.testing.assert_allclose(got, -(picked * weights).sum() / (weights != 0).sum(), rtol=1e-5)


def test_an_invalid_step_changes_nothing(model):
    """Not weights (though they decay), nor Adam's moments and count, nor the step; training goes on as without it."""
    config, base, adapter = model
    how, frozen = program(config), {"params": base}
    state = sft.init_state(HOW, {"lora": adapter})
    for number in range(3):
        state, _ = step(how, frozen, state, batch(number), HYPER)
    moving = state.trainable, state.optimizer, state.step
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(moving))  # momentum that could move the weights
    for data in (batch(8, valid=False), jax.tree.map(np.zeros_like, batch(8))):
        held, value = step(how, frozen, state, data, HYPER)
        same_bits(held, state)
        assert float(value) == 0.0
    same_bits(step(how, frozen, held, batch(4), HYPER), step(how, frozen, state, batch(4), HYPER))
    counts = [leaf for leaf in jax.tree.leaves(held.optimizer) if leaf.dtype == jnp.int32]
    assert [int(count) for count in counts] == [3] and int(held.step) == 3


def test_a_batch_without_loss_gives_no_nan(model):
    config, base, adapter = model
    data = batch(1)._replace(weights=np.zeros((1, 2, LENGTH), np.float32))
    state, value = step(program(config), {"params": base}, sft.init_state(HOW, {"lora": adapter}), data, HYPER)
    assert float(value) == 0.0 and int(state.step) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_accumulation_equals_one_larger_batch(model):
    """Three rows of different lengths as one batch, and as two micro-batches of two, the last place empty."""
    config, base, adapter = model
    how = program(config)
    states = [sft.init_state(HOW, {"lora": adapter}) for _ in range(2)]
    for number in range(3):
        whole = batch(number, size=3)
        padded = [np.pad(part[0], ((0, 1), (0, 0))).reshape(2, 2, LENGTH) for part in whole[:2]]
        outcomes = [
            step(how, {"params": base}, state, data, HYPER)
            for state, data in zip(states, (whole, Batch(*padded, whole.valid)), strict=True)
        ]
        states = [state for state, _ in outcomes]
        np.testing.assert_allclose(*(value for _, value in outcomes), rtol=1e-5)
        close(states[0].trainable, states[1].trainable, 2e-4)


@pytest.mark.parametrize("full", [False, True])
def test_types_stay_as_they_are(model, full):
    """A bfloat16 base, trained whole or with a float32 adapter: no step changes the type of anything."""
    config, base, adapter = model
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), base)
    state = sft.init_state(HOW, {"params": half} if full else {"lora": adapter})
    frozen = {} if full else {"params": half}
    for data in (batch(0), batch(0, micro=2)):
        new, _ = jax.eval_shape(functools.partial(sft.sft_step, program(config)), frozen, state, data, HYPER)
        same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), new, state)
        assert all(jax.tree.leaves(same))


def test_finetune_is_a_loop_over_steps(model, monkeypatch):
    config, base, adapter = model
    how, frozen = program(config), {"params": base}
    data = [batch(number, valid=number != 1) for number in range(4)]
    state, expected = sft.init_state(HOW, {"lora": adapter}), []
    for one in data:
        state, value = step(how, frozen, state, one, HYPER)
        expected.append(value)
    monkeypatch.setattr(sft, "sft_step", step)
    stacked = jax.tree.map(lambda *parts: np.stack(parts), *data)
    trained, losses = sft.finetune(how, frozen, {"lora": adapter}, stacked, HYPER)
    same_bits(trained, state.trainable)
    same_bits(losses, jnp.stack(expected))
