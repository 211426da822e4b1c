"""Tokens follow the exact distribution, and decoding with a cache computes what the full forward pass computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2
from tiny_training import LORA, VOCAB, random_adapter, stack, tiny_model

from seal_jax.inner import sampling
from seal_jax.inner.sampling import DECODING_AXES, Decoder, Sampling
from seal_jax.model.transformer import Transformer

DRAWS = 20_000
GREEDY = Sampling(0.0, 1.0, 0, ())


def exact(logits, rules):
    """The distribution by sorting, in float64: temperature, top-k, then the least nucleus that holds top_p."""
    logits = np.asarray(logits, np.float64) / rules.temperature
    order = np.argsort(-logits, kind="stable")
    probs = np.exp(logits[order] - logits.max())
    probs[rules.top_k or len(probs) :] = 0
    probs /= probs.sum()
    probs[np.cumsum(probs) - probs >= rules.top_p] = 0
    out = np.zeros_like(probs)
    out[order] = probs / probs.sum()
    return out


def p_value(tokens, probs):
    """Of a chi-square test; tokens expected less than five times go into one bin."""
    seen, expected = np.bincount(tokens, minlength=len(probs)), probs * len(tokens)
    rare = expected < 5
    seen, expected = (np.append(part[~rare], part[rare].sum()) for part in (seen, expected))
    if expected[-1] < 1e-9:
        seen, expected = seen[:-1], expected[:-1]
    return chi2.sf(((seen - expected) ** 2 / expected).sum(), max(len(seen) - 1, 1))


def draw(logits, rules, count=DRAWS):
    keys = jax.random.split(jax.random.key(0), count)
    draw_all = jax.jit(jax.vmap(lambda key: sampling.sample_token(key, jnp.asarray(logits, jnp.float32), rules)))
    jax.config.update("jax_disable_most_optimizations", False)  # here it takes longer to run than to compile
    try:
        return np.asarray(draw_all(keys))
    finally:
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.parametrize(
    ("vocab", "temperature", "top_p", "top_k"),
    [
        (VOCAB, 1.0, 1.0, 0),
        (VOCAB, 0.5, 0.9, 0),
        (VOCAB, 1.0, 0.1, 0),
        (VOCAB, 1.5, 1.0, 7),
        (256, 1.3, 0.8, 40),  # the nucleus is that of what top-k left
        (40, 2.0, 0.95, 0),
        (1030, 1.0, 0.95, 0),
    ],
)
def test_frequencies(vocab, temperature, top_p, top_k):
    logits = 2 * np.random.default_rng(vocab).standard_normal(vocab)
    rules = Sampling(temperature, top_p, top_k, ())
    probs = exact(logits, rules)
    tokens = draw(logits, rules)
    assert set(tokens.tolist()) <= set(np.flatnonzero(probs).tolist())
    assert p_value(tokens, probs) > 1e-3
    if np.count_nonzero(probs) < vocab:  # the test would see that nothing was cut off, or another temperature
        assert p_value(tokens, exact(logits, Sampling(temperature, 1.0, 0, ()))) < 1e-9
    assert p_value(tokens, exact(logits, Sampling(temperature * 1.4, top_p, top_k, ()))) < 1e-9


def test_a_nucleus_ends_at_the_token_that_fills_it():
    probs = np.array([0.05, 0.5, 0.15, 0.3])
    for top_p, kept in ((0.49, {1}), (0.51, {1, 3}), (0.79, {1, 3}), (0.81, {1, 2, 3}), (0.96, set(range(4)))):
        tokens = draw(np.log(probs), Sampling(1.0, top_p, 0, ()))
        assert set(tokens.tolist()) == kept
        assert p_value(tokens, exact(np.log(probs), Sampling(1.0, top_p, 0, ()))) > 1e-3


@pytest.mark.parametrize("rules", [GREEDY, Sampling(1.0, 1.0, 1, ()), Sampling(1.0, 1e-6, 0, ())])
def test_greedy_by_each_rule(rules):
    logits = np.random.default_rng(3).standard_normal(VOCAB)
    for best in (int(logits.argmax()), VOCAB - 1, 0):
        logits[best] = logits.max() + 0.5
        assert set(draw(logits, rules, 100).tolist()) == {best}


def test_top_k_beyond_the_vocabulary_keeps_everything():
    logits = np.random.default_rng(6).standard_normal(40)
    everything = Sampling(1.0, 1.0, 0, ())
    np.testing.assert_array_equal(draw(logits, Sampling(1.0, 1.0, 50, ())), draw(logits, everything))


def test_forbidden_tokens_are_never_drawn():
    logits = np.full(VOCAB, -np.inf)
    logits[[17, 300]] = 0.0
    assert set(draw(logits, Sampling(1.0, 1.0, 0, ())).tolist()) == {17, 300}


def test_no_token_beyond_the_vocabulary(monkeypatch):
    """At the last number that `uniform` can give, rounding may point past the end of the last block."""
    monkeypatch.setattr(jax.random, "uniform", lambda *args, **options: jnp.float32(1 - 2**-23))
    rules = Sampling(1.0, 1.0, 0, ())
    logits = np.random.default_rng(0).standard_normal((4000, 700)).astype(np.float32)
    tokens = jax.jit(jax.vmap(lambda row: sampling.sample_token(jax.random.key(0), row, rules)))(logits)
    assert int(tokens.min()) > 690 and int(tokens.max()) < 700


def test_when_every_draw_is_refused_the_most_likely_token_is_taken(monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda *args, **options: jnp.float32(0.999))
    logits = jnp.log(jnp.array([0.1, 0.6, 0.2, 0.1]))
    assert int(sampling.sample_token(jax.random.key(0), logits, Sampling(1.0, 0.5, 0, ()))) == 1


# Decoding

STEPS = 6
START = np.array([0, 5, 9], np.int32)
PROMPTS = np.random.default_rng(4).integers(3, VOCAB, (3, 12)).astype(np.int32) * (np.arange(12) >= START[:, None])


@pytest.fixture(scope="module")
def model():
    """Model, and variables of one candidate."""
    config, base = tiny_model("qwen3")
    return Transformer(config, LORA.scale), {"params": base, "lora": random_adapter(base)}


@functools.cache
def jitted_full(model):
    return jax.jit(functools.partial(model.apply, method="full"))


def full_logits(model, variables, row, new):
    """Logits [len(new), V] after which each of `new` was chosen, by the full forward pass over the row unpadded."""
    tokens = np.concatenate([PROMPTS[row, START[row] :], new])
    padded = np.pad(tokens, (0, 12 + STEPS - len(tokens)))[None]  # on the right, where nothing before looks
    return np.asarray(jitted_full(model)(variables, padded))[0, len(tokens) - len(new) - 1 : len(tokens) - 1]


def test_logits_of_every_step_equal_the_full_forward_pass(model, monkeypatch):
    """Rows padded on the left to different lengths, two samples of each, with an adapter."""
    module, variables = model
    seen = []

    def spy(logits, keys, position, rules):
        seen.append(logits)
        return jnp.argsort(logits, axis=-1)[:, -2].astype(jnp.int32)  # the second best: any rule will do

    monkeypatch.setattr(sampling, "choose", spy)
    keys = jax.random.split(jax.random.key(0), 6)

    @jax.jit
    def first(variables):
        prompts, logits = sampling.prefill(module, variables, PROMPTS, START)
        return sampling.begin(prompts, logits, keys, STEPS, GREEDY), logits

    @jax.jit
    def then(variables, state):
        return sampling.decode_step(Decoder(module, GREEDY), variables, state, keys), seen.pop()

    state, logits = first(variables)
    steps = [np.repeat(logits, 2, axis=0)]
    for number in range(1, STEPS):
        assert int(state.count) == number
        state, logits = then(variables, state)
        steps.append(np.asarray(logits))
    for row in range(6):
        tokens = np.asarray(state.tokens)[row]
        expected = full_logits(module, variables, row // 2, tokens)
        np.testing.assert_allclose([step[row] for step in steps], expected, atol=1e-4)
        log_probs = expected - np.log(np.exp(expected.astype(float)).sum(-1, keepdims=True))
        np.testing.assert_allclose(state.log_probs[row], log_probs[np.arange(STEPS), tokens], atol=1e-4)
    assert int(state.cache.filled) == STEPS - 1


@pytest.mark.parametrize("rules", [GREEDY, Sampling(1.0, 0.9, 0, ())])
def test_candidates_decode_what_the_full_forward_pass_decodes(model, rules):
    """Two candidates with adapters of their own, two samples a prompt: every token is the one that sample_token takes
    from the logits of the full forward pass, with the row's key and the token's position."""
    module, one = model
    adapters = [one["lora"], random_adapter(one["params"], seed=9)]
    keys = jax.random.split(jax.random.key(5), (2, 6))

    @jax.jit
    def run(adapters, keys):
        def start(adapter, keys):
            variables = {"params": one["params"], "lora": adapter}
            return sampling.begin(*sampling.prefill(module, variables, PROMPTS, START), keys, STEPS, rules)

        state = jax.vmap(start, out_axes=DECODING_AXES)(adapters, keys)
        variables = {"params": one["params"], "lora": adapters}
        return sampling.decode(Decoder(module, rules), variables, state, keys, STEPS)

    tokens = np.asarray(run(stack(adapters), keys).tokens)
    assert tokens.shape == (2, 6, STEPS)
    positions = np.arange(STEPS)

    def pick(key, at, logits):
        return sampling.sample_token(jax.random.fold_in(key, at), logits, rules)

    again = jax.jit(jax.vmap(pick, (None, 0, 0)))
    for c, adapter in enumerate(adapters):
        for row in range(6):
            logits = full_logits(module, one | {"lora": adapter}, row // 2, tokens[c, row])
            assert again(keys[c, row], positions, logits).tolist() == tokens[c, row].tolist()
    different = np.mean(tokens[0] != tokens[1]), np.mean(tokens[:, ::2] != tokens[:, 1::2])
    assert different[0] > 0.5 and (different[1] > 0.5) == (rules is not GREEDY)


def test_decoding_ends_when_all_rows_are_done_or_at_the_limit(model):
    module, variables = model
    bare = {"params": variables["params"]}

    @functools.partial(jax.jit, static_argnames="early")
    def run(until, done, early=True):
        def start(keys):
            return sampling.begin(*sampling.prefill(module, bare, PROMPTS, START), keys, STEPS, GREEDY)

        keys = jax.random.split(jax.random.key(0), (1, 3))
        state = jax.vmap(start, out_axes=DECODING_AXES)(keys)
        state = state._replace(done=state.done | done)
        return sampling.decode(Decoder(module, GREEDY, early), bare, state, keys, until)

    whole = run(STEPS, np.zeros((1, 3), bool))
    assert int(whole.count) == STEPS
    assert int(run(4, np.zeros((1, 3), bool)).count) == 4
    idle = run(STEPS, np.ones((1, 3), bool))  # counts on, as devices must agree, and writes nothing
    assert int(idle.count) == STEPS and int(idle.cache.filled) == int(whole.cache.filled)
    assert whole.tokens[..., 1:].any() and not idle.tokens[..., 1:].any()
    unbound = run(STEPS, np.ones((1, 3), bool), early=False)  # as devices that share a model must
    np.testing.assert_array_equal(unbound.tokens, whole.tokens)
    part = run(STEPS, np.array([[True, False, True]]))
    assert int(part.count) == STEPS  # a row that is done does not stop the others
    np.testing.assert_array_equal(part.tokens[0, 1], whole.tokens[0, 1])


def test_stop_tokens_are_any_of_several():
    rules = Sampling(1.0, 1.0, 0, (5, 9))
    assert sampling.is_stop(jnp.array([5, 6, 9, 0]), rules).tolist() == [True, False, True, False]
    assert sampling.is_stop(jnp.array([5, 0]), GREEDY).tolist() == [False, False]
