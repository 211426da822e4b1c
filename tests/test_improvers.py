"""How rollouts change the policy: what is taught of a self-edit, what is selected, and with which training."""

from dataclasses import replace

import numpy as np
import pytest
from plain_engine import PlainEngine, Thing, likelihood, losses_of, plain_actor, trained

from seal_jax import seeds
from seal_jax.authors.author import SelfEdit
from seal_jax.config import Training
from seal_jax.domains.domain import Example, Prompt
from seal_jax.engine.packing import Candidate
from seal_jax.engine.recipe import recipe
from seal_jax.outer.dpo import DPO, RandomPairs
from seal_jax.outer.improver import Update
from seal_jax.outer.rest_em import RandomSelection, RestEM, example, finetune, teachable
from seal_jax.outer.rollouts import Rollout
from seal_jax.outer.weighted import WeightedSFT, shares
from seal_jax.runs.ledger import Ledger

TRAINING = Training(rank=2, alpha=6.0, learning_rate=3e-3, epochs=3, accumulation=2, warmup_steps=1)
X, Y = Thing("x", "One"), Thing("y", "Two")
SEED = 7, 2


def rollout(item, sample, text, reward=None, **changes):
    edit = SelfEdit(text, **{name: changes.pop(name) for name in ("finished", "problem") if name in changes})
    return Rollout(item, Prompt(f"Write {item.id}:", False), sample, edit, reward, **changes)


# ---------------------------------------------------------------- what is taught of one self-edit

PROMPT = Prompt("Write x:", False)


@pytest.mark.parametrize("unfinished", ["cut", "open", "drop"])
def test_a_finished_self_edit_is_taught_whole_and_with_its_end(unfinished):
    assert example(rollout(X, 0, "one\n two "), unfinished) == Example(PROMPT, "one\n two ", closing=True)


@pytest.mark.parametrize(
    "text, cut",
    [
        ("one\ntwo\nthr", "one\ntwo"),
        ("one\ntwo\n", "one\ntwo"),
        ("one\n\n  \nthr", "one"),
        ("  one\n", "  one"),
        ("one", None),
        ("\n \none", None),
    ],
)
def test_one_that_was_cut_off_ends_with_its_last_whole_line_is_left_open_or_dropped(text, cut):
    found = rollout(X, 0, text, finished=False)
    assert example(found, "cut") == (None if cut is None else Example(PROMPT, cut, closing=True))
    assert example(found, "open") == Example(PROMPT, text, closing=False)
    assert example(found, "drop") is None


@pytest.mark.parametrize("unfinished", ["cut", "open", "drop"])
@pytest.mark.parametrize("finished", [True, False])
def test_what_is_invalid_or_empty_teaches_nothing(unfinished, finished):
    assert example(rollout(X, 0, "one\ntwo\n", finished=finished, problem="not allowed"), unfinished) is None
    assert example(rollout(X, 0, " \n\n ", finished=finished), unfinished) is None


def test_teachable_rollouts_by_item():
    some = [rollout(X, 0, "one"), rollout(Y, 0, " "), rollout(X, 1, "tw", finished=False), rollout(X, 2, "three")]
    assert teachable(some, "cut") == {"x": [some[0], some[3]], "y": []}
    assert teachable(some, "open") == {"x": [some[0], some[2], some[3]], "y": []}


# ---------------------------------------------------------------- ReST^EM

ROLLOUTS = [
    rollout(X, 0, "cut off", 9.0, base=1.0, finished=False),
    rollout(X, 1, "better", 2.0, base=1.0),
    rollout(X, 2, "best", 3.0, base=1.0),
    rollout(Y, 0, "harmful", -2.0, base=1.0),
    rollout(Y, 1, "failed", None, base=1.0),
    rollout(Y, 2, "invalid", 5.0, base=1.0, problem="not allowed"),
]


def taught(policy):
    """(candidate, recipe) of every M-step."""
    return [call[2:] for call in policy.engine.calls if call[0] == "teach"]


def expected(policy, texts, training=TRAINING):
    """The M-step's inner loop over (item, text) pairs that were finished."""
    rows = tuple(policy.row(Example(Prompt(f"Write {item.id}:", False), text, closing=True)) for item, text in texts)
    seed = seeds.teach(*SEED)
    return Candidate(rows, training.learning_rate, training.epochs, training.warmup_steps, seed, seed)


