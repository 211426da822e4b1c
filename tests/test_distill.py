"""Distillation of a passage: loss, gradient and targets against plain computations, alone and among candidates."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from tiny_checkpoint import tiny_tokenizer
from tiny_training import LORA, VOCAB, random_adapter, random_rows, steps_by_hand, tiny_engine, tiny_model

from seal_jax import config as config_lib
from seal_jax.config import Distill, Inner, Training
from seal_jax.engine import packing
from seal_jax.engine.engine import Engine
from seal_jax.engine.packing import Candidate, Lanes, Row
from seal_jax.engine.recipe import Recipe, recipe
from seal_jax.errors import UserError
from seal_jax.inner import distill, sft
from seal_jax.inner.distill import Distillation, Targets
from seal_jax.inner.sft import Batch, Hyper, Optimizer, Program
from seal_jax.model.lora import init_adapter
from seal_jax.model.transformer import Transformer

HOW = Distillation(top_k=5, temperature=1.7, sft_weight=0.0)
MIXED = replace(HOW, sft_weight=0.3)


@pytest.fixture(scope="module")
def model():
    """Configuration and base."""
    return tiny_model("qwen2")


@pytest.fixture(scope="module")
def engine(model):
    return tiny_engine(model[0], decode_rows=4)


@functools.cache
def jitted_full(config):
    return jax.jit(functools.partial(Transformer(config, LORA.scale).apply, method="full"))


def plain_logits(model, tokens, adapter=None):
    """Logits [T, V] of one row in float64, padded on the right to a common length."""
    variables = {"params": model[1]} if adapter is None else {"params": model[1], "lora": adapter}
    padded = np.pad(np.array(tokens, np.int32), (0, 48 - len(tokens)))[None]
    return np.asarray(jitted_full(model[0])(variables, padded), np.float64)[0, : len(tokens)]


def softmax(logits):
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def expected_targets(model, row, how):
    """(ids, p) of each token of a row's text, by the teacher's whole softmax cut to its K greatest."""
    begin = next(i for i, weight in enumerate(row.weights) if weight)
    text = row.tokens[begin:]
    probs = softmax(plain_logits(model, row.teacher + text)[len(row.teacher) - 1 : -1] / how.temperature)
    ids = np.argsort(-probs, axis=-1)[:, : how.top_k]
    kept = np.take_along_axis(probs, ids, -1)
    return ids, kept / kept.sum(-1, keepdims=True)


def with_teachers(rows, seed=40):
    """Rows that have a teacher each; it has read from 9 to 21 tokens."""
    read = random_rows([9 + 5 * (i % 3) for i in range(len(rows))], seed)
    return tuple(replace(row, teacher=before.tokens) for row, before in zip(rows, read, strict=True))


def taught(model, rows, how=HOW):
    """The rows with the targets computed here; those without a teacher as they are."""
    return tuple(replace(r, targets=expected_targets(model, r, how)) if r.teacher else r for r in rows)


def batch_of(rows, length):
    """One micro-batch of rows with their targets, put together here."""
    tokens, weights = np.zeros((1, len(rows), length), np.int32), np.zeros((1, len(rows), length), np.float32)
    ids, probs = (np.zeros((*tokens.shape, HOW.top_k), kind) for kind in (np.int32, np.float32))
    for place, row in enumerate(rows):
        end = len(row.tokens)
        tokens[0, place, :end], weights[0, place, :end] = row.tokens, row.weights
        if row.targets is not None:
            begin = end - len(row.targets[0])
            ids[0, place, begin:end], probs[0, place, begin:end] = row.targets
    return Batch(tokens, weights, np.array(True), Targets(ids, probs))


def close(left, right, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), left, right)


# ---------------------------------------------------------------- the teacher


def test_targets_are_the_softmax_of_what_the_teacher_reads(model, engine):
    """Of six rows in two batches, two of them the same and one without a teacher."""
    rows = with_teachers(random_rows((12, 16, 7, 20, 5), 1, prompt=3)) + random_rows((8,), 2)
    found = engine.with_targets(model[1], [*rows, rows[1]], HOW)
    assert found.keys() == set(rows[:5])
    for row in rows[:5]:
        ids, probs = expected_targets(model, row, HOW)
        got = found[row]
        assert (got.tokens, got.weights, got.targets[0].dtype, got.targets[1].dtype) == (
            row.tokens, row.weights, np.int32, np.float32,
        )  # fmt: skip
        assert got.targets[0].shape == (len(row.tokens) - 3, 5)
        np.testing.assert_array_equal(got.targets[0], ids)
        np.testing.assert_allclose(got.targets[1], probs, atol=1e-6)
    bare = [replace(row, teacher=row.teacher[:1]) for row in rows[:5]]
    without = engine.with_targets(model[1], bare, HOW)
    for row, short in zip(rows, bare, strict=False):
        assert np.abs(without[short].targets[1] - found[row].targets[1]).max() > 1e-3


def test_targets_lie_at_the_tokens_of_the_text(model):
    """Two candidates on two devices, micro-batches, a row without a teacher, and a step without any."""
    rows = taught(model, with_teachers(random_rows((12, 9, 7), 3, prompt=4)))
    slotted = [[rows[0], rows[1]], [*random_rows((10,), 4), rows[2]]]
    lanes = Lanes(4, 2)
    step = [(0, 1), (0, 1)]
    chosen, tokens, weights, _ = packing.fill_step(slotted, step, (2, 1), lanes)
    ids, probs = packing.fill_targets(slotted, step, tokens.shape, lanes)
    assert ids.shape == probs.shape == (*tokens.shape, 5) and len(chosen) == 2
    for lane, place, row in ((0, 0, rows[0]), (0, 1, rows[1]), (1, 1, rows[2])):
        end = len(row.tokens)
        np.testing.assert_array_equal(ids[lane, place, 0, 4:end], row.targets[0])
        np.testing.assert_allclose(probs[lane, place, 0, 4:end].sum(-1), 1, atol=1e-6)
        assert (probs[lane, place, 0].sum(-1) > 0).tolist() == (weights[lane, place, 0] > 0).tolist()
    assert not probs[1, 0].any()
    assert packing.targets_width(slotted, step) == 5
    assert packing.targets_width(slotted, [(), (0,)]) == 0
    assert packing.fill_targets(slotted, [(), (0,)], (2, 2, 1, 16), lanes) is None


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("how", [HOW, MIXED])
def test_the_loss_is_the_divergence_from_the_renormalised_teacher(how):
    """By the definition, in float64; a token without a teacher has the plain loss."""
    rng = np.random.default_rng(0)
    logits, tokens = 3 * rng.standard_normal((2, 6, VOCAB)), rng.integers(0, VOCAB, (2, 6))
    ids = np.argsort(rng.random((2, 6, VOCAB)))[..., :5]
    probs = rng.dirichlet([0.5] * 5, (2, 6))
    probs[1, 4:] = 0
    targets = Targets(ids.astype(np.int32), probs.astype(np.float32))
    got = distill.token_loss(how, jnp.asarray(logits, jnp.float32), jnp.asarray(tokens), targets)
    for place in np.ndindex(2, 6):
        loss = -np.log(softmax(logits[place])[tokens[place]])
        if place not in ((1, 4), (1, 5)):
            q = softmax(logits[place] / how.temperature)[ids[place]]
            kl = sum(a * np.log(a / b) for a, b in zip(probs[place], q, strict=True))
            assert kl > 0
            loss = (1 - how.sft_weight) * how.temperature**2 * kl + how.sft_weight * loss
        np.testing.assert_allclose(got[place], loss, rtol=1e-5)
    alone = distill.token_loss(replace(how, sft_weight=1.0), jnp.asarray(logits), jnp.asarray(tokens), targets)
    np.testing.assert_allclose(alone, -np.log(np.take_along_axis(softmax(logits), tokens[..., None], -1))[..., 0], 1e-5)


def test_a_certain_teacher_at_temperature_1_is_sft():
    """One token has all of the teacher's probability, 0 stands for the others: nothing is not a number."""
    logits, tokens = jax.random.normal(jax.random.key(0), (4, VOCAB)), np.arange(4)
    targets = Targets(np.stack([tokens, tokens + 9], -1), np.array([[1.0, 0.0]] * 4, np.float32))

    def total(logits, sft_weight):
        return distill.token_loss(Distillation(2, 1.0, sft_weight), logits, tokens, targets).sum()

    for function in (total, jax.grad(total)):
        np.testing.assert_allclose(function(logits, 0.0), function(logits, 1.0), atol=1e-5)


