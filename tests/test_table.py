"""The numbers of a run from its records, their text for a terminal, and the curves."""

import math

import made_up_run
import numpy as np
import pytest
from scipy import stats

from seal_jax.runs import scalars, table, terminal
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.metrics import Metrics
from seal_jax.runs.records import read


def trial(row, passage, likelihoods, correct=None, sample=0):
    return {"stage": f"evaluation: {row}", "passage": passage, "sample": sample, "retrain": 0, "loss": None,
            "log_likelihood": likelihoods, "correct": correct, "judge": "lexical"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_up_run.write(tmp_path_factory.mktemp("made up"), passages=6)


def test_the_interval_is_students():
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    found = table.estimate(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert found.count == 5
    one, none = table.estimate([2.0]), table.estimate([])
    assert one.mean == 2.0 and math.isnan(one.half) and math.isnan(none.mean) and none.count == 0


def test_questions_first_then_trials_then_passages():
    trials = [
        trial("base", "a", [-1.0, -3.0], [True, False]),
        trial("base", "a", [-2.0, -6.0], [True, True], sample=1),
        trial("base", "b", [-10.0], [False]),
    ]
    assert table.per_passage(trials, "log_likelihood") == {"a": -3.0, "b": -10.0}
    assert table.per_passage(trials, "accuracy") == {"a": 0.75, "b": 0.0}
    (line,) = table.lines(trials)
    assert line.measures["log_likelihood"].mean == -6.5 and line.measures["accuracy"].mean == 0.375
    assert (line.passages, line.answers, line.ungraded) == (2, 5, 0)


def test_what_has_no_verdict_is_in_no_mean_and_is_counted():
    trials = [trial("base", "a", [-1.0, -1.0, -1.0], [True, None, None]), trial("base", "b", [-1.0], [None])]
    (line,) = table.lines(trials)
    assert line.measures["accuracy"] == table.Estimate(1.0, pytest.approx(math.nan, nan_ok=True), 1)
    assert (line.passages, line.answers, line.ungraded) == (2, 4, 3)
    assert "3 of 4 in base" in terminal.show_rows([line], "lexical")


def test_differences_are_paired_by_passage():
    rows = {"base": [-5.0, -9.0], "self-edits, no RL": [-4.0, -7.0], "SEAL, round 1": [-3.0, -6.5],
            "random, round 1": [-3.5, -6.5]}  # fmt: skip
    trials = [trial(row, passage, [value]) for row, (a, b) in rows.items() for passage, value in (("a", a), ("b", b))]
    base, no_rl, seal, control = table.lines(trials)
    assert seal.over_base["log_likelihood"] == table.estimate([2.0, 2.5])
    assert seal.over_no_rl["log_likelihood"] == table.estimate([1.0, 0.5])
    assert seal.over_random["log_likelihood"] == table.estimate([0.5, 0.0])
    assert not base.over_base and not base.over_no_rl and not no_rl.over_no_rl and not control.over_random
    second = [{**t, "stage": t["stage"].replace("round 1", "round 2")} for t in trials]
    later = next(line for line in table.lines(trials + second[:6]) if line.name == "SEAL, round 2")
    assert later.over_base and not later.over_random  # rounds are compared with the control's of the same number
    trials = trials[:-1]  # the control has only passage a so far
    assert table.lines(trials)[2].over_random["log_likelihood"].mean == 0.5


def test_only_the_evaluation_has_rows():
    assert table.lines([trial("base", "a", [-1.0]) | {"stage": "round 1: reward"}]) == []


def test_rounds_with_the_control_and_held_out_questions():
    first = {"round": 1, "base": 0.5, "heldout_base": 0.0}
    selections = [
        first | {"arm": "SEAL", "passage": "a", "rewards": [1.0, 2.0], "heldout_rewards": [3.0, 1.0], "chosen": [1]},
        first | {"arm": "SEAL", "passage": "b", "rewards": [4.0, None], "heldout_rewards": [5.0, None], "chosen": [0]},
        {"arm": "random", "round": 1, "passage": "a", "chosen": [0]},
        {"arm": "random", "round": 1, "passage": "b", "chosen": [1]},
        {"arm": "random", "round": 2, "passage": "a", "chosen": [1]},
    ]
    seal, held, control, control_held = table.rounds(selections)
    assert (seal.arm, seal.number, seal.heldout, seal.selected) == ("SEAL", 1, False, 2)
    assert (seal.untrained.mean, seal.all.mean, seal.best.mean, seal.chosen.mean) == (0.5, 2.75, 3.0, 3.0)
    assert held.heldout and (held.untrained.mean, held.all.mean, held.chosen.mean) == (0.0, 3.5, 3.0)
    assert control.arm == "random" and control.all.mean == 2.75
    assert control.chosen.mean == 1.0 and control.chosen.count == 1 and control_held.chosen.mean == 3.0


def test_without_held_out_questions_there_are_no_rows_for_them():
    record = {"arm": "SEAL", "round": 1, "passage": "a", "rewards": [1.0], "base": 0.0, "heldout_rewards": [None],
              "heldout_base": None, "chosen": []}  # fmt: skip
    (only,) = table.rounds([record])
    assert not only.heldout and only.selected == 0 and math.isnan(only.chosen.mean)
    assert terminal.ABSENT in terminal.show_rounds([only], 0)


def test_wall_time_and_usage_add_up_over_starts():
    records = [
        {"phase": "a", "seconds": 30.0, "programs": 2, "real_tokens": 9, "token_slots": 10, "generated": 1000},
        {"phase": "b", "seconds": 3600.0},
        {"phase": "a", "seconds": 31.0, "real_tokens": 0, "token_slots": 10},
    ]
    assert table.phases(records) == {"a": 61.0, "b": 3600.0}
    text = terminal.show_phases(table.phases(records)).splitlines()
    assert [line.split()[-1] for line in text[2:]] == ["1:01", "1:00:00", "1:01:01"]
    assert all(part in table.usage(records) for part in ("2 programs", "45%", "1,000 tokens"))


def test_the_text_fits_80_columns_and_nothing_is_cut(folder):
    lines, rounds = table.lines(read(folder / "trials.jsonl")), table.rounds(read(folder / "selections.jsonl"))
    text = terminal.show_rows(lines, "lexical") + "\n" + terminal.show_rounds(rounds, 3)
    text += "\n" + terminal.show_phases(table.phases(read(folder / "phases.jsonl")))
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    for line in lines:
        accuracy, gain = line.measures["accuracy"], line.over_base.get("log_likelihood")
        assert f"{100 * accuracy.mean:.1f} ± {100 * accuracy.half:.1f}" in text
        assert gain is None or f"{gain.mean:+.2f} ± {gain.half:.2f}" in text
    assert "left out of every reward: 3" in text and "SEAL, round 2, held out" in text


def test_a_row_that_is_not_whole_says_so():
    trials = [trial("base", "a", [-1.0]), trial("base", "b", [-1.0]), trial("passage only", "a", [-1.0])]
    text = terminal.show_rows(table.lines(trials), "lexical")
    assert "passage only (1 of 2)" in text and "base (" not in text


def points_of(folder, rows):
    return scalars.points(*(read(folder / f"{name}.jsonl") for name in ("trials", "selections", "phases")), set(rows))


def test_curves_by_round_of_the_rows_that_are_whole(folder):
    found = points_of(folder, ["base", "SEAL, round 1"])
    lines = {line.name: line for line in table.lines(read(folder / "trials.jsonl"))}
    assert found["log_likelihood/SEAL", 1] == lines["SEAL, round 1"].measures["log_likelihood"].mean
    assert found["accuracy/base", 0] == lines["base"].measures["accuracy"].mean
    assert found["finetune_loss/SEAL", 1] == 2.0 and found["real_token_fraction/SEAL", 1] == pytest.approx(0.9)
    rewards = [record["rewards"] for record in read(folder / "selections.jsonl") if record.get("rewards")][:6]
    assert found["reward/SEAL/best", 1] == pytest.approx(np.max(rewards, axis=1).mean())
    assert found["reward/SEAL/all", 1] == pytest.approx(np.mean(rewards))
    assert "heldout_reward/SEAL/chosen" in {name for name, _ in found}
    assert not [name for name, step in found if step == 2]


def test_every_point_is_written_once(folder, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(Metrics, "scalars", lambda self, step, values: sent.append((step, *values.items())))
    for rows in (["base"], ["base", "SEAL, round 1"], ["base", "SEAL, round 1"]):
        written = Ledger(tmp_path / "metrics.jsonl", ("name", "step"))  # as after a new start
        scalars.publish(Metrics(tmp_path / "metrics", enabled=False), written, points_of(folder, rows))
        written.close()
    assert len(sent) == len(set(sent)) == len(read(tmp_path / "metrics.jsonl")) > 10


def test_self_edits_that_were_sampled_again_are_counted():
    edits = [{"attempts": 1, "problem": None}, {"attempts": 3, "problem": "bad"}, {"attempts": 2, "problem": None}, {}]
    assert table.resampled(edits) == "2 of 4 self-edits were sampled again, 3 times in all; 1 stayed invalid"