def test_the_policy_is_finetuned_on_the_best_of_each_item():
    policy = plain_actor()
    update = RestEM("best", TRAINING, "drop").improve(policy, ROLLOUTS, SEED)
    wanted = expected(policy, [(X, "best"), (Y, "harmful")])
    assert taught(policy) == [(wanted, recipe(TRAINING))]
    assert update.chosen == {"x": [2], "y": [0]}
    assert float(update.learned["w"]) == trained(wanted, 1.0)
    last = losses_of(wanted, 2)[-1]  # one step an epoch
    assert update.facts == {"lessons": 2, "loss": pytest.approx(last)}


def test_the_last_tokens_of_what_is_taught_are_the_end_of_the_text():
    policy = plain_actor()
    RestEM("best", TRAINING, "open").improve(policy, ROLLOUTS[:1] + ROLLOUTS[3:4], SEED)
    (learner, _), end = taught(policy)[0], policy.tokenizer.eos_id
    assert [row.tokens[-1] == end for row in learner.rows] == [False, True]
    for row, text in zip(learner.rows, ("cut off", "harmful"), strict=True):
        assert sum(row.weights) == len(policy.tokenizer.encode(text)) + (row.tokens[-1] == end)


def test_other_rules_select_others():
    policy = plain_actor()
    assert RestEM("above_base", TRAINING, "drop").improve(policy, ROLLOUTS, SEED).chosen == {"x": [1, 2], "y": []}
    right = [replace(one, accuracy=1.0) for one in ROLLOUTS]
    assert RestEM("correct", TRAINING, "open").improve(policy, right, SEED).chosen == {"x": [0, 1, 2], "y": [0]}
    assert taught(policy)[0][0] == expected(policy, [(X, "better"), (X, "best")])


def test_nothing_selected_is_nothing_learned():
    policy = plain_actor()
    update = RestEM("correct", TRAINING, "drop").improve(policy, ROLLOUTS, SEED)
    assert update == Update(None, {"x": [], "y": []}, {"lessons": 0}) and not policy.engine.calls


def test_rounds_and_runs_are_taught_with_keys_of_their_own():
    policy = plain_actor()
    for seed in ((7, 2), (7, 3), (8, 2)):
        RestEM("best", TRAINING, "drop").improve(policy, ROLLOUTS, seed)
    assert [learner.seed for learner, _ in taught(policy)] == [seeds.teach(*s) for s in ((7, 2), (7, 3), (8, 2))]


def improvers():
    return RestEM("best", TRAINING, "drop"), RandomSelection(TRAINING, "drop")


def test_what_was_learned_is_merged_with_the_training_s_scale():
    policy = plain_actor(weight=2.0)
    for improver in improvers():
        assert improver.apply(policy, {"w": np.array(5.0)}).base["w"] == 2.0 + 6.0 / 2 * 5.0
    full = replace(TRAINING, rank=0)
    for improver in (RestEM("best", full, "drop"), RandomSelection(full, "drop")):
        assert improver.apply(policy, {"w": np.array(5.0)}).base["w"] == 5.0


def test_only_those_that_choose_by_reward_need_rewards():
    assert [improver.needs_rewards for improver in improvers()] == [True, False]


# ---------------------------------------------------------------- the random control

PROBLEMS = [None, "not allowed", None, None, None, None]
MANY = [rollout(item, k, f"{item.id}{k}", problem=PROBLEMS[k]) for item in (X, Y) for k in range(6)]


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "rollouts.jsonl", ("arm", "round", "item"))
    chosen = {("SEAL", 2, "x"): [0, 1, 4], ("SEAL", 2, "y"): [], ("SEAL", 1, "x"): [0], ("SEAL", 1, "y"): [1]}
    chosen[("other", 2, "x")] = []
    made.append([{"arm": arm, "round": r, "item": item, "chosen": some} for (arm, r, item), some in chosen.items()])
    yield made
    made.close()


