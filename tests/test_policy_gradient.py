"""Policy gradients: advantages, clipping and KL by hand, a step and a training against plain computations, a whole
run."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_run
from tiny_run import pick
from tiny_training import random_adapter, random_rows, tiny_engine, tiny_model

from seal_jax import config
from seal_jax.engine.packing import Candidate
from seal_jax.engine.recipe import Recipe
from seal_jax.engine.sampled import Objective, Sampled
from seal_jax.engine.weights import Weights
from seal_jax.errors import UserError
from seal_jax.inner import policy_gradient, sft
from seal_jax.inner.sft import Hyper, Optimizer
from seal_jax.model.lora import LoraConfig, init_adapter
from seal_jax.model.transformer import Transformer
from seal_jax.outer.policy_gradient import leave_one_out, standardised
from seal_jax.report import cells, html, scalars, terminal
from seal_jax.report.recorded import load
from seal_jax.runs.records import read

LORA = LoraConfig(3, 7.5, ("q_proj", "up_proj"))
HOW = Optimizer("linear", clip_norm=5.0, eps=1e-2, weight_decay=0.1)
HYPER = Hyper(np.float32(0.05), np.int32(5), np.int32(0))
ROWS = random_rows((14, 9, 11), 1, prompt=3)
ADVANTAGES = (1.5, -0.5, 0.7)
NOISE = 0.4  # of the recorded log-probabilities, so that some ratios are clipped and some are not


@pytest.fixture(scope="module")
def model():
    """Configuration, base, and an engine that compiles each program once."""
    shape, base = tiny_model("qwen2")
    return shape, base, tiny_engine(shape)


def token_log_probs(shape, variables, row):
    """Of the weighted tokens of one row, from the full logits."""
    tokens = jnp.array([row.tokens])
    logits = Transformer(shape, LORA.scale).apply(variables, tokens, method="full")
    found = jnp.take_along_axis(jax.nn.log_softmax(logits)[0, :-1], tokens[0, 1:, None], -1)[:, 0]
    return found[np.flatnonzero(row.weights) - 1]


def recorded(shape, base, seed):
    rng = np.random.default_rng(seed)
    exact = [np.asarray(token_log_probs(shape, {"params": base}, row)) for row in ROWS]
    return tuple((one + NOISE * rng.standard_normal(one.shape)).astype(np.float32) for one in exact)


def plain_loss(shape, variables, behaviour, reference, how):
    """Minus the objective, text by text and token by token."""
    texts, tokens = [], sum(len(one) for one in behaviour)
    for row, old, first, gain in zip(ROWS, behaviour, reference, ADVANTAGES, strict=True):
        new = token_log_probs(shape, variables, row)
        ratio = jnp.exp(new - old)
        clipped = jnp.maximum(jnp.minimum(ratio, 1 + how.clip), 1 - how.clip) if how.clip else ratio
        each = jnp.minimum(ratio * gain, clipped * gain)
        each = each - how.kl * (jnp.exp(first - new) - (first - new) - 1)
        texts.append(each)
    if how.normaliser == "tokens":
        return -sum(each.sum() for each in texts) / tokens
    if how.normaliser == "texts":
        return -sum(each.mean() for each in texts) / len(texts)
    return -sum(each.sum() for each in texts) / (how.longest * len(texts))


def test_advantages():
    assert leave_one_out([1.0, 0.0, 0.5]) == pytest.approx([0.75, -0.75, 0.0])
    assert standardised([1.0, 0.0, 0.5]) == pytest.approx([math.sqrt(1.5), -math.sqrt(1.5), 0.0])
    for rule in (leave_one_out, standardised):
        assert rule([0.3]) == [0.0] and rule([0.2] * 4) == [0.0] * 4 and rule([]) == []
        assert sum(rule([0.1, 0.7, 0.7, 0.2])) == pytest.approx(0)


def test_clipping_bounds_gains_and_not_losses():
    ratio = jnp.array([0.5, 1.0, 1.5])
    assert policy_gradient.surrogate(ratio, 2.0, 0.2).tolist() == pytest.approx([1.0, 2.0, 2.4])
    assert policy_gradient.surrogate(ratio, -2.0, 0.2).tolist() == pytest.approx([-1.6, -2.0, -3.0])
    assert policy_gradient.surrogate(ratio, 2.0, 0.0).tolist() == pytest.approx([1.0, 2.0, 3.0])


def test_the_estimate_of_kl_is_unbiased_and_never_negative():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    each = np.asarray(policy_gradient.kl_estimate(jnp.log(p), jnp.log(q)))
    assert (each >= -1e-6).all()
    assert (p * each).sum() == pytest.approx((p * np.log(p / q)).sum(), rel=1e-4)


@pytest.mark.parametrize(("clip", "kl"), [(0.2, 0.3), (0.2, 0.0), (0.0, 0.0)], ids=["ppo, KL", "grpo", "reinforce"])
def test_gradients_with_respect_to_the_logits_are_those_of_torch(clip, kl):
    torch = pytest.importorskip("torch", reason="the reference runs on torch")
    rng = np.random.default_rng(3)
    logits, ids = rng.normal(0, 1, (12, 7)).astype(np.float32), rng.integers(0, 7, 12)
    gains = rng.normal(0, 1, 12).astype(np.float32)
    exact = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))[np.arange(12), ids]
    old, first = (exact + rng.normal(0, 0.4, 12).astype(np.float32) for _ in range(2))

    def objective(logits):
        new = jax.nn.log_softmax(logits)[np.arange(12), ids]
        gained = policy_gradient.surrogate(jnp.exp(new - old), gains, clip)
        return (gained - kl * policy_gradient.kl_estimate(new, first)).mean()

    theirs = torch.tensor(logits, requires_grad=True)
    new = torch.log_softmax(theirs, -1)[torch.arange(12), torch.tensor(ids)]
    ratio, gain = torch.exp(new - torch.tensor(old)), torch.tensor(gains)
    each = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain) if clip else ratio * gain
    away = torch.tensor(first) - new
    (each - kl * (away.exp() - away - 1)).mean().backward()
    ours = np.asarray(jax.grad(objective)(logits))
    np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=1e-6)
    clipped = np.abs(ours).max(-1) == 0
    assert clipped.any() == (clip > 0 and kl == 0) and not clipped.all()  # no gradient beyond the bound


@pytest.mark.parametrize(
    "how",
    [Objective(0.2, 0.3, "tokens", 20), Objective(0.0, 0.0, "texts", 20), Objective(0.1, 0.2, "constant", 20)],
    ids=["ppo", "reinforce", "constant"],
)
def test_a_training_is_a_plain_loop(model, how):
    """Two epochs of three texts in micro-batches of two, so that one row is padding."""
    shape, base, engine = model
    behaviour, reference = recorded(shape, base, 1), recorded(shape, base, 2)
    learner = Candidate(ROWS, 0.02, 2, 0, (4, 1), (5,))
    recipe = Recipe(LORA, 2, 2, Optimizer("linear", eps=1e-2))
    sampled = Sampled(learner, ADVANTAGES, behaviour, reference)
    trained, losses = engine.reinforce(engine.put_base(base), sampled, recipe, how)

    weights = init_adapter(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 4), 1), base, LORA)
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(0.9, 0.999, 1e-2))
    moments, wanted = adam.init(weights), []

    @jax.jit
    def plain_step(weights, moments, rate):
        value, grads = jax.value_and_grad(
            lambda adapter: plain_loss(shape, {"params": base, "lora": adapter}, behaviour, reference, how)
        )(weights)
        updates, moments = adam.update(grads, moments)
        return value, jax.tree.map(lambda w, u: w - rate * u, weights, updates), moments

    for epoch in range(2):
        value, weights, moments = plain_step(weights, moments, 0.02 * (1 - epoch / 2))
        wanted.append(float(value))
    assert losses.tolist() == pytest.approx(wanted, rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), trained, weights)


def test_at_the_policy_that_sampled_the_gradient_is_that_of_reinforce(model):
    """Ratios are 1: the gradient is minus the mean over tokens of advantage × grad log-probability."""
    shape, base, _ = model
    adapter = random_adapter(base, LORA)
    exact = [np.asarray(token_log_probs(shape, {"params": base, "lora": adapter}, row)) for row in ROWS]
    sampled = Sampled(Candidate(ROWS, 0.1, 1, 0, (1,), (2,)), ADVANTAGES, tuple(exact), tuple(exact))
    tokens, weights = np.zeros((1, 3, 16), np.int32), np.zeros((1, 3, 16), np.float32)
    for place, row in enumerate(ROWS):
        tokens[0, place, : len(row.tokens)], weights[0, place, : len(row.tokens)] = row.tokens, row.weights
    behaviour, reference, advantages = sampled.arrays((0, 1, 2), (1, 3, 16))
    batch = policy_gradient.Batch(tokens, weights, behaviour, reference, advantages, np.array(True))
    program = policy_gradient.Program(sft.Program(Transformer(shape, LORA.scale), HOW, 8), 0.2, 0.5, "tokens", 9)
    state = sft.init_state(HOW, {"lora": adapter})
    after, loss = jax.jit(policy_gradient.policy_gradient_step, static_argnums=0)(
        program, {"params": base}, state, batch, HYPER
    )

    def reinforce(adapter):
        variables = {"params": base, "lora": adapter}
        sums = [gain * token_log_probs(shape, variables, row).sum() for row, gain in zip(ROWS, ADVANTAGES, strict=True)]
        return -sum(sums) / sum(map(len, exact))

    adamw = optax.chain(optax.clip_by_global_norm(5.0), optax.adamw(0.05, 0.9, 0.999, 1e-2, weight_decay=0.1))
    updates, _ = adamw.update(jax.jit(jax.grad(reinforce))(adapter), adamw.init(adapter), adapter)
    wanted = optax.apply_updates(adapter, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), after.trainable["lora"], wanted)
    counts = [len(one) for one in exact]
    assert float(loss) == pytest.approx(-np.average(ADVANTAGES, weights=counts), rel=1e-4)


def test_what_did_better_becomes_likelier(model):
    shape, base, engine = model
    placed = engine.put_base(base)

    def totals(weights):
        return np.array([one.sum() for one in engine.token_log_probs(Weights(weights), ROWS)])

    before = engine.token_log_probs(Weights(placed), ROWS)
    exact = [np.asarray(token_log_probs(shape, {"params": base}, row)) for row in ROWS]
    for ours, wanted in zip(before, exact, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-4)
    learner = Candidate(ROWS, 5e-3, 6, 0, (4,), (5,))
    sampled = Sampled(learner, (1.0, -1.0, 0.0), tuple(before), tuple(before))
    how = Objective(0.2, 0.0, "texts", 20)
    trained, _ = engine.reinforce(placed, sampled, Recipe(LORA, 1, 3, Optimizer("constant")), how)
    change = totals(engine.merge(placed, trained, LORA)) - totals(placed)
    assert change[0] > 0.5 and change[1] < -0.5


def test_a_run_learns_from_what_it_sampled_and_records_what_became_of_the_policy(home, fast, tmp_path):
    how = config.defaults("knowledge")["outer"]["policy_gradient"] | {"kl": 0.1}
    outer = {"improver": "policy_gradient", "policy_gradient": how, "rounds": 2, "random_control": False}
    values = tiny_run.tiny_values(home, outer=outer)
    tiny_run.run(values, tmp_path)
    phases = pick(read(tmp_path / "phases.jsonl"), purpose="finetuning")
    assert [phase["round"] for phase in phases] == [1, 2]
    for phase in phases:
        assert phase["entropy"] > 0 and phase["kl_sampled"] > 0 and 0 <= phase["clipped"] <= 1
    assert phases[0]["kl_reference"] == phases[0]["kl_sampled"]
    assert phases[1]["kl_reference"] != phases[1]["kl_sampled"]
    for text in (terminal.summary(tmp_path), html.render(tmp_path)):
        assert "What the policy gradient did to the policy" in text
    table = cells.drift_table(load(tmp_path))
    assert [row[0] for row in table.rows] == ["SEAL, round 1", "SEAL, round 2"]
    second = phases[1]
    kinds = [f"{second[name]:.3f}" for name in ("entropy", "kl_sampled", "kl_reference")]
    assert table.rows[1][1:] == [str(second["lessons"]), *kinds, f"{second['clipped']:.0%}"]
    again = dataclasses.replace(load(tmp_path), phases=[*phases, phases[0]])  # stopped before its checkpoint
    assert len(cells.drift_table(again).rows) == 2
    curves = scalars.points(load(tmp_path), {("SEAL", 1), ("SEAL", 2)})
    assert curves["policy/SEAL/kl_reference", 2] == second["kl_reference"] and ("policy/SEAL/clipped", 1) in curves
    rollouts = read(tmp_path / "rollouts.jsonl")
    assert rollouts and all(
        record["chosen"] == [k for k, r in enumerate(record["rewards"]) if r > np.mean(record["rewards"]) + 1e-9]
        for record in rollouts
    )
    entropy = np.mean(
        [-value for edit in pick(read(tmp_path / "self_edits.jsonl"), split="train", round=1)
         for value in edit["log_probs"]]
    )  # fmt: skip
    assert phases[0]["entropy"] == pytest.approx(entropy, rel=1e-4)


def test_a_file_is_nothing_to_learn_from_like_this(home):
    values = tiny_run.tiny_values(home, outer={"improver": "policy_gradient", "author": "file"})
    with pytest.raises(UserError, match="learns from what the policy itself sampled"):
        config.from_dict(values)


def test_rows_are_ordered_by_length_and_keep_what_is_theirs():
    learner = Candidate(ROWS, 0.1, 1, 0, (1,), (2,))
    numbers = tuple(np.full(int(sum(row.weights)), float(i)) for i, row in enumerate(ROWS))
    ordered = Sampled(learner, (0.0, 1.0, 2.0), numbers, numbers).ordered()
    assert [len(row.tokens) for row in ordered.learner.rows] == [14, 11, 9] and ordered.advantages == (0.0, 2.0, 1.0)
    behaviour, _, advantages = ordered.arrays((1, 2), (2, 2, 16))
    assert behaviour[0, 0].tolist() == [0.0] * 3 + [2.0] * 8 + [0.0] * 5
    assert advantages.tolist() == [[2.0, 1.0], [0.0, 0.0]]
