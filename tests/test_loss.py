"""The chunked loss equals the plain one, and logits of more than a chunk exist nowhere."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import LORA, VOCAB, random_adapter, stack, tiny_model

from seal_jax.engine.packing import counted_places
from seal_jax.fitting.flops import matmul_flops
from seal_jax.inner import loss, sft
from seal_jax.inner.sft import Batch, Hyper, Optimizer, Program
from seal_jax.model.transformer import Transformer

BATCH, LENGTH = 2, 14
TOKENS = np.random.default_rng(0).integers(3, VOCAB, (BATCH, LENGTH)).astype(np.int32)
WEIGHTS = np.random.default_rng(1).choice([0.0, 0.5, 1.0, 2.0], (BATCH, LENGTH)).astype(np.float32)
# Where a weight is not 0, by hand; the rows have not equally many, and 0 pads.
PLACES = np.zeros((BATCH, LENGTH), np.int32)
for row in range(BATCH):
    found = [place for place in range(1, LENGTH) if WEIGHTS[row, place]]
    PLACES[row, : len(found)] = found


@pytest.fixture(scope="module")
def plain():
    """Model, variables, and log-probabilities [B, T-1] from whole logits."""
    config, base = tiny_model("qwen2")
    model = Transformer(config, LORA.scale)
    variables = {"params": base, "lora": random_adapter(base)}
    logits = np.asarray(model.apply(variables, TOKENS, method="full"), np.float64)[:, :-1]
    logits -= logits.max(-1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return model, variables, np.take_along_axis(log_probs, TOKENS[:, 1:, None], -1)[..., 0]


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_log_probabilities(plain, chunk):
    model, variables, expected = plain

    @jax.jit
    def log_probs(variables):
        hidden, tokens = loss.predicted(model.apply(variables, TOKENS)[0], TOKENS, None)
        return loss.of_logits(model, variables, loss.log_prob, (hidden, tokens), chunk)

    got = log_probs(variables)
    assert got.shape == (BATCH, LENGTH - 1) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_weights_and_masks(plain):
    model, variables, expected = plain
    weighted = expected * WEIGHTS[:, 1:]
    everywhere = jax.jit(lambda weights: loss.log_likelihood(model, variables, TOKENS, weights, 5))
    at_places = jax.jit(lambda weights: loss.log_likelihood(model, variables, TOKENS, weights, 5, PLACES))
    for first in (0.0, 9.0):  # the first token has nothing before it: whatever its weight, it does not count
        weights = WEIGHTS.copy()
        weights[:, 0] = first
        for function in (everywhere, at_places):
            np.testing.assert_allclose(function(weights), weighted.sum(1), rtol=1e-5)


@pytest.mark.parametrize("trained", (("lora",), ("lora", "params")))
@pytest.mark.parametrize("places", [None, PLACES])
def test_chunks_give_the_same_gradient(places, trained):
    """Of an adapter alone, and of it and all weights, the tied embedding among them: the head's part comes through the
    chunks, applied everywhere or to the tokens that count."""
    config, base = tiny_model(tied=True)
    model = Transformer(config, LORA.scale)
    variables = {"params": base, "lora": random_adapter(base)}

    def whole(part):
        logits = model.apply(variables | part, TOKENS, method="full")[:, :-1]
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), TOKENS[:, 1:, None], -1)[..., 0]
        return -(picked * WEIGHTS[:, 1:]).sum()

    def chunked(part):
        return -loss.log_likelihood(model, variables | part, TOKENS, WEIGHTS, 5, places).sum()

    part = {name: variables[name] for name in trained}
    expected, got = (jax.jit(jax.grad(function))(part) for function in (whole, chunked))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max()), expected, got)
    moved = got["params"]["embed"]["embedding"] if "params" in trained else got["lora"]["layers"]["q_proj"]["B"]
    assert np.abs(moved).max() > 0.1


# Memory


def arrays_of(jaxpr):
    """Shapes of everything a jaxpr computes, inner jaxprs included."""
    for equation in jaxpr.eqns:
        yield from (tuple(out.aval.shape) for out in equation.outvars)
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from arrays_of(inner)


def step_on_candidates(full, remat, chunk, counted=24):
    """A training step of three candidates, and arguments for it; `counted` of 24 tokens have a loss."""
    config, base = tiny_model(tied=True, vocab=1009)  # a prime greater than every other size here
    model = Transformer(config, LORA.scale, remat)
    program = Program(model, Optimizer(), chunk)
    frozen = {} if full else {"params": base}
    one = {"params": base} if full else {"lora": random_adapter(base)}
    state = jax.vmap(functools.partial(sft.init_state, program.optimizer))(stack([one] * 3))
    tokens = np.zeros((3, 1, 2, 24), np.int32)
    weights = np.broadcast_to(np.arange(24) < counted, tokens.shape).astype(np.float32)
    batch = Batch(tokens, weights, np.ones(3, bool), places=counted_places(weights))
    hyper = Hyper(np.ones(3, np.float32), np.ones(3, np.int32), np.zeros(3, np.int32))
    step = jax.vmap(functools.partial(sft.sft_step, program), in_axes=(None, 0, 0, 0))
    return step, (frozen, state, batch, hyper)


def check_sizes(shapes, full, chunk):
    with_vocabulary = {shape for shape in shapes if any(size % 1009 == 0 and size for size in shape)}
    weights = 3 * 1009 * 64 if full else 1009 * 64  # the embedding, its gradient and moments
    for shape in with_vocabulary:
        is_weights = 64 in shape and int(np.prod(shape)) <= weights
        assert is_weights or int(np.prod(shape)) <= 3 * 2 * chunk * 1009, shape
    assert any(int(np.prod(shape)) == 3 * 2 * chunk * 1009 for shape in with_vocabulary)  # it looks where it should


@pytest.mark.parametrize(("full", "remat"), [(False, "none"), (False, "full"), (True, "none")])
def test_no_logits_of_more_than_a_chunk_are_traced(full, remat):
    step, args = step_on_candidates(full, remat, 4)
    check_sizes(set(arrays_of(jax.make_jaxpr(step)(*args).jaxpr)), full, 4)


def test_the_search_finds_whole_logits():
    """With a chunk as long as the sequence the same search sees them."""
    step, args = step_on_candidates(False, "none", 23)
    with pytest.raises(AssertionError):
        check_sizes(set(arrays_of(jax.make_jaxpr(step)(*args).jaxpr)), False, 4)


def test_no_logits_of_tokens_that_do_not_count():
    """Seven of 23 places count, for which 16 are enough, and a chunk may hold them all."""
    step, args = step_on_candidates(False, "none", 24, counted=8)
    assert args[2].places.shape == (3, 1, 2, 16)
    check_sizes(set(arrays_of(jax.make_jaxpr(step)(*args).jaxpr)), False, 16)


def test_no_logits_of_more_than_a_chunk_are_compiled():
    """XLA did not put them together again."""
    step, args = step_on_candidates(False, "none", 4)
    text = jax.jit(step).lower(*args).compile().as_text()
    shapes = {tuple(map(int, dims.split(","))) for dims in re.findall(r"[a-z]+\d+\[([\d,]+)\]", text)}
    check_sizes(shapes, False, 4)


def test_the_head_is_not_applied_again_where_it_is_not_trained(plain):
    """Forward and backward is two products with it; three and that for its own gradient where it is trained."""
    model, variables, _ = plain
    one = 2 * BATCH * 2 * 7 * 64 * VOCAB  # two chunks of seven positions, the last of them padding

    def products(**trained):
        def total(trained):
            return loss.log_likelihood(model, {**variables, **trained}, TOKENS, WEIGHTS, 7).sum()

        with_head = jax.make_jaxpr(jax.grad(total))(trained)
        without = jax.make_jaxpr(
            jax.grad(lambda trained: jnp.sum(model.apply({**variables, **trained}, TOKENS)[0] ** 2))
        )(trained)
        return (matmul_flops(with_head.jaxpr) - matmul_flops(without.jaxpr)) / one

    assert products(lora=variables["lora"]) == 2
    assert products(params=variables["params"]) == 4
