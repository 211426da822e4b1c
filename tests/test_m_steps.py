"""Whole runs of a tiny model with racing, DPO and reward-weighted SFT: the weights are what the records say."""

import json

import jax
import numpy as np
import pytest
import tiny_run
from tiny_run import pick

from seal_jax import config, seeds
from seal_jax.domains.domain import Example
from seal_jax.domains.knowledge.corpus import load_passages
from seal_jax.domains.knowledge.prompts import edit_prompt
from seal_jax.engine.engine import Engine
from seal_jax.engine.weights import Weights
from seal_jax.report import html
from seal_jax.runs import checkpoint
from seal_jax.student.merge import merge
from seal_jax.student.prefer import prefer
from seal_jax.student.train import teach

RACING = {"retrains": 2, "allocation": "racing"}


@pytest.fixture(scope="module")
def runs(home, actors, tmp_path_factory):
    """{improver: (config, folder, policy)} of runs of one round with three self-edits of each passage."""
    found = {}
    for improver, reward in (("dpo", RACING), ("weighted", {})):
        folder = tmp_path_factory.mktemp("runs") / improver
        outer = {"improver": improver, "samples": 3, "random_control": improver == "dpo"}
        values = tiny_run.tiny_values(home, reward=reward, outer=outer, evaluation={"samples": 1})
        tiny_run.finished(values, actors, folder)
        setting = config.from_dict(values)
        found[improver] = setting, folder, actors(setting.model.policy, setting)
    return found


def examples(setting, folder):
    """{(item, sample): what the policy is taught of a self-edit in the first round}."""
    passages, family = load_passages(setting.data.train), setting.knowledge.prompt
    prompts = {item.id: edit_prompt(item, family, False) for item in passages}
    edits = pick(tiny_run.records(folder)["self_edits"], split="train", round=1)
    return {(e["item"], e["sample"]): Example(prompts[e["item"]], e["text"], e["finished"]) for e in edits}


def same(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


def test_a_race_trains_the_better_self_edits_again_and_says_who_was_dropped(runs):
    _, folder, _ = runs["dpo"]
    found = tiny_run.records(folder)
    for record in pick(found["rollouts"], arm="SEAL"):
        trials = pick(found["trials"], purpose="reward", item=record["item"])
        counts = [len(pick(trials, sample=k)) for k in range(3)]
        assert record["retrains"] == counts and sorted(counts) == [1, 2, 2]  # of 6 loops, two for each, 5 are spent
        [base] = pick(found["trials"], purpose="untrained", item=record["item"])
        kept = [place for place, held in enumerate(base["heldout"]) if not held]

        def gain(trial, base=base, kept=kept):
            return np.mean([trial["log_likelihood"][i] - base["log_likelihood"][i] for i in kept])

        first = [gain(pick(trials, sample=k, retrain=0)[0]) for k in range(3)]
        assert counts[int(np.argmin(first))] == 1
        means = [np.mean([gain(one) for one in pick(trials, sample=k)]) for k in range(3)]
        np.testing.assert_allclose(record["rewards"], means, atol=1e-8)
        finalists = [k for k in range(3) if counts[k] == 2]
        assert record["chosen"] == [max(finalists, key=lambda k: means[k])]
        assert record["rejected"] == [int(np.argmin(means))]


def test_dpo_raises_the_chosen_against_the_rejected_and_the_control_pairs_at_random(runs):
    setting, folder, policy = runs["dpo"]
    lessons, rollouts = examples(setting, folder), tiny_run.records(folder)["rollouts"]
    for arm in ("SEAL", "random"):
        records = pick(rollouts, arm=arm)
        keys = [(r["item"], r["chosen"][0], r["rejected"][0]) for r in records]
        assert all(chosen != rejected for _, chosen, rejected in keys) and len(keys) == 2
        pairs = [(lessons[item, chosen], lessons[item, rejected]) for item, chosen, rejected in keys]
        learned, _ = prefer(policy, pairs, setting.outer.sft, setting.outer.dpo.beta, seeds.teach(0, 1))
        saved = checkpoint.load(folder / "checkpoints" / arm, 1)
        same(saved, learned)
        rows = [[policy.row(pair[side]) for pair in pairs] for side in (0, 1)]

        def margins(actor, rows=rows):
            return np.subtract(*(actor.engine.log_likelihood(Weights(actor.base), [side])[0] for side in rows))

        assert margins(merge(policy, saved, setting.outer.sft)).mean() > margins(policy).mean() + 0.01


def test_weighted_sft_teaches_all_by_reward(runs):
    setting, folder, policy = runs["weighted"]
    lessons, rewards = examples(setting, folder), {}
    for record in tiny_run.records(folder)["rollouts"]:
        assert record["chosen"] == [0, 1, 2] and record["rejected"] == [] and record["retrains"] == [1, 1, 1]
        rewards[record["item"]] = np.array(record["rewards"])
    powers = [np.exp(each / setting.outer.weighted.temperature) for each in rewards.values()]
    weights = np.concatenate([3 * power / power.sum() for power in powers])
    assert weights.max() > 1.2  # rewards differ enough to matter
    ordered = [lessons[item, k] for item in rewards for k in range(3)]
    learned, _ = teach(policy, ordered, setting.outer.sft, seeds.teach(0, 1), weights.tolist())
    saved = checkpoint.load(folder / "checkpoints" / "SEAL", 1)
    same(saved, learned)
    alike, _ = teach(policy, ordered, setting.outer.sft, seeds.teach(0, 1))
    factors = [tree["layers"]["q_proj"]["B"] for tree in (saved, alike)]
    assert np.abs(np.subtract(*map(np.asarray, factors))).max() > 1e-3


def test_a_race_that_was_stopped_goes_on_and_a_finished_run_computes_nothing(runs, fast, tmp_path, monkeypatch):
    folder = runs["dpo"][1]
    values = json.loads((folder / "config.json").read_text())
    with monkeypatch.context() as patch, pytest.raises(tiny_run.Killed):
        tiny_run.kill_at(patch, 3, True, [], b'"purpose": "reward"')
        tiny_run.run(values, tmp_path / "run")
    tiny_run.run(values, tmp_path / "run")
    tiny_run.same(*(tiny_run.by_key(tiny_run.records(run)) for run in (tmp_path / "run", folder)))
    for name in ("finetune", "teach", "prefer", "generate", "log_likelihood"):
        monkeypatch.setattr(Engine, name, None)
    tiny_run.run(values, folder)
    html.write(folder)
    assert "dropped after 1 of the retrains" in (folder / "report.html").read_text()