def test_the_gradient_of_a_step_is_that_of_the_whole_logits(model):
    """Rows of other lengths, weights of their own, and a row without a teacher."""
    adapter, student, how = random_adapter(model[1]), Transformer(model[0], LORA.scale), MIXED
    rows = taught(model, with_teachers(random_rows((14, 9), 5, prompt=4))) + random_rows((11,), 6, prompt=2)
    rows = (replace(rows[0], weights=rows[0].weights[:-2] + (0.5, 0.0)), *rows[1:])
    data = jax.tree.map(lambda part: part[0], batch_of(rows, 16)._replace(valid=np.array([True])))
    has = (data.targets.probs.sum(-1) > 0)[:, 1:]

    def whole(adapter):
        logits = student.apply({"params": model[1], "lora": adapter}, data.tokens, method="full")[:, :-1]
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), data.tokens[:, 1:, None], -1)[..., 0]
        p, ids = data.targets.probs[:, 1:], data.targets.ids[:, 1:]
        log_q = jnp.take_along_axis(jax.nn.log_softmax(logits / how.temperature), ids, -1)
        kl = how.temperature**2 * (p * (np.log(np.where(p > 0, p, 1)) - log_q)).sum(-1)
        mixed = (1 - how.sft_weight) * kl + how.sft_weight * nll
        return (jnp.where(has, mixed, nll) * data.weights[:, 1:]).sum()

    def chunked(adapter):
        variables = {"params": model[1], "lora": adapter}
        return distill.weighted_loss(student, variables, (data.tokens, data.weights, data.targets), (how, 5))

    (value, plain), (got_value, got) = (jax.jit(jax.value_and_grad(f))(adapter) for f in (whole, chunked))
    np.testing.assert_allclose(got_value, value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, atol=1e-5 * np.abs(a).max()), plain, got)


