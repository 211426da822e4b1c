"""What training steps compute again: the least that fits, found in few tries, and the same gradients whatever it is."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from tiny_training import LORA, random_rows, tiny_engine, tiny_model

from seal_jax.engine.calls import KEPT
from seal_jax.engine.memory import GIB
from seal_jax.engine.packing import Candidate, Lanes
from seal_jax.engine.programs import Call
from seal_jax.engine.recipe import Recipe
from seal_jax.engine.remat import fitting, least
from seal_jax.inner.sft import Optimizer
from seal_jax.model.transformer import REMAT

RECIPE = Recipe(LORA, 1, 1, Optimizer())
CANDIDATES = [Candidate(random_rows((250,), c), 1e-2, 2, 0, (c,), (9,)) for c in range(2)]
SIZES = [(lanes, length, 0, 16) for lanes in (1, 2, 4, 8) for length in (32, 64, 128, 256)]


def with_settings(engine, **changes):
    return dataclasses.replace(engine, settings=dataclasses.replace(engine.settings, **changes))


@pytest.mark.parametrize("room", [0, 40, 300, 1000, 10**6])
def test_those_that_fit_are_found_in_few_tries(room):
    asked = []

    def fits(size):
        asked.append(size)
        return size[0] * size[1] + size[1] ** 2 / 64 <= room

    wanted = {size for size in SIZES if fits(size)}
    asked.clear()
    assert fitting(SIZES, fits) == wanted
    assert len(asked) <= 8 and len(set(asked)) == len(asked)
    assert len(wanted) < len(SIZES) or asked == [(8, 256, 0, 16)]


class Pretended:
    """Programs of which one takes so many bytes to a token that it works on."""

    def __init__(self, **each):
        self.each, self.tried = each, []

    def needs(self, call):
        self.tried.append(call)
        kind, (lanes, length, *_) = call.static, call.args
        return self.each[kind] * lanes * length


def pretended_step(calls, size):
    return Call(calls.settings.remat, None, size)


@pytest.fixture(scope="module")
def engine():
    return tiny_engine(tiny_model()[0])


def test_each_size_gets_the_least_that_fits(engine):
    programs, makers = Pretended(none=4, minimal=2, full=1), {
        size: functools.partial(pretended_step, size=size) for size in SIZES
    }  # fmt: skip
    chosen = least(engine.calls, programs, 1024.0, makers)
    assert chosen.keys() == set(SIZES)
    for size, calls in chosen.items():
        tokens = size[0] * size[1]
        assert calls.settings.remat == ("none" if tokens <= 256 else "minimal" if tokens <= 512 else "full")


def test_nothing_is_tried_where_there_is_nothing_to_choose(engine):
    makers, programs = {SIZES[0]: functools.partial(pretended_step, size=SIZES[0])}, Pretended()
    assert least(engine.calls, programs, None, makers) == {SIZES[0]: engine.calls}
    fixed = engine.calls.recomputing("minimal")
    assert least(fixed, programs, 1.0, makers) == {SIZES[0]: fixed}
    assert not programs.tried


def test_what_the_setting_means(engine):
    calls = engine.calls
    assert [calls.model(1.0, tokens).remat for tokens in (0, KEPT, KEPT + 1)] == ["none", "none", "full"]
    for remat in REMAT:
        assert [calls.recomputing(remat).model(1.0, tokens).remat for tokens in (1, 0)] == [remat, "none"]


def test_training_goes_by_the_memory(engine, monkeypatch):
    """By what real programs take: with room for no more, steps keep what projections gave; what is learned is the same
    as when they keep everything, or nothing."""
    base, ran, run = engine.put_base(tiny_model()[1]), [], engine.programs.run
    blank = [engine.calls.recomputing(kind).blank_step(base, RECIPE, Lanes(2, 1), (2, 256)) for kind in REMAT]
    needs = [engine.programs.needs(call) for call in blank]
    assert all(one > 1.05 * other for one, other in itertools.pairwise(needs))
    monkeypatch.setattr(engine.programs, "run", lambda call: ran.append(call) or run(call))
    count, losses = engine.programs.count, []
    for remat in ("none", "auto", "full"):
        limited = with_settings(engine, remat=remat, memory_gib=needs[1] / GIB)
        losses.append(np.stack(limited.finetune(base, CANDIDATES, RECIPE)[1]))
    kinds = [call.static[1] for call in ran if call.static[0] == "step"]
    assert kinds == ["none", "none", "minimal", "minimal", "full", "full"]
    assert engine.programs.count == count + 1  # which draws adapters
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-5)
    assert (losses[0][:, 0] > losses[0][:, 1]).all()
