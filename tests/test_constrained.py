"""Decoding under a grammar: the logits are those of the model, masked by the table at the row's own state."""

import functools
import itertools
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_checkpoint import tiny_tokenizer
from tiny_training import LORA, random_adapter, stack, tiny_engine, tiny_model

from seal_jax.domains.arc.grammar import compile_expression, self_edit_automaton, token_bytes, token_table
from seal_jax.engine import generation, room
from seal_jax.engine.generation import Generation
from seal_jax.engine.weights import Weights
from seal_jax.errors import UserError
from seal_jax.inner.sampling import Sampling, sample_token
from seal_jax.model.transformer import Transformer

VOCAB = 400
STOPS = (2,)
RANDOM = Sampling(1.0, 0.95, 0, STOPS)
GREEDY = Sampling(0.0, 1.0, 0, STOPS)
PROMPTS = [list(range(5, 17)), list(range(40, 47))]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def base():
    return tiny_model("qwen2", vocab=VOCAB)[1]


@pytest.fixture(scope="module")
def engine():
    return tiny_engine(tiny_model("qwen2", vocab=VOCAB)[0], segment=50)


@pytest.fixture(scope="module")
def self_edits(tokenizer):
    return token_table(self_edit_automaton(), token_bytes(tokenizer, VOCAB), STOPS)


def seeds(samples: int, lanes: int = 1):
    return [[[(lane, q, k) for k in range(samples)] for q in range(len(PROMPTS))] for lane in range(lanes)]


def generate(engine, base, grammar, max_new, samples=1, rules=RANDOM):
    generation = Generation(rules, max_new, grammar=grammar)
    out = engine.generate(Weights(base), [PROMPTS], seeds(samples), generation)[0]
    assert all(sample.stop in STOPS for samples in out for sample in samples)
    return [[sample.tokens for sample in samples] for samples in out]


def test_fifty_samples_are_valid_within_the_limit(engine, base, tokenizer, self_edits):
    """The model knows nothing of JSON, and would take some twenty tokens more."""
    limit = int(self_edits.distance[self_edits.start]) + 20
    out = [tokens for samples in generate(engine, base, self_edits, limit, 25) for tokens in samples]
    assert len(out) == 50 and max(map(len, out)) < limit
    texts = [tokenizer.decode(tokens) for tokens in out]
    for text in texts:
        value = json.loads(text)
        assert list(value) == ["data_generation", "training"]
        assert 0 < value["training"]["learning_rate"] <= 1 <= value["training"]["num_train_epochs"] <= 99
    assert len(set(texts)) > 40


def test_rows_that_go_on_stand_where_they_stood_in_the_grammar(engine, base, tokenizer, monkeypatch):
    """Most of the texts are a letter long and leave the batch, the others go on."""
    words = [*"abcdefghi", *((letter, *[list("0123456789")] * 80) for letter in "uvw")]
    grammar = token_table(compile_expression(words), token_bytes(tokenizer, VOCAB), STOPS)
    found, left, engine = [], [], replace(engine, settings=replace(engine.settings, segment=5))
    leave = generation._leave
    monkeypatch.setattr(generation, "_leave", lambda *args: left.append(args) or leave(*args))
    for cost in (10**9, 0):
        monkeypatch.setattr(room, "PROGRAM", cost)
        monkeypatch.setattr(room, "first_slots", lambda rows, limit, cost=cost: 112 if cost else 28)
        found.append(generate(engine, base, grammar, 100, 8))
        assert bool(left) == (cost == 0)
    assert found[0] == found[1]
    lengths = [len(tokens) for samples in found[0] for tokens in samples]
    assert 1 <= sum(length > 28 for length in lengths) < len(lengths)


def test_too_few_tokens_are_refused(engine, base, self_edits):
    with pytest.raises(UserError, match="max_new_tokens is 128"):
        generate(engine, base, self_edits, 128)


@pytest.mark.parametrize("rules", [GREEDY, Sampling(1.3, 0.9, 0, STOPS)])
def test_tokens_are_those_of_the_masked_full_forward_pass(engine, base, self_edits, rules):
    """Two candidates with adapters; their rows stand in different states, and the limit binds."""
    adapters = [random_adapter(base, LORA, seed, 0.3) for seed in range(2)]
    limit = int(self_edits.distance[self_edits.start]) + 5
    asked = seeds(2, lanes=2)
    generation = Generation(rules, limit, grammar=self_edits)
    out = engine.generate(Weights(base, stack(adapters), LORA), [PROMPTS] * 2, asked, generation)
    full = jax.jit(lambda adapter, row: Transformer(engine.config, LORA.scale).apply(
        {"params": base, "lora": adapter}, row, method="full"))  # fmt: skip
    pick = jax.jit(jax.vmap(lambda key, at, row: sample_token(jax.random.fold_in(key, at), row, rules), (None, 0, 0)))
    for c, q, k in itertools.product(range(2), range(2), range(2)):
        sample = out[c][q][k]
        tokens = [*sample.tokens, sample.stop]
        row = np.zeros((1, 512), np.int32)
        row[0, : len(PROMPTS[q]) + len(tokens)] = PROMPTS[q] + tokens
        logits = np.array(full(adapters[c], row))[0, len(PROMPTS[q]) - 1 :][: len(tokens)]
        free = logits.astype(float) - np.log(np.exp(logits.astype(float)).sum(-1, keepdims=True))
        np.testing.assert_allclose(sample.log_probs, free[np.arange(len(tokens)), tokens], atol=1e-3)  # no grammar
        state = self_edits.start
        for position, token in enumerate(tokens):
            target = self_edits.next_state[state]
            refused = (target < 0) | (self_edits.distance[target] > limit - position - 1)
            logits[position, refused] = -np.inf
            state = target[token]
        assert state == len(self_edits.next_state) - 1
        key = functools.reduce(jax.random.fold_in, asked[c][q][k], jax.random.key(0))
        spare = limit - len(tokens)
        again = pick(key, np.arange(limit), np.pad(logits, ((0, spare), (0, 0))))[: len(tokens)]
        assert again.tolist() == tokens
    assert out[0] != out[1]


def test_the_table_is_an_argument(engine, base, tokenizer):
    """Another table of the same shape needs no other program."""
    tables = [token_table(compile_expression(text), token_bytes(tokenizer, VOCAB), STOPS) for text in ("yes", "no!")]
    first = generate(engine, base, tables[0], 4)
    compiled = engine.programs.count
    second = generate(engine, base, tables[1], 4)
    assert [[tokenizer.decode(row[0]) for row in out] for out in (first, second)] == [["yes"] * 2, ["no!"] * 2]
    assert engine.programs.count == compiled