# ---------------------------------------------------------------- candidates


@pytest.mark.parametrize("batch", [(1, 1), (2, 2)])
def test_together_equals_one_at_a_time(model, engine, batch, monkeypatch):
    """By the plain loop of inner/sft.py and targets computed here: rows with and without a teacher, of other lengths in
    each candidate, and a candidate that has none."""
    monkeypatch.setattr(sft, "sft_step", jax.jit(sft.sft_step, static_argnums=0))
    how = Recipe(LORA, *batch, Optimizer("cosine"), MIXED)
    rows = [
        with_teachers(random_rows((12, 9, 5), 1, prompt=3)) + random_rows((15,), 2),
        with_teachers(random_rows((14, 11, 10, 9), 3, prompt=6), 50),
        random_rows((10, 6, 5, 4), 4),
    ]
    some = [Candidate(part, 1e-2, 2, 0, (7, c), (1,)) for c, part in enumerate(rows)]
    targets = engine.with_targets(model[1], [row for part in rows for row in part], MIXED)
    chunk = [replace(one, rows=tuple(targets.get(row, row) for row in one.rows)) for one in some]
    trained, losses = engine.finetune(model[1], chunk, how)
    program = Program(Transformer(model[0], LORA.scale), how.optimizer, 8, MIXED)
    for index, one in enumerate(some):
        one = replace(one, rows=taught(model, one.rows, MIXED))
        key = jax.random.key(0)
        for number in one.seed:
            key = jax.random.fold_in(key, number)
        steps = [part + [Row((), ())] * (how.batch - len(part)) for part in steps_by_hand(one, how.batch)]
        batches = jax.tree.map(lambda *parts: np.stack(parts), *(batch_of(part, 16) for part in steps))
        hyper = Hyper(jnp.float32(1e-2), jnp.int32(len(steps)), jnp.int32(0))
        adapter = {"lora": init_adapter(key, model[1], LORA)}
        plain, plain_losses = sft.finetune(program, {"params": model[1]}, adapter, batches, hyper)
        close(plain["lora"], jax.tree.map(lambda leaf, index=index: leaf[index], trained), 2e-5)
        np.testing.assert_allclose(losses[index], plain_losses, rtol=1e-4)


def test_the_recipe_of_a_config_group():
    chosen = Inner(objective="distill", distill=Distill(7, 3.0, 0.25))
    assert recipe(chosen).distillation == Distillation(7, 3.0, 0.25)
    assert recipe(Inner()).distillation is None and recipe(Training()).distillation is None
    assert replace(recipe(chosen), distillation=None) == recipe(Training())


# ---------------------------------------------------------------- a run


def test_a_run_that_distills(fast, home, tmp_path, monkeypatch):
    """The lines of a self-edit are taught by a model that has read the passage, and the passage itself as by SFT."""
    read, with_targets = [], Engine.with_targets

    def recording(engine, base, rows, how):
        found = with_targets(engine, base, rows, how)
        read.extend((how, tuple(row.teacher)) for row in found)
        return found

    monkeypatch.setattr(Engine, "with_targets", recording)
    trials = {}
    for objective in ("sft", "distill"):
        values = tiny_run.tiny_values(home, outer={"rounds": 0})
        values["inner"] |= {"objective": objective, "distill": {"top_k": 6}} if objective == "distill" else {}
        tiny_run.run(values, tmp_path / objective)
        trials[objective] = tiny_run.by_key(tiny_run.records(tmp_path / objective))["trials"]
        assert bool(read) == (objective == "distill")
    lines = 0
    for sft_trial, distilled in zip(trials["sft"], trials["distill"], strict=True):
        alone = sft_trial["sequences"] <= 1  # the passage
        assert sft_trial["sequences"] == distilled["sequences"] and sft_trial["failure"] is distilled["failure"] is None
        assert (sft_trial["loss"] == distilled["loss"]) == alone
        lines += sft_trial["sequences"] - 1 if not alone else 0
    assert len(read) == lines > 0
    passages = {f"Arlo\nThe ferry to Cu{i}.\n\n" for i in range(2)}
    assert {tiny_tokenizer().decode(list(ids)) for _, ids in read} == passages
    assert {how for how, _ in read} == {Distillation(6, 2.0, 0.0)}


def test_arc_has_no_teacher_and_sft_no_targets():
    arc = config_lib.defaults("arc") | {"inner": config_lib.defaults("arc")["inner"] | {"objective": "distill"}}
    with pytest.raises(UserError, match="config.inner.objective: is set, but the domain 'arc' does not read it"):
        config_lib.from_dict(arc)
    with pytest.raises(UserError, match="config.inner.distill: is set, but config.inner.objective is 'sft'"):
        config_lib.from_dict({"inner": {"distill": {"top_k": 3}}})
    config = config_lib.from_dict({"inner": {"objective": "distill", "distill": {"top_k": 3}}})
    assert config.inner == Inner(objective="distill", distill=Distill(top_k=3))
