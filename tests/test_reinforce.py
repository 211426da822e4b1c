"""Policy gradients above the engine: which texts teach by how much, and what is recorded of the policy afterwards."""

from dataclasses import replace

import numpy as np
import pytest
from plain_engine import PlainEngine, Thing, losses_of, number, plain_actor, token_likelihoods, trained

from seal_jax import seeds
from seal_jax.authors.author import SelfEdit
from seal_jax.config import PolicyGradient as Settings
from seal_jax.config import Training
from seal_jax.domains.domain import Prompt
from seal_jax.engine.packing import Candidate, Row
from seal_jax.engine.recipe import recipe
from seal_jax.engine.sampled import Objective
from seal_jax.outer.improver import Update
from seal_jax.outer.policy_gradient import PolicyGradient, leave_one_out, standardised
from seal_jax.outer.rollouts import Rollout
from seal_jax.student import reinforce as module
from seal_jax.student.reinforce import Episode, kl, log_probs, reinforce

LORA = Training(rank=2, alpha=6.0, learning_rate=1e-3, epochs=2, batch_size=2, warmup_steps=1)
EPISODES = [
    Episode((5, 6), (7, 8, 9), (-1.0, -0.5, -2.0), 1.5),
    Episode((5,), (4,), (-0.25,), -1.0),
    Episode((3, 3, 3), (6, 2), (-0.75, -1.5), 0.5),
]
HOW = Objective(0.2, 0.1, "tokens", 40), (1, 2)
X, Y = Thing("x", "One"), Thing("y", "Two")


def test_the_prompt_is_read_and_the_sampled_tokens_count():
    assert EPISODES[0].row == Row((5, 6, 7, 8, 9), (0.0, 0.0, 1.0, 1.0, 1.0))


@pytest.mark.parametrize("training", [LORA, replace(LORA, rank=0)])
def test_what_the_engine_is_given_and_what_is_said_of_the_outcome(training, monkeypatch):
    monkeypatch.setattr(module, "as_stored", lambda learned, base: {"w": learned["w"] - base["w"]})
    policy, first = plain_actor(PlainEngine(decode_rows=2), weight=2.0), plain_actor(weight=3.0)
    learned, facts = reinforce(policy, first, EPISODES, training, HOW)
    rows = tuple(episode.row for episode in EPISODES)
    learner = Candidate(rows, 1e-3, 2, 1, (1, 2), (1, 2))
    [(count, sampled, how, objective)] = [call[1:] for call in policy.engine.calls if call[0] == "reinforce"]
    assert (count, how, objective) == (3, recipe(training), HOW[0])
    assert sampled.learner == learner and sampled.advantages == (1.5, -1.0, 0.5)
    assert [values.tolist() for values in sampled.behaviour] == [list(one.log_probs) for one in EPISODES]
    for known, row in zip(sampled.reference, rows, strict=True):
        np.testing.assert_array_equal(known, token_likelihoods(3.0, row))
    wanted = number(trained(learner, 2.0), (1.5, -1.0, 0.5), HOW[0])
    assert float(learned["w"]) == wanted
    weight = wanted - 2.0 if training.rank == 0 else 2.0 + 3.0 * wanted
    after = np.concatenate([token_likelihoods(weight, row) for row in rows])
    before = np.concatenate([one.log_probs for one in EPISODES])
    reference = np.concatenate([token_likelihoods(3.0, row) for row in rows])
    ratio = np.exp(after - before)
    assert facts == {
        "loss": pytest.approx(losses_of(learner, 2)[2:].mean()),
        "entropy": pytest.approx(1.0),
        "kl_sampled": pytest.approx((ratio - 1 - np.log(ratio)).mean(), rel=1e-5),
        "kl_reference": pytest.approx((np.exp(after - reference) - 1 - after + reference).mean(), rel=1e-5),
        "clipped": pytest.approx(np.mean((ratio > 1.2) | (ratio < 0.8))),
    }
    assert [call[1] for call in policy.engine.calls if call[0] == "token_log_probs"] == [2, 1]


