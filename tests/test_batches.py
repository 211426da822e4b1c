"""Queries of unlike length go in several batches, and each gets what it gets in one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import LORA, VOCAB, random_adapter, random_rows, stack, tiny_engine, tiny_model

from seal_jax.engine import generation
from seal_jax.engine.batches import by_length
from seal_jax.engine.generation import Generation
from seal_jax.engine.packing import Lanes
from seal_jax.engine.weights import Weights
from seal_jax.inner.sampling import Sampling

CONFIG, BASE = tiny_model("qwen2")
GREEDY = Sampling(0.0, 1.0, 0, ())


def batches_of(engine, weights, lengths, extra):
    """(what by_length gives, the places of each batch, the adapters' numbers in each)."""
    seen, numbers = [], []

    def run(weights, places):
        seen.append(places)
        if weights.adapters is not None:
            held = np.asarray(weights.adapters["number"])
            lanes = Lanes(len(held), 1)
            numbers.append([int(held[lanes.of(place)]) for place in range(len(places))])
        return [[(c, q, lengths[c][q]) for c, q in lane] for lane in places]

    return by_length(engine.calls, engine.programs, weights, lengths, extra, run), seen, numbers


@pytest.fixture(scope="module")
def engine():
    return tiny_engine(CONFIG, segment=3)


@settings(deadline=None)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=20), st.integers(0, 5000))
def test_each_query_is_in_one_batch_and_answers_stand_in_order(lengths, extra):
    engine = tiny_engine(CONFIG)
    out, seen, _ = batches_of(engine, Weights({}), [lengths], extra)
    assert out == [[(0, q, length) for q, length in enumerate(lengths)]]
    assert sorted(place for [lane] in seen for place in lane) == [(0, q) for q in range(len(lengths))]
    assert len(seen) <= engine.settings.length_groups
    ranges = [(min(lengths[q] for _, q in lane), max(lengths[q] for _, q in lane)) for [lane] in seen]
    assert all(low >= high for (low, _), (_, high) in zip(ranges, ranges[1:], strict=False))


def test_a_batch_must_save_more_than_it_costs(engine):
    lengths = [100] * 6 + [1000, 1000]
    saved = 6 * (1024 - 112)
    for extra, sizes in ((saved - 1, [2, 6]), (saved, [8])):
        _, seen, _ = batches_of(engine, Weights({}), [lengths], extra)
        assert [len(lane) for [lane] in seen] == sizes
    _, seen, _ = batches_of(tiny_engine(CONFIG, length_groups=1), Weights({}), [lengths], 0)
    assert len(seen) == 1


def test_candidates_bring_their_adapters(engine):
    """Four candidates in four lanes, one of them without a query."""
    weights = Weights({}, {"number": np.arange(4)}, LORA)
    lengths = [[100, 90], [], [1000], [80]]
    out, seen, numbers = batches_of(engine, weights, lengths, 200)
    assert out == [[(c, q, length) for q, length in enumerate(lane)] for c, lane in enumerate(lengths)]
    assert seen == [[[(2, 0)]], [[(0, 0), (0, 1)], [(3, 0)]]]
    assert numbers == [[2], [0, 3]]


@pytest.mark.parametrize("adapted", [False, True])
def test_what_is_said_and_scored_is_the_same_in_batches(engine, adapted, monkeypatch):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, VOCAB, length).tolist() for length in (5, 70, 9)]
    rows = random_rows((12, 70, 9), 3, prompt=4)
    weights = Weights(BASE)
    if adapted:
        weights = Weights(BASE, stack([random_adapter(BASE, LORA, seed, 0.3) for seed in range(3)]), LORA)
    split = (lambda values: [[value] for value in values]) if adapted else (lambda values: [list(values)])
    seeds = split([[(1, number)] for number in range(3)])
    how, found, calls = Generation(GREEDY, 6), [], []
    together, scored = generation._together, generation._score
    monkeypatch.setattr(generation, "_together", lambda *args: calls.append(args) or together(*args))
    monkeypatch.setattr(generation, "_score", lambda *args: calls.append(args) or scored(*args))
    for extra in (10**6, 1):
        monkeypatch.setattr(generation, "STEP", extra)
        monkeypatch.setattr(generation, "SCORING", extra)
        out = engine.generate(weights, split(prompts), seeds, how)
        found.append(([[s.tokens for [s] in lane] for lane in out], engine.log_likelihood(weights, split(rows))))
    assert len(calls) == 2 + 4
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(sum(found[0][1], []), sum(found[1][1], []), rtol=1e-5)
