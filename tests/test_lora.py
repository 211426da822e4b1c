"""Adapters: no effect at first, alpha / rank everywhere, merged weights compute the same."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_training import LORA, VOCAB, random_adapter, tiny_model

from seal_jax.model.export import save_adapter
from seal_jax.model.lora import PROJECTIONS, LoraConfig, init_adapter, merge
from seal_jax.model.transformer import Transformer

TOKENS = np.random.default_rng(0).integers(3, VOCAB, (1, 12)).astype(np.int32)


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen2")


@functools.cache
def jitted(module):
    return jax.jit(functools.partial(module.apply, method="full"))


def logits(config, base, adapter=None, scale=1.0):
    variables = {"params": base} if adapter is None else {"params": base, "lora": adapter}
    return np.asarray(jitted(Transformer(config, scale))(variables, TOKENS))


def by_hand(base, adapter, scale, projection):
    """The base with W + scale · A B in one projection, from float64 arithmetic of numpy."""
    factors = adapter["layers"][projection]
    delta = np.stack([a.astype(float) @ b for a, b in zip(*map(np.asarray, (factors["A"], factors["B"])), strict=True)])
    kernel = base["layers"][projection]["kernel"] + (scale * delta).astype(np.float32)
    return base | {"layers": base["layers"] | {projection: base["layers"][projection] | {"kernel": kernel}}}


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_zero_effect_at_initialisation(model, projection):
    config, base = model
    lora = replace(LORA, targets=(projection,))
    adapter = init_adapter(jax.random.key(3), base, lora)
    assert list(adapter["layers"]) == [projection]
    np.testing.assert_array_equal(logits(config, base, adapter, lora.scale), logits(config, base))


def test_layers_without_an_adapter_have_zero_factors_and_the_others_are_drawn_as_ever(model):
    _, base = model
    whole, one = (init_adapter(jax.random.key(3), base, replace(LORA, layers=layers)) for layers in ((), (1,)))
    for name, factors in whole["layers"].items():
        assert not one["layers"][name]["A"][0].any() and not one["layers"][name]["B"].any()
        np.testing.assert_array_equal(one["layers"][name]["A"][1], factors["A"][1])
        assert factors["A"][0].any()


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_scale_of_each_projection(model, projection, tmp_path):
    """Forward pass, merge and export of one projection's adapter are all W + alpha / rank · A B."""
    config, base = model
    lora = replace(LORA, targets=(projection,))
    assert lora.scale == 2.5
    adapter = random_adapter(base, lora)
    expected = logits(config, by_hand(base, adapter, 2.5, projection))
    assert np.abs(expected - logits(config, base)).max() > 1e-2
    assert np.abs(expected - logits(config, by_hand(base, adapter, 1.0, projection))).max() > 1e-2
    tolerance = 1e-4 * np.abs(expected).max()
    beside = logits(config, base, adapter, lora.scale)
    np.testing.assert_allclose(beside, expected, atol=tolerance)
    np.testing.assert_allclose(logits(config, merge(base, adapter, lora)), expected, atol=tolerance)

    save_adapter(tmp_path / "peft", adapter, lora, "base")
    tensors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    factors = {"A": [], "B": []}
    for layer in range(config.num_layers):
        for which, out in factors.items():
            (name,) = [n for n in tensors if f"layers.{layer}." in n and f".{projection}.lora_{which}.weight" in n]
            out.append(tensors[name].T)
    exported = {"layers": {projection: {which: np.stack(out) for which, out in factors.items()}}}
    told = 7.5 / 3  # what adapter_config.json says, lora_alpha / r
    text = (tmp_path / "peft" / "adapter_config.json").read_text()
    assert '"r": 3,' in text and '"lora_alpha": 7.5,' in text and '"use_rslora": false' in text
    np.testing.assert_array_equal(logits(config, by_hand(base, exported, told, projection)), expected)


def test_merged_weights_compute_the_same_as_an_adapter_beside(model):
    config, base = model
    adapter = random_adapter(base)
    beside = logits(config, base, adapter, LORA.scale)
    merged = merge(base, adapter, LORA)
    assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, base)
    np.testing.assert_allclose(logits(config, merged), beside, atol=1e-4 * np.abs(beside).max())
    assert np.abs(beside - logits(config, base)).max() > 0.1


def test_merge_leaves_the_rest_alone(model):
    _, base = model
    base = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), base)
    before = jax.tree.map(np.array, base)
    lora = replace(LORA, targets=("k_proj", "down_proj"))
    merged = merge(base, random_adapter(base, lora), lora)
    jax.tree.map(np.testing.assert_array_equal, base, before)
    for name, group in merged["layers"].items():
        for leaf, value in group.items():
            assert value.dtype == jnp.bfloat16
            same = np.array_equal(value, base["layers"][name][leaf])
            assert same != (name in lora.targets and leaf == "kernel")
    assert merged["embed"] is base["embed"] and merged["final_norm"] is base["final_norm"]


def test_merge_adds_in_float32(model):
    """A small effect is rounded once, not lost in a bfloat16 product."""
    _, base = model
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), base)
    adapter = random_adapter(base)
    merged = merge(half, adapter, LORA)["layers"]["up_proj"]["kernel"]
    exact = by_hand(jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), half), adapter, LORA.scale, "up_proj")
    expected = jnp.asarray(exact["layers"]["up_proj"]["kernel"], jnp.bfloat16)
    assert np.mean(np.asarray(merged == expected)) > 0.999  # all but ties that fell to the other side


def test_initial_adapter_is_drawn_as_peft_draws_it(model):
    _, base = model
    lora = LoraConfig(32, 64.0, PROJECTIONS)
    adapter = init_adapter(jax.random.key(1), jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), base), lora)
    for name, factors in adapter["layers"].items():
        depth, fan_in, fan_out = base["layers"][name]["kernel"].shape
        a, b = np.asarray(factors["A"]), np.asarray(factors["B"])
        assert a.shape == (depth, fan_in, 32) and b.shape == (depth, 32, fan_out)
        assert a.dtype == b.dtype == np.float32
        assert not b.any()
        bound = fan_in**-0.5  # kaiming_uniform with a = sqrt(5), which PEFT calls
        assert np.abs(a).max() <= bound
        np.testing.assert_allclose(a.std(), bound / np.sqrt(3), rtol=0.05)
        assert abs(a.mean()) < 0.05 * bound
        assert np.abs(a[0] - a[1]).max() > 0.1 * bound


def test_the_draw_of_a_projection_depends_on_the_key_alone(model):
    _, base = model
    everywhere = init_adapter(jax.random.key(1), base, LORA)["layers"]
    alone = init_adapter(jax.random.key(1), base, replace(LORA, targets=("v_proj",)))["layers"]
    other = init_adapter(jax.random.key(2), base, LORA)["layers"]
    np.testing.assert_array_equal(everywhere["v_proj"]["A"], alone["v_proj"]["A"])
    assert not np.array_equal(everywhere["v_proj"]["A"], other["v_proj"]["A"])
    assert not np.array_equal(everywhere["v_proj"]["A"], everywhere["k_proj"]["A"])  # of the same shape