def test_chance_takes_as_many_of_each_item_as_the_rule_in_the_same_round_and_valid_ones_only(ledger):
    picked = set()
    for run in range(40):
        update = RandomSelection(TRAINING, "drop", (ledger, "SEAL")).improve(plain_actor(), MANY, (run, 2))
        assert len(update.chosen["x"]) == 3 and update.chosen["y"] == [] and update.facts["lessons"] == 3
        picked |= set(update.chosen["x"])
    assert picked == {0, 2, 3, 4, 5}
    update = RandomSelection(TRAINING, "drop", (ledger, "SEAL")).improve(plain_actor(), MANY, (0, 1))
    assert [len(chosen) for chosen in update.chosen.values()] == [1, 1]


def test_chance_without_another_arm_takes_one_of_each_item():
    policy = plain_actor()
    update = RandomSelection(TRAINING, "drop").improve(policy, MANY, SEED)
    assert [len(chosen) for chosen in update.chosen.values()] == [1, 1]
    texts = [(X, f"x{update.chosen['x'][0]}"), (Y, f"y{update.chosen['y'][0]}")]
    assert taught(policy) == [(expected(policy, texts), recipe(TRAINING))]


def test_chance_depends_on_run_round_and_item_and_on_nothing_else():
    def chosen(run, number):
        return RandomSelection(TRAINING, "drop").improve(plain_actor(), MANY, (run, number)).chosen

    assert chosen(0, 1) == chosen(0, 1)
    for found in (
        [chosen(run, 1)["x"][0] for run in range(20)],
        [chosen(0, number)["x"][0] for number in range(20)],
    ):
        assert len(set(found)) > 2
    assert any(chosen(run, 1)["x"] != chosen(run, 1)["y"] for run in range(20))


def test_chance_chooses_among_the_teachable_alone():
    some = [replace(one, edit=replace(one.edit, finished=one.sample == 3)) for one in MANY]
    assert RandomSelection(TRAINING, "drop").improve(plain_actor(), some, SEED).chosen == {"x": [3], "y": [3]}


def test_finetune_keeps_the_order_of_the_rollouts():
    policy = plain_actor(PlainEngine())
    finetune(policy, ROLLOUTS[::-1], {"x": [1, 2], "y": [0]}, RestEM("best", TRAINING, "drop"), SEED)
    assert taught(policy)[0][0] == expected(policy, [(Y, "harmful"), (X, "best"), (X, "better")])


# ---------------------------------------------------------------- reward-weighted SFT


def test_shares_are_a_softmax_and_the_best_alone_counts_without_temperature():
    rewards = [0.3, -1.0, 0.5]
    powers = np.exp(np.array(rewards) / 0.4)
    assert shares(rewards, 0.4) == pytest.approx((powers / powers.sum()).tolist())
    assert shares([800.0, 0.0, 799.0], 1e-3) == [1.0, 0.0, 0.0] and shares([], 1.0) == []
    assert shares([5.0, -5.0], 1e9) == pytest.approx([0.5, 0.5])


def test_every_self_edit_with_a_reward_teaches_by_its_share_of_its_item():
    policy = plain_actor()
    more = [*ROLLOUTS, rollout(Y, 3, "mild", -1.5, base=1.0)]
    update = WeightedSFT(0.5, TRAINING, "drop").improve(policy, more, SEED)
    assert update.chosen == {"x": [1, 2], "y": [0, 3]}  # neither cut off, failed nor invalid
    weights = [*shares([2.0, 3.0], 0.5), *shares([-2.0, -1.5], 0.5)]
    assert sum(weights[:2]) == pytest.approx(1) and weights[1] / weights[0] == pytest.approx(np.exp(2))
    plain = expected(policy, [(X, "better"), (X, "best"), (Y, "harmful"), (Y, "mild")])
    [(learner, how)] = taught(policy)
    assert how == recipe(TRAINING) and replace(learner, rows=()) == replace(plain, rows=())
    for row, alike, weight in zip(learner.rows, plain.rows, weights, strict=True):
        assert row.tokens == alike.tokens
        assert row.weights == pytest.approx([2 * weight * w for w in alike.weights])  # 1 on average
    assert update.facts["lessons"] == 4 and float(update.learned["w"]) == trained(learner, 1.0)


def test_weights_of_items_are_equal_however_many_self_edits_they_have():
    policy = plain_actor()
    WeightedSFT(1.0, TRAINING, "open").improve(policy, ROLLOUTS[:5], SEED)
    [(learner, _)] = taught(policy)
    each = [max(row.weights) for row in learner.rows]
    assert len(each) == 4 and sum(each[:3]) == pytest.approx(2) and each[3] == pytest.approx(2)