def test_the_policy_that_sampled_is_its_own_reference_and_without_clipping_no_share_is_told():
    policy = plain_actor()
    _, facts = reinforce(policy, policy, EPISODES, LORA, (replace(HOW[0], clip=0.0), (1, 2)))
    [sampled] = [call[2] for call in policy.engine.calls if call[0] == "reinforce"]
    assert sampled.reference is sampled.behaviour and "clipped" not in facts
    assert facts["kl_reference"] == facts["kl_sampled"]


def test_rows_are_bounded_and_keep_their_order():
    rows = [episode.row for episode in EPISODES] * 2
    policy = plain_actor(PlainEngine(decode_rows=4), weight=2.0)
    found = log_probs(policy, rows)
    assert [call[1] for call in policy.engine.calls] == [4, 2]
    for values, row in zip(found, rows, strict=True):
        np.testing.assert_array_equal(values, token_likelihoods(2.0, row))


def test_kl_is_zero_for_equals_and_positive_both_ways():
    assert kl(np.array([-1.0, -2.0]), np.array([-1.0, -2.0])) == 0.0
    assert kl(np.array([-1.0]), np.array([-2.0])) == pytest.approx(np.e - 2)
    assert kl(np.array([-2.0]), np.array([-1.0])) == pytest.approx(1 / np.e)


def rollout(item, k, reward, tokens=(4, 5)):
    edit = SelfEdit("ab", tokens, (-0.5,) * len(tokens), True)
    return Rollout(item, Prompt(f"Write {item.id}:", False), k, edit, reward)


def improver(method="reinforce", **settings):
    first = plain_actor(weight=7.0)
    return PolicyGradient(Settings(method=method, kl=0.3, clip=0.25, normaliser="texts", **settings), 11, LORA, first)


def given(policy):
    return [(call[2], call[4]) for call in policy.engine.calls if call[0] == "reinforce"]


@pytest.mark.parametrize("method, clip", [("reinforce", 0.0), ("grpo", 0.25), ("ppo", 0.25)])
def test_every_text_counts_by_what_it_earned_beside_its_siblings(method, clip):
    policy = plain_actor()
    some = [rollout(X, 0, 1.0, (4,)), rollout(X, 1, 0.0), rollout(X, 2, 0.0, (9, 9)), rollout(Y, 0, 2.0),
            rollout(Y, 1, 2.0), rollout(X, 3, None), rollout(X, 4, 5.0, ())]  # fmt: skip
    update = improver(method).improve(policy, some, (5, 6))
    [(sampled, objective)] = given(policy)
    assert objective == Objective(clip, 0.3, "texts", 11)
    prompt = tuple(policy.tokenizer.encode_prompt(Prompt("Write x:", False)))
    assert [row.tokens for row in sampled.learner.rows] == [(*prompt, *t) for t in ((4,), (4, 5), (9, 9))]
    rule = standardised if method == "grpo" else leave_one_out
    assert list(sampled.advantages) == rule([1.0, 0.0, 0.0])
    assert sampled.learner.seed == sampled.learner.order == seeds.teach(5, 6)
    assert update.chosen == {"x": [0], "y": []}  # equal rewards say nothing
    assert update.facts["lessons"] == 3 and update.facts["loss"] > 0 and float(update.learned["w"]) > 0
    known = np.concatenate([token_likelihoods(7.0, row) for row in sampled.learner.rows])
    np.testing.assert_array_equal(np.concatenate(sampled.reference), known)


def test_without_any_difference_nothing_is_learned():
    policy = plain_actor()
    assert improver().improve(policy, [rollout(X, 0, 1.0), rollout(X, 1, 1.0), rollout(Y, 0, 3.0)], (5, 6)) == Update(
        None, {"x": [], "y": []}, {"lessons": 0}
    )
    assert not policy.engine.calls and improver().needs_rewards


def test_advantages_of_two_values_and_of_one_alone():
    assert standardised([0.0, 0.0, 3.0]) == pytest.approx([-(0.5**0.5), -(0.5**0.5), 2**0.5])
    assert leave_one_out([0.0, 0.0, 3.0]) == [-1.5, -1.5, 3.0] and leave_one_out([1.0, 3.0]) == [-2.0, 2.0]
    assert leave_one_out([4.0]) == standardised([4.0]) == [0.0] and standardised([]) == leave_one_out([]) == []
