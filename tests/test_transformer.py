"""The decoder: layout of its weights, attention, rotary positions, the cache, left padding, remat."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_checkpoint import rope_divisors, tiny_config
from tiny_training import LORA, VOCAB, random_adapter, stack, tiny_model

from seal_jax.fitting.flops import matmul_flops
from seal_jax.model import attention, transformer
from seal_jax.model.layout import leaves
from seal_jax.model.lora import PROJECTIONS
from seal_jax.model.rope import Rope
from seal_jax.model.transformer import REMAT, LayerKind, Prompts, RMSNorm, Transformer, make_room

TOKENS = np.random.default_rng(0).integers(3, VOCAB, (3, 21)).astype(np.int32)


@functools.cache
def jitted(model, method):
    return jax.jit(functools.partial(model.apply, method=method))


def full(model, variables, tokens):
    return np.asarray(jitted(model, "full")(variables, tokens))


def close(left, right, tolerance=2e-5):
    np.testing.assert_allclose(left, right, rtol=0, atol=tolerance)


# Weights


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("qwen2", False), ("qwen3", False), ("gemma3_text", True)])
def test_weights_are_laid_out_as_documented(kind, tied):
    config, _ = tiny_model(kind, tied=tied)
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), TOKENS)
    assert set(shapes) == {"params"}
    if not tied:  # the head is not called without logits
        shapes = jax.eval_shape(functools.partial(Transformer(config).init, method="full"), jax.random.key(0), TOKENS)
    ours = {
        tuple(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"])
    }
    depth = (config.num_layers,)
    assert ours == {leaf.path: (depth if leaf.stacked else ()) + leaf.shape for leaf in leaves(config)}


# Attention and positions


def test_rotary_frequencies_and_their_llama_3_scaling():
    for kind, divisors in (("qwen2", 1.0), ("llama", rope_divisors(tiny_config("llama")))):
        config, _ = tiny_model(kind)
        expected = 1000.0 ** (-np.arange(0, 16, 2) / 16) / divisors
        (kind,) = config.kinds
        np.testing.assert_allclose(kind.rope.frequencies(16), expected, rtol=1e-6)
    assert len(set(np.round(divisors, 3))) > 2  # kept, between, and divided by the factor


def test_rotation_tells_distances_only():
    rng = np.random.default_rng(2)
    q, k = (jnp.asarray(rng.standard_normal((1, 1, 1, 8)), jnp.float32) for _ in range(2))

    def score(at, other):
        places = (q, at), (k, other)
        turned = [transformer.rotate(x, transformer.turns(Rope(100.0), jnp.array([[place]]), 8)) for x, place in places]
        return float((turned[0] * turned[1]).sum())

    assert abs(score(9, 4) - score(25, 20)) < 1e-5
    assert abs(score(9, 4) - score(9, 5)) > 1e-3
    assert abs(score(0, 0) - float((q * k).sum())) < 1e-6


def test_norm_is_computed_in_float32():
    x = jnp.asarray([[300.0, -200.0, 1e-3, 7.0]], jnp.bfloat16)
    scale = np.array([1.0, 2.0, 3.0, 0.5], np.float32)
    out = RMSNorm(1e-5).apply({"params": {"scale": scale}}, x)
    x64 = np.asarray(x, np.float64)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float64), x64 / np.sqrt((x64**2).mean() + 1e-5) * scale, rtol=5e-3)


def test_a_token_sees_only_those_before_it():
    config, base = tiny_model()
    model = Transformer(config)
    changed = TOKENS.copy()
    changed[:, 10] = (changed[:, 10] + 1) % VOCAB
    before, after = full(model, {"params": base}, TOKENS), full(model, {"params": base}, changed)
    np.testing.assert_array_equal(before[:, :10], after[:, :10])
    assert np.abs(before[:, 10:] - after[:, 10:]).max(axis=(0, 2)).min() > 1e-3


def test_a_window_ends_what_a_token_sees():
    """A token of two layers with windows of 3 is reached from 4 before it, and of a layer without one from all."""
    config, base = tiny_model("mistral", sliding_window=3)
    changed = TOKENS.copy()
    changed[:, 5] = (changed[:, 5] + 1) % VOCAB
    variables = {"params": base}
    for window, reached in ((3, 10), (None, 21)):
        layers = tuple(replace(layer, window=window) for layer in config.layers)
        model = Transformer(replace(config, layers=layers))
        difference = np.abs(full(model, variables, TOKENS) - full(model, variables, changed)).max(axis=(0, 2))
        assert difference[5:reached].min() > 1e-3 and not difference[reached:].any()


def test_bfloat16_is_near_float32():
    config, base = tiny_model("qwen3")
    model = Transformer(config)
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), base)
    variables = {"params": half, "lora": random_adapter(base)}  # float32 adapters beside a bfloat16 base
    exact = full(model, variables | {"params": jax.tree.map(lambda leaf: leaf.astype(np.float32), half)}, TOKENS)
    rough = full(model, variables, TOKENS)
    assert rough.dtype == np.float32
    assert jax.eval_shape(model.apply, variables, TOKENS)[0].dtype == jnp.bfloat16
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


# The cache


def in_pieces(model, variables, tokens, pieces, start):
    """Logits of tokens [B, T] whose first piece is read as a prompt, padded on the left up to slot `start` [B], and the
    others one by one through a cache with more slots than are needed."""
    hidden, prompts = jitted(model, None)(variables, tokens[:, : pieces[0]], start=jnp.asarray(start, jnp.int32))
    cache, at, all_hidden = make_room(prompts, tokens.shape[0], tokens.shape[1]), pieces[0], [hidden]
    cache = cache._replace(k=cache.k + 1e3, v=cache.v + 1e3)  # what stands in slots not in use must not matter
    for piece in pieces[1:]:
        hidden, cache = jitted(model, None)(variables, tokens[:, at : at + piece], cache)
        at += piece
        all_hidden.append(hidden)
        assert int(cache.filled) == at - pieces[0]
    hidden = jnp.concatenate(all_hidden, axis=1)
    return np.asarray(model.apply({"params": variables["params"]}, hidden, method="logits"))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text"])
def test_the_cache_changes_nothing(kind):
    """Fed in pieces, by rows that begin in different slots, with adapters: as all at once without padding. Gemma's
    global layer is one without rotary positions here, and its window ends among the prompts and among what is new."""
    config, base = tiny_model(kind)
    if len(config.kinds) > 1:
        config = replace(config, layers=(config.layers[0], LayerKind(None)))
    model = Transformer(config, LORA.scale)
    variables = {"params": base, "lora": random_adapter(base)}
    start = [0, 9, 9]
    got = in_pieces(model, variables, TOKENS, (11, 1, 1, 8), start)
    for row, begin in enumerate(start):
        close(got[row, begin:], full(model, variables, TOKENS[row : row + 1, begin:])[0])


def test_rows_that_share_a_prompt_go_on_from_it_each_for_itself():
    """Two prompts of different lengths, three rows behind each."""
    config, base = tiny_model("qwen3")
    model = Transformer(config, LORA.scale)
    variables = {"params": base, "lora": random_adapter(base)}
    prompts, start = TOKENS[:2, :12], [0, 5]
    own = np.random.default_rng(3).integers(0, VOCAB, (6, 4))
    _, read = jitted(model, None)(variables, prompts, start=jnp.asarray(start, jnp.int32))
    hidden, _ = jitted(model, None)(variables, own, make_room(read, 6, 5))
    got = model.apply({"params": base}, hidden, method="logits")
    for row in range(6):
        tokens = np.concatenate([prompts[row // 3, start[row // 3] :], own[row]])
        close(got[row], full(model, variables, tokens[None])[0, -4:])


def test_left_padding_changes_nothing():
    config, base = tiny_model()
    model = Transformer(config)
    start = np.array([0, 9, 9])
    for filler in (0, 77):
        tokens = np.where(np.arange(21) < start[:, None], filler, TOKENS)
        hidden, _ = jitted(model, None)({"params": base}, tokens, start=start)
        got = model.apply({"params": base}, hidden, method="logits")
        for row, begin in enumerate(start):
            close(got[row, begin:], full(model, {"params": base}, TOKENS[row : row + 1, begin:])[0])


def test_new_keys_are_written_behind_those_of_their_layer():
    cached = jnp.zeros((2, 6, 1, 2, 3), jnp.bfloat16)
    new = jnp.broadcast_to(jnp.arange(2, 5)[:, None], (1, 2, 3, 3))
    written = transformer.write(cached, new, jnp.int32(1), jnp.int32(2))
    assert written[1, :, 0, 1, 2].tolist() == [0, 0, 2, 3, 4, 0]
    assert not written[0].any() and written.dtype == jnp.bfloat16


def test_a_cache_has_the_shapes_of_its_prompts():
    half = jnp.zeros((2, 3, 1, 6, 4), jnp.bfloat16)
    cache = make_room(Prompts(half, half, jnp.zeros(3, jnp.int32)), 6, 5)
    assert cache.k.shape == cache.v.shape == (2, 5, 6, 1, 4)
    assert cache.k.dtype == jnp.bfloat16 and int(cache.filled) == 0


# Adapters under vmap, remat


def test_candidates_share_the_base():
    """One base and a stack of adapters under vmap: each row as its adapter alone."""
    config, base = tiny_model("qwen2")
    model = Transformer(config, LORA.scale)
    adapters = [random_adapter(base, seed=seed) for seed in range(3)]

    def one(adapter, tokens):
        return model.apply({"params": base, "lora": adapter}, tokens[None], method="full")[0]

    together = jax.jit(jax.vmap(one))(stack(adapters), TOKENS)
    for row, adapter in enumerate(adapters):
        close(together[row], full(model, {"params": base, "lora": adapter}, TOKENS[row : row + 1])[0])
    assert np.abs(together[0] - full(model, {"params": base}, TOKENS[:1])[0]).max() > 0.1


def test_what_is_computed_again_changes_no_gradient():
    """From one kind of remat to the next the backward pass computes more and less is kept for it."""
    config, base = tiny_model()
    outcomes, flops, kept = [], [], []
    for remat in REMAT:
        model = Transformer(config, LORA.scale, remat)

        def loss(adapter, model=model):
            logits = model.apply({"params": base, "lora": adapter}, TOKENS, method="full")
            return jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), TOKENS[:, 1:, None], -1).mean()

        adapter = random_adapter(base)
        flops.append(matmul_flops(jax.make_jaxpr(jax.grad(loss))(adapter).jaxpr))
        kept.append(jax.eval_shape(lambda adapter, loss=loss: jax.vjp(loss, adapter)[1], adapter))
        outcomes.append(jax.jit(jax.value_and_grad(loss))(adapter))
    assert set(outcomes[0][1]["layers"]) == set(PROJECTIONS)
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(outcomes[0][1]))
    for other in outcomes[1:]:
        jax.tree.map(functools.partial(close, tolerance=1e-6), outcomes[0], other)
    none, minimal, full = flops
    assert none < minimal < none + 0.2 * (full - none)  # attention alone is computed again
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree) if leaf.shape) for tree in kept]
    assert sizes[0] > 1.2 * sizes[1] > 1.2 * 1.2 * sizes[2]


def test_long_sequences_attend_in_blocks(monkeypatch):
    """The same values and gradients as all at once, also left of a padding, and a program that holds less."""
    config, base = tiny_model("qwen2")
    adapter = random_adapter(base, LORA, 3)
    tokens = np.random.default_rng(1).integers(3, VOCAB, (2, 64)).astype(np.int32)
    start = np.array([0, 5], np.int32)

    def compiled():
        def total(adapter, tokens, start):
            hidden, _ = Transformer(config, 2.0).apply({"params": base, "lora": adapter}, tokens, start=start)
            return jnp.sum(jnp.where((jnp.arange(64) >= start[:, None])[..., None], hidden, 0.0) ** 2)

        return jax.jit(jax.value_and_grad(total)).lower(adapter, tokens, start).compile()

    at_once = compiled()
    monkeypatch.setattr(attention, "LONG", 32)
    monkeypatch.setattr(attention, "QUERIES", 16)
    in_blocks = compiled()
    (value, grads), (expected, expected_grads) = in_blocks(adapter, tokens, start), at_once(adapter, tokens, start)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(np.abs(theirs).max()))
    assert " while(" in in_blocks.as_text() and at_once.as_text() != in_blocks.as_text()