def test_weighted_sft_without_rewards_learns_nothing():
    policy = plain_actor()
    update = WeightedSFT(1.0, TRAINING, "drop").improve(policy, [ROLLOUTS[0], ROLLOUTS[4]], SEED)
    assert update == Update(None, {"x": [], "y": []}, {"lessons": 0}) and not policy.engine.calls


# ---------------------------------------------------------------- DPO


def preferred(policy):
    """(pairs, recipe, beta) of every M-step by DPO."""
    return [call[2:] for call in policy.engine.calls if call[0] == "prefer"]


def rows_of(policy, texts):
    return expected(policy, texts).rows


def test_the_best_of_each_item_is_preferred_to_its_worst_and_the_policy_is_the_reference():
    policy = plain_actor(PlainEngine(decode_rows=3))
    more = [*ROLLOUTS, rollout(X, 3, "worse", -9.0), rollout(Y, 3, "mild", -1.5)]
    update = DPO(0.2, TRAINING, "drop").improve(policy, more, SEED)
    assert update.chosen == {"x": [2], "y": [3]} and update.rejected == {"x": [3], "y": [0]}
    best = expected(policy, [(X, "best"), (Y, "mild")])
    worst = rows_of(policy, [(X, "worse"), (Y, "harmful")])
    reference = [likelihood(1.0, one) - likelihood(1.0, two) for one, two in zip(best.rows, worst, strict=True)]
    [(pairs, how, beta)] = preferred(policy)
    assert (how, beta) == (recipe(TRAINING), 0.2)
    assert pairs.learner == best and pairs.rejected == worst and pairs.reference == pytest.approx(reference)
    assert [call[1] for call in policy.engine.calls if call[0] == "log_likelihood"] == [3, 1]  # decode_rows at a time
    assert update.facts == {"lessons": 2, "loss": pytest.approx(losses_of(best, 2)[-1])}
    applied = DPO(0.2, TRAINING, "drop").apply(policy, update.learned)
    assert float(applied.base["w"]) == pytest.approx(1.0 + 3.0 * float(update.learned["w"]))  # alpha / rank


def test_items_whose_self_edits_earned_the_same_teach_nothing():
    policy = plain_actor()
    some = [rollout(X, 0, "one", 1.0), rollout(X, 1, "two", 1.0), rollout(Y, 0, "three", 1.0), rollout(Y, 1, "four")]
    update = DPO(0.1, TRAINING, "drop").improve(policy, some, SEED)
    assert update == Update(None, {"x": [], "y": []}, {"lessons": 0}, {"x": [], "y": []}) and not policy.engine.calls
    update = DPO(0.1, TRAINING, "drop").improve(policy, [*some, rollout(Y, 2, "five", 2.0)], SEED)
    assert (update.chosen, update.rejected) == ({"x": [], "y": [2]}, {"x": [], "y": [0]})
    assert len(preferred(policy)[0][0].rejected) == 1


def test_the_control_of_dpo_pairs_at_random_where_the_other_arm_had_a_pair(ledger):
    pairs = set()
    for run in range(60):
        policy = plain_actor()
        update = RandomPairs(0.2, TRAINING, "drop", (ledger, "SEAL")).improve(policy, MANY, (run, 2))
        assert update.chosen["y"] == update.rejected["y"] == [] and update.facts["lessons"] == 1
        [(found, _, _)] = preferred(policy)
        texts = [policy.tokenizer.decode(row.tokens) for row in (found.learner.rows[0], found.rejected[0])]
        assert all(f"x{pick['x'][0]}" in text
                   for pick, text in zip((update.chosen, update.rejected), texts, strict=True))  # fmt: skip
        pairs.add((update.chosen["x"][0], update.rejected["x"][0]))
    valid = {0, 2, 3, 4, 5}
    assert {side for pair in pairs for side in pair} == valid and len(pairs) > 15
    assert any((b, a) in pairs for a, b in pairs)
    again = [RandomPairs(0.2, TRAINING, "drop", (ledger, "SEAL")).improve(plain_actor(), MANY, SEED) for _ in "ab"]
    assert again[0].chosen == again[1].chosen and not RandomPairs.needs_rewards and DPO.needs_rewards
