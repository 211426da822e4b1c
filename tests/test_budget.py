"""Candidates train together as many as fit a budget, by what the compiled steps say they take."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from tiny_training import LORA, random_rows, tiny_engine, tiny_model

from seal_jax.config import Config, Outer
from seal_jax.engine import packing
from seal_jax.engine.budget import chunk_limit, most, other_bases, step_peak
from seal_jax.engine.memory import GIB, on_device
from seal_jax.engine.packing import Candidate
from seal_jax.engine.programs import Programs
from seal_jax.engine.recipe import Recipe
from seal_jax.errors import UserError
from seal_jax.inner.sft import Optimizer

RECIPE = Recipe(LORA, 1, 1, Optimizer())
CANDIDATES = [Candidate(random_rows((60, 20), c), 1e-2, 1, 0, (c,), (9,)) for c in range(5)]
NOBODY = [dataclasses.replace(CANDIDATES[0], rows=())] * 5


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def engine(model):
    """It keeps what it found of each step, so that the tests compile each once."""
    return tiny_engine(model[0], candidates=0, memory_gib=1.0, remat="none")


def within(engine, size):
    """The same engine, what it compiled and found included, with so many bytes."""
    settings = dataclasses.replace(engine.settings, memory_gib=size / GIB)
    return dataclasses.replace(engine, settings=settings)


def takes(engine, base, lanes):
    """Bytes of the longest step."""
    return step_peak(engine, base, RECIPE, lanes, 64)


def test_less_memory_holds_fewer_candidates(engine, model, capsys):
    base = engine.put_base(model[1])
    assert chunk_limit(engine, base, CANDIDATES, RECIPE) == 5  # no more lanes than there are candidates
    assert "5 candidates train together: with sequences of up to 64 tokens they take" in capsys.readouterr().out
    assert on_device(base) < takes(engine, base, 1) < takes(engine, base, 2) < takes(engine, base, 5) < GIB
    for lanes in (1, 2, 4):
        assert chunk_limit(within(engine, takes(engine, base, lanes) + 1), base, CANDIDATES, RECIPE) == lanes
        assert capsys.readouterr().out.count("\n") <= 1
    assert chunk_limit(within(engine, takes(engine, base, 4) - 1), base, CANDIDATES, RECIPE) == 3
    compiled = engine.programs.count
    chunk_limit(engine, base, CANDIDATES, RECIPE)
    assert engine.programs.count == compiled and not capsys.readouterr().out


def test_the_step_that_was_measured_is_the_one_that_runs(engine, model):
    base = engine.put_base(model[1])
    alike = [dataclasses.replace(candidate, rows=candidate.rows[:1]) for candidate in CANDIDATES]
    chunk_limit(engine, base, alike, RECIPE)
    engine.init_adapters(base, engine.layout.put_candidates(np.zeros((5, 1), np.uint32)), RECIPE)
    compiled = engine.programs.count
    engine.finetune(base, alike, RECIPE)
    assert engine.programs.count == compiled


def test_one_that_does_not_fit_is_refused_with_a_remedy(engine, model):
    base = engine.put_base(model[1])
    for size in (takes(engine, base, 1) - 1, on_device(base) / 2):
        with pytest.raises(UserError, match=r"to train one on 64 tokens takes .* raise config.engine.memory_gib"):
            chunk_limit(within(engine, size), base, CANDIDATES, RECIPE)
    beside = dataclasses.replace(within(engine, takes(engine, base, 1)), other_bases=1)
    with pytest.raises(UserError, match="as many as fit"):
        chunk_limit(beside, base, CANDIDATES, RECIPE)


def test_a_number_in_the_config_is_taken_as_it_is(engine, model):
    fixed = dataclasses.replace(engine, settings=dataclasses.replace(engine.settings, candidates=7, memory_gib=1e-9))
    assert chunk_limit(fixed, model[1], CANDIDATES, RECIPE) == 7


def test_where_nothing_is_trained_nothing_is_compiled(engine, model):
    compiled = engine.programs.count
    assert chunk_limit(engine, engine.put_base(model[1]), NOBODY, RECIPE) == 1
    assert engine.programs.count == compiled


def test_the_devices_own_limit(engine, model, monkeypatch):
    base, settings = engine.put_base(model[1]), dataclasses.replace(engine.settings, memory_gib=0.0)
    open_ended = dataclasses.replace(engine, settings=settings)
    assert open_ended.step_budget(base) is None
    with pytest.raises(UserError, match="set config.engine.memory_gib, or config.engine.candidates to a number"):
        chunk_limit(open_ended, base, CANDIDATES, RECIPE)
    weights = on_device(base)

    class Device:
        def memory_stats(self):
            return {"bytes_limit": 100 * GIB, "bytes_in_use": weights + 7 * GIB}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert open_ended.step_budget(base) == pytest.approx(83 * GIB)


def test_a_compilers_refusal_is_a_step_that_does_not_fit(engine, model, monkeypatch):
    def refuse(call):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory" if call else "")

    fresh = dataclasses.replace(engine, programs=Programs())
    monkeypatch.setattr(fresh.programs, "compiled", refuse)
    with pytest.raises(UserError, match="takes inf GiB"):
        chunk_limit(fresh, engine.put_base(model[1]), CANDIDATES, RECIPE)


def test_chunks_of_another_size_change_rounding_at_most(engine, model):
    """What was chosen by the memory does not show in the results."""
    base, losses = engine.put_base(model[1]), []
    for limit in (5, 2):
        found = {}
        for chunk in packing.plan_chunks(CANDIDATES, 1, limit):
            _, of_chunk = engine.finetune(base, [CANDIDATES[i] for i in chunk], RECIPE)
            found.update(zip(chunk, of_chunk, strict=True))
        losses.append([float(value) for c in range(5) for value in found[c]])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert len(set(losses[0])) == 10


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 8, 13, 24, 100])
def test_the_most_candidates_are_found(limit):
    """Few looks are taken where memory grows linearly, and the answer is right where it does not."""
    sizes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96]
    best, asked = max(size for size in sizes if size <= limit), set()
    assert most(lambda lanes: asked.add(lanes) or 10 + 3 * lanes, 10 + 3 * limit) == best
    assert len(asked) <= 4
    for power in (0.5, 2):
        assert most(lambda lanes, power=power: lanes**power, limit**power) == best
    assert most(lambda lanes: lanes if lanes < 4 else math.inf, limit) == min(best, 3)
    if limit:
        assert most(lambda lanes: 1.0, 2.0, limit) == packing.count_bucket(limit)
    asked.clear()  # few lanes may need more than some, as when more chunks of them are asked together
    assert most(lambda lanes: asked.add(lanes) or max(lanes, 3), max(limit, 3)) == max(best, 3)
    assert len(asked) <= 6


@pytest.mark.parametrize(("rounds", "control", "count"), [(0, True, 0), (1, False, 1), (3, False, 1), (2, True, 2)])
def test_weights_beside_those_in_use(rounds, control, count):
    assert other_bases(Config(outer=Outer(rounds=rounds, random_control=control))) == count
