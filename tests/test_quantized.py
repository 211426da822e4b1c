"""A base in fewer bits: near the full one, smaller, and trained upon; what is learned is merged into whole weights."""

import dataclasses
import functools
import importlib.util

import jax
import numpy as np
import pytest
import tiny_run
from tiny_training import LORA, random_adapter, random_rows, tiny_engine, tiny_model

from seal_jax import config as config_lib
from seal_jax.engine.memory import peak
from seal_jax.engine.packing import Candidate
from seal_jax.engine.recipe import Recipe, recipe
from seal_jax.engine.weights import Weights
from seal_jax.errors import UserError
from seal_jax.inner import sft
from seal_jax.model import quantized
from seal_jax.model.lora import PROJECTIONS, merge
from seal_jax.model.transformer import Transformer
from seal_jax.student.actor import Actor, load_actor
from seal_jax.student.merge import merge as merge_learned

RECIPE = Recipe(LORA, 1, 1, sft.Optimizer("constant"))
with_qwix = pytest.mark.skipif(importlib.util.find_spec("qwix") is None, reason="qwix is not installed (.[quant])")


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen2")


@pytest.fixture(scope="module")
def bases(model):
    return {kind: quantized.quantize(model[1], kind) for kind in ("none", "int8")}


def logits(config, base, tokens):
    full = jax.jit(functools.partial(Transformer(config).apply, method="full"))
    return np.asarray(full({"params": base}, tokens))


@with_qwix
def test_it_is_near_the_full_model(model, bases):
    tokens = np.random.default_rng(0).integers(3, 301, (2, 24)).astype(np.int32)
    full = logits(model[0], bases["none"], tokens)
    error = np.abs(logits(model[0], bases["int8"], tokens) - full).mean() / full.std()
    assert 1e-5 < error < 0.03


@with_qwix
def test_a_weight_is_off_by_half_a_step_of_its_block_at_most(model, bases):
    import qwix

    for name in PROJECTIONS:
        kernel, found = model[1]["layers"][name]["kernel"], bases["int8"]["layers"][name]["kernel"]
        assert found.shape == kernel.shape
        blocks = np.abs(kernel).reshape(kernel.shape[0], found.scale.shape[1], -1, kernel.shape[2])
        greatest = np.broadcast_to(blocks.max(axis=2, keepdims=True), blocks.shape).reshape(kernel.shape)
        back = jax.vmap(qwix.dequantize)(found)
        assert np.all(np.abs(back - kernel) <= (1 / 255 + 1e-6) * greatest)
    assert bases["int8"]["embed"] is model[1]["embed"]
    assert bases["int8"]["layers"]["q_proj"]["bias"] is model[1]["layers"]["q_proj"]["bias"]


@with_qwix
def test_it_takes_less_memory_and_so_does_a_step_on_it(bases):
    """Dequantized kernels are not kept for the backward pass: all layers' would take as many bytes as are saved."""
    config, params = tiny_model("llama", hidden_size=256, intermediate_size=512, num_hidden_layers=8)
    engine = tiny_engine(config)
    arguments, peaks = {}, {}
    for kind in ("none", "int8"):
        base = engine.put_base(quantized.quantize(params, kind))
        hyper = sft.Hyper(*np.ones((3, 1), np.float32))
        calls = engine.calls
        batch, state = calls.blank_batch((1, 1), (1, 16)), calls.blank_state(base, 1, RECIPE)
        compiled = calls.step({"params": base}, state, engine.layout.put_candidates(hyper), RECIPE, batch).compile()
        arguments[kind], peaks[kind] = compiled.memory_analysis().argument_size_in_bytes, peak(compiled)
    kernels = sum(params["layers"][name]["kernel"].nbytes for name in PROJECTIONS)
    assert arguments["none"] - arguments["int8"] > 0.7 * kernels
    assert peaks["none"] - peaks["int8"] > 0.6 * kernels


@with_qwix
def test_an_inner_loop_learns_on_it(model, bases):
    engine = tiny_engine(model[0])
    base = engine.put_base(bases["int8"])
    before = jax.device_get(base)
    candidates = [Candidate(random_rows((14, 14), c), 2e-2, 8, 0, (c,), (1,)) for c in range(2)]
    adapters, losses = engine.finetune(base, candidates, RECIPE)
    assert all(lane[-2:].mean() < lane[:2].mean() - 1.0 for lane in losses)
    assert {leaf.dtype for leaf in jax.tree.leaves(adapters)} == {np.dtype(np.float32)}
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(base))
    rows = [list(candidate.rows) for candidate in candidates]
    learned = np.array(engine.log_likelihood(Weights(base, adapters, LORA), rows))
    bare = np.array(engine.log_likelihood(Weights(base), [sum(rows, [])])).reshape(2, 2)
    assert np.all(learned > bare + 5)


def test_merged_on_the_host_as_on_the_device(model):
    adapter = random_adapter(model[1], seed=3)
    ours, theirs = quantized.merge_on_host(model[1], adapter, LORA), merge(model[1], adapter, LORA)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), ours, theirs)
    assert np.abs(ours["layers"]["q_proj"]["kernel"] - model[1]["layers"]["q_proj"]["kernel"]).max() > 1e-2


@with_qwix
def test_small_lessons_are_not_rounded_away(model, bases):
    """Each changes weights by less than half a step of the stored kernel, and ten of them add up."""
    engine = tiny_engine(model[0])
    source = dataclasses.make_dataclass("Source", ["params"])(model[1])
    actor = Actor(engine, engine.put_base(bases["int8"]), None, False, source, "int8")
    adapter = random_adapter(model[1], seed=4, size=1e-4)
    for _ in range(10):
        actor = actor.with_adapter(adapter, LORA)
    whole = merge(model[1], adapter, dataclasses.replace(LORA, alpha=10 * LORA.alpha))
    wanted = whole["layers"]["up_proj"]["kernel"] - model[1]["layers"]["up_proj"]["kernel"]
    found = actor.weights()["layers"]["up_proj"]["kernel"] - model[1]["layers"]["up_proj"]["kernel"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    moved = [np.asarray(now["layers"]["up_proj"]["kernel"].qvalue, np.int32) for now in (bases["int8"], actor.base)]
    assert np.any(moved[0] != moved[1])


@with_qwix
def test_the_policy_of_a_run(home):
    """Loaded as the config says; a lesson goes into its whole weights, and these are what is exported."""
    config = config_lib.from_dict(tiny_run.tiny_values(home, model={"quantization": "int8"}))
    policy = load_actor(config.model.policy, config)
    first = policy.source.params
    assert policy.base["layers"]["q_proj"]["kernel"].qvalue.dtype == np.int8
    training = config.outer.sft
    adapter = random_adapter(first, recipe(training).lora)
    taught = merge_learned(policy, adapter, training)
    wanted = merge(first, adapter, recipe(training).lora)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), taught.weights(), wanted)
    jax.tree.map(np.testing.assert_array_equal, policy.weights(), first)
    again = quantized.quantize(taught.weights(), "int8")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(taught.base), again)


def test_without_qwix(model, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"takes qwix, and that is not installed: pip install -e '.\[quant\]'"):
        quantized.quantize(model[1], "int8")
    assert quantized.quantize(model[1], "none") is model[1]


def test_all_weights_cannot_be_trained():
    values = config_lib.defaults()
    values["model"]["quantization"] = "int8"
    values["outer"]["sft"]["rank"] = 0
    with pytest.raises(UserError, match=r"outer.sft.rank: is 0 \(all weights\), but quantized ones cannot be trained"):
        config_lib.from_dict(values)
