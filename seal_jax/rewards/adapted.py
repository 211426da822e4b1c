"""The paper's reward: a student is trained on a self-edit and asked about its item (arXiv 2506.10943, section 3.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seal_jax import config
from seal_jax.authors.author import SelfEdit
from seal_jax.domains.domain import Domain
from seal_jax.rewards.racing import race, schedule
from seal_jax.rewards.reward import Scores, rounded
from seal_jax.runs.keys import REWARD, UNTRAINED, Stage
from seal_jax.runs.recorder import Recorder
from seal_jax.student.actor import Actor
from seal_jax.student.measure import measure
from seal_jax.student.trials import Plan, Trial


@dataclass(frozen=True)
class Adapted:
    """Trains adapters on every self-edit and asks each; see config.Reward for their number and for the formula.

    asks: whether answers are generated, which a reward of likelihoods alone does not need.
    """

    domain: Domain
    weights: config.Reward
    training: config.Training
    seed: int
    asks: bool
    recorder: Recorder

    def score(
        self, student: Actor, items: Sequence[Any], edits: Mapping[str, Sequence[SelfEdit]], stage: Stage
    ) -> dict[str, Scores]:
        base_plan, plan = self._plan(stage, UNTRAINED), self._plan(stage, REWARD)
        untrained = measure(student, [Trial(item, None) for item in items], self.domain, base_plan, self.recorder)
        base = {item.id: untrained[base_plan.stage.trial(item.id, 0, 0)] for item in items}
        retrains = {item.id: [0] * len(edits[item.id]) for item in items}
        trials: list[Trial] = []
        scores: dict[str, Scores] = {}

        def shown(trial: dict) -> float | None:
            return trial_reward(trial, base[trial["item"]], self.weights)

        def run(running: Mapping[str, Sequence[int]], each: int) -> dict[str, list[float | None]]:
            for item in items:
                for k in running[item.id]:
                    if edits[item.id][k].missing:
                        continue
                    done = retrains[item.id][k]
                    trials.extend(Trial(item, edits[item.id][k].text, k, done + more) for more in range(each))
                    retrains[item.id][k] += each
            found = measure(student, trials, self.domain, plan, self.recorder, shown)
            for item, counts in retrains.items():
                ran = [[found[plan.stage.trial(item, k, r)] for r in range(n)] for k, n in enumerate(counts)]
                scores[item] = item_scores(base[item], ran, self.weights)
            return {item: scores[item].rewards for item in scores}

        samples = {item: len(counts) for item, counts in retrains.items()}
        race(self._stages(max(samples.values())), samples, run)
        return scores

    def _stages(self, samples: int) -> list[tuple[int, int]]:
        """How many self-edits of an item run in each stage, and the retrains of each."""
        if self.weights.allocation == "racing":
            return schedule(samples, samples * self.weights.retrains)
        return [(samples, self.weights.retrains)]

    def _plan(self, stage: Stage, purpose: str) -> Plan:
        answer_tokens, likely = self.weights.answer_tokens if self.asks else 0, self.weights.likelihood_weight > 0
        return Plan(replace(stage, purpose=purpose), self.training, answer_tokens, (self.seed, stage.round), likely)


def accuracy(trial: dict, heldout: bool) -> float | None:
    """Share of right answers among those that were graded, of the questions that are, or are not, held out."""
    if trial["correct"] is None:
        return None
    graded = [
        verdict
        for verdict, held in zip(trial["correct"], trial["heldout"], strict=True)
        if verdict is not None and held == heldout
    ]
    return float(np.mean(graded)) if graded else None


def log_likelihood(trial: dict, heldout: bool) -> float | None:
    """Mean over questions of the gold answer's log-likelihood, in nats per token; None if there is no question."""
    kept = [v for v, held in zip(trial["log_likelihood"], trial["heldout"], strict=True) if held == heldout]
    return float(np.mean(kept)) if kept and None not in kept else None


def trial_reward(trial: dict, base: dict, weights: config.Reward, heldout: bool = False) -> float | None:
    """accuracy_weight × accuracy + likelihood_weight × gain in log-likelihood over `base`, the untrained student.

    Over the questions in the reward (or, with `heldout`, the others). None where the trial failed or diverged, nothing
    could be graded although accuracy counts, or there is no such question.
    """
    if trial["failure"]:
        return None
    total = 0.0
    if weights.likelihood_weight:
        after, before = log_likelihood(trial, heldout), log_likelihood(base, heldout)
        if after is None or before is None:
            return None
        total = weights.likelihood_weight * (after - before)
    if weights.accuracy_weight == 0:
        return total
    right = accuracy(trial, heldout)
    return None if right is None else total + weights.accuracy_weight * right


def item_scores(base: dict, samples: Sequence[Sequence[dict]], weights: config.Reward) -> Scores:
    """From the trials of one item: that of the untrained student, and those of its self-edits, [sample][retrain]."""

    def mean(trials: Sequence[dict], heldout: bool) -> float | None:
        if any(trial["failure"] for trial in trials):
            return None
        return _mean([trial_reward(trial, base, weights, heldout) for trial in trials])

    return Scores(
        [mean(trials, False) for trials in samples],
        mean([base], False),
        [mean(trials, True) for trials in samples],
        mean([base], True),
        [_mean([accuracy(trial, False) for trial in trials]) for trials in samples],
        [len(trials) for trials in samples],
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return rounded(float(np.mean(known))) if known else None
