"""The numbers of a run from its records, their text for a terminal, and the curves."""

import math

import made_up_run
import numpy as np
import pytest
from scipy import stats

from seal_jax.domains.domain import Words
from seal_jax.report import cells, scalars, tables, terminal
from seal_jax.report.estimates import Estimate, estimate
from seal_jax.report.recorded import Recorded, load, words
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.metrics import Metrics
from seal_jax.runs.records import read

NAMES = {("base", 0): "base", ("passage only", 0): "passage only", ("SEAL", 0): "self-edits, no RL",
         ("SEAL", 1): "SEAL, round 1", ("random", 1): "random, round 1", ("SEAL", 2): "SEAL, round 2",
         ("random", 2): "random, round 2"}  # fmt: skip
BASE, NO_RL, SEAL, CONTROL = ("base", 0), ("SEAL", 0), ("SEAL", 1), ("random", 1)


def row(key, same_as=None):
    kind = {"base": "untrained", "passage only": "control"}.get(key[0], "policy")
    return made_up_run.row(*key, NAMES[key], kind, same_as and list(same_as))


def trial(key, item, likelihoods, correct=None, sample=0, **others):
    return {"split": "evaluation", "arm": key[0], "round": key[1], "purpose": "answers", "item": item, "sample": sample,
            "retrain": 0, "loss": None, "failure": None, "log_likelihood": likelihoods, "correct": correct, "cut": None,
            "answers": None, "judge": "lexical", **others}  # fmt: skip


def recorded(trials, rows=None, **others):
    keys = dict.fromkeys((found["arm"], found["round"]) for found in trials)
    return Recorded({}, rows=rows or [row(key) for key in keys], trials=trials, **others)


def lines(trials, rows=None):
    return tables.lines(recorded(trials, rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_up_run.write(tmp_path_factory.mktemp("made up"), items=6)


# ---------------------------------------------------------------- estimates


def test_the_interval_is_students():
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    found = estimate(values, (0, 1))
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.count == 5 and found.symmetric and not found.includes_zero and found.mean == pytest.approx(0.42)


def test_one_value_has_no_interval():
    for bounds in (None, (0, 1)):
        one, none = estimate([0.12], bounds), estimate([], bounds)
        assert one.mean == 0.12 and one.count == 1 and not one.has_interval and not one.symmetric
        assert math.isnan(none.mean) and none.count == 0 and not none.has_interval and not one.includes_zero
    assert cells.number(one, "accuracy") == "12.0 ± –" and cells.number(none, "accuracy") == "–"


@pytest.mark.parametrize("count", [2, 10, 200])
def test_equal_values_within_bounds_have_wilsons_interval(count):
    high = stats.binomtest(0, count).proportion_ci(0.95, "wilson").high
    zeros, ones = estimate([0.0] * count, (0, 1)), estimate([1.0] * count, (0, 1))
    assert (zeros.low, zeros.high) == pytest.approx((0, high)) and (ones.low, ones.high) == pytest.approx((1 - high, 1))
    thirds = estimate([1 / 3, 1 / 3 + 1e-12] * (count // 2), (0, 1))  # equal but for rounding
    assert (thirds.low, thirds.high) == pytest.approx((1 / 3 - high / 3, 1 / 3 + high * 2 / 3), abs=1e-9)
    difference = estimate([0.5] * count, (-1, 1))
    assert (difference.low, difference.high) == pytest.approx((0.5 - 1.5 * high, 0.5 + 0.5 * high))


def test_equal_values_without_bounds_have_no_interval():
    found = estimate([-2.0] * 5)
    assert found.mean == -2 and not found.has_interval and not found.includes_zero
    assert cells.number(found, "log_likelihood") == "-2.00 ± –"


def test_intervals_as_text():
    assert cells.number(estimate([0.0] * 10, (0, 1)), "accuracy") == "0.0 (0.0 to 27.8)"
    assert cells.number(estimate([1.0] * 10, (0, 1)), "accuracy") == "100.0 (72.2 to 100.0)"
    assert cells.number(estimate([0.0] * 10, (-1, 1)), "accuracy", "+") == "+0.0 ± 27.8"
    assert cells.number(estimate([0.5] * 10, (-1, 1)), "accuracy", "+") == "+50.0 (+8.4 to +63.9)"
    assert cells.number(Estimate(0.1234, 0.0234, 0.2234, 7), "accuracy") == "12.3 ± 10.0"
    assert cells.number(Estimate(-0.0001, -0.5001, 0.4999, 7), "log_likelihood", "+") == "+0.00 ± 0.50"
    assert cells.number(None, "accuracy") == "–"


def test_an_interval_that_ends_at_zero_but_for_rounding_includes_it():
    assert Estimate(0.1, 1e-12, 0.2, 3).includes_zero and Estimate(-0.1, -0.2, -1e-12, 3).includes_zero
    assert not Estimate(0.1, 1e-8, 0.2, 3).includes_zero and not Estimate(-0.1, -0.2, -1e-8, 3).includes_zero


# ---------------------------------------------------------------- rows


def test_questions_first_then_trials_then_items():
    trials = [
        trial(BASE, "a", [-1.0, -3.0], [True, False]),
        trial(BASE, "a", [-2.0, -6.0], [True, True], sample=1),
        trial(BASE, "b", [-10.0], [False]),
    ]
    assert tables.per_item(trials, "log_likelihood") == {"a": -3.0, "b": -10.0}
    assert tables.per_item(trials, "accuracy") == {"a": 0.75, "b": 0.0}
    (line,) = lines(trials)
    assert line.measures["log_likelihood"].mean == -6.5 and line.measures["accuracy"].mean == 0.375
    assert (line.items, line.counts.answers, line.counts.ungraded) == (2, 5, 0)
    assert (line.counts.trials, line.counts.solved, line.counts.self_edits) == (3, 1, 3)


def test_accuracies_have_bounds_and_likelihoods_have_none():
    trials = [trial(key, name, [-1.0], [True]) for key in (BASE, NO_RL) for name in "abcd"]
    base, no_rl = lines(trials)
    high = stats.binomtest(0, 4).proportion_ci(0.95, "wilson").high
    assert base.measures["accuracy"].low == pytest.approx(1 - high) and not base.measures["log_likelihood"].has_interval
    difference = no_rl.over["over untrained"]["accuracy"]
    assert (difference.low, difference.high) == pytest.approx((-high, high))


def test_what_has_no_verdict_is_in_no_mean_and_is_counted():
    trials = [trial(BASE, "a", [-1.0, None, -3.0], [True, None, None]), trial(BASE, "b", [-1.0], [None])]
    (line,) = lines(trials)
    assert line.measures["accuracy"].mean == 1 and line.measures["accuracy"].count == 1
    assert line.measures["log_likelihood"].mean == -1.5
    assert (line.items, line.counts.answers, line.counts.ungraded) == (2, 4, 3)
    assert "3 of 4 (75%) in base" in " ".join(terminal.show_rows(recorded(trials), [line]).split())


def test_differences_are_paired_by_item():
    values = {BASE: [-5.0, -9.0], ("passage only", 0): [-5.0, -8.0], NO_RL: [-4.0, -7.0], SEAL: [-3.0, -6.5],
              CONTROL: [-3.5, -6.5]}  # fmt: skip
    trials = [trial(key, name, [value]) for key, pair in values.items() for name, value in zip("ab", pair, strict=True)]
    base, control, no_rl, seal, random = lines(trials)
    assert seal.over["over untrained"]["log_likelihood"] == estimate([2.0, 2.5])
    assert seal.over["over no RL"]["log_likelihood"] == estimate([1.0, 0.5])
    assert seal.over["over random"]["log_likelihood"] == estimate([0.5, 0.0])
    assert base.over == {} and set(no_rl.over) == {"over untrained"}
    assert set(random.over) == set(control.over) == {"over untrained", "over no RL"}
    later = [{**found, "round": 2} for found in trials if found["arm"] == "SEAL" and found["round"] == 1]
    last = lines(trials + later)[-1]
    assert last.name == "SEAL, round 2" and set(last.over) == {"over untrained", "over no RL"}  # no control in round 2
    seal = lines(trials[:-1])[3]  # the control has only item a so far
    assert seal.over["over random"]["log_likelihood"].mean == 0.5


def test_probabilities_have_a_column_and_paired_differences():
    chances = {BASE: ([0.25, 0.5], [0.0]), NO_RL: ([0.9, None], [0.5]), SEAL: ([1.0, 1.0], [1.0])}
    trials = [trial(key, name, [-1.0], [False] * len(values), probability=values)
              for key, pair in chances.items() for name, values in zip("ab", pair, strict=True)]  # fmt: skip
    base, no_rl, seal = lines(trials)
    assert base.measures["expected"] == estimate([0.375, 0.0]) and no_rl.measures["expected"] == estimate([0.9, 0.5])
    assert seal.measures["expected"] == estimate([1.0, 1.0], (0, 1)) and seal.measures["accuracy"].mean == 0
    assert seal.over["over untrained"]["expected"] == estimate([0.625, 1.0])
    table = cells.row_table([base, no_rl, seal], 2, words("knowledge"))
    assert list(table.header[:4]) == ["row", "accuracy, %", "expected, %", "log-likelihood"]
    assert [row[2].split()[0] for row in table.rows] == ["18.8", "70.0", "100.0"]
    titles = [table.title for table in cells.difference_tables([base, no_rl, seal])]
    assert titles[1] == "Difference in expected accuracy, points" and len(titles) == 3
    text = " ".join(terminal.show_rows(recorded(trials), [base, no_rl, seal]).split())
    assert "“expected”: mean of the judge's probabilities" in text and "Difference in expected accuracy" in text
    assert scalars.points(recorded(trials), {BASE})["expected/base", 0] == 0.1875


def test_a_judge_without_probabilities_has_no_such_column():
    trials = [trial(BASE, "a", [-1.0], [True], probability=None), trial(NO_RL, "a", [-1.0], [True])]
    found = lines(trials)
    assert set(found[0].measures) == {"accuracy", "log_likelihood"} == set(found[1].over["over untrained"])
    assert "expected" not in terminal.show_rows(recorded(trials), found)


def test_rows_stand_in_the_order_of_their_declaration_and_only_they_are_rows():
    trials = [trial(SEAL, "a", [-1.0]), trial(BASE, "a", [-2.0]), trial(NO_RL, "a", [-3.0])]
    found = lines(trials, [row(BASE), row(SEAL), row(CONTROL)])
    assert [line.name for line in found] == ["base", "SEAL, round 1"]
    others = [{"split": "train", "purpose": "reward"}, {"split": "train", "purpose": "untrained"}]
    assert lines([trial(SEAL, "a", [-1.0]) | other for other in others]) == []


def test_a_row_whose_policy_did_not_change_repeats_the_numbers_and_says_so():
    trials = [trial(key, name, [value], [verdict]) for key, value, verdict in ((BASE, -3.0, False), (NO_RL, -2.0, True))
              for name, value in (("a", value), ("b", value + 0.5))]  # fmt: skip
    rows = [row(BASE), row(NO_RL), row(SEAL, NO_RL), row(CONTROL, NO_RL), row(("SEAL", 2), SEAL)]
    base, no_rl, first, control, second = lines(trials, rows)
    assert [line.same_as for line in (base, no_rl, first, second)] == [None, None, *["self-edits, no RL"] * 2]
    assert first.measures == second.measures == no_rl.measures and first.items == 2
    assert set(first.over) == set(control.over) == set(second.over) == {"over untrained"}  # not +0.0 over itself
    text = " ".join(terminal.show_rows(recorded(trials, rows), [base, no_rl, first, control, second]).split())
    assert "SEAL, round 1 = 100.0" in text and "self-edits, no RL 100.0" in text and "base 0.0" in text
    assert "“=” SEAL, round 1: no self-edit was selected in this round" in text
    assert text.count("still that of “self-edits, no RL”") == 3
    assert lines(trials[:2], rows)[1:] == []  # the row that is repeated is not measured yet


def test_cut_answers_and_failed_self_edits_are_counted():
    trials = [
        trial(SEAL, "a", [-1.0], [True], cut=[True, True, False]),
        trial(SEAL, "a", [-1.0], [True], cut=[True]) | {"retrain": 1, "failure": "diverged"},
        trial(SEAL, "a", [None], failure="invalid") | {"retrain": 2},
        trial(SEAL, "b", [-1.0], [False, True]),
    ]
    (line,) = lines(trials)
    assert (line.counts.cut, line.counts.texts) == (3, 4)
    assert (line.counts.failed, line.counts.self_edits, line.counts.trials, line.counts.solved) == (1, 2, 4, 2)
    table = cells.row_table([line], 2, Words("task", "tasks"))
    assert dict(zip(table.header, table.rows[0], strict=True)) | {"cut off": "75%", "solved": "2 of 4", "failed": "1"} \
        == dict(zip(table.header, table.rows[0], strict=True))  # fmt: skip
    assert "solved" not in cells.row_table([line], 2, Words("passage", "passages")).header
    assert tables.failed(recorded(trials)) == {"SEAL, round 1": (1, 2)}
    training = [found | {"split": "train", "purpose": "reward"} for found in trials]
    assert tables.failed(recorded(training)) == {"SEAL, round 1, training": (1, 2)}
    assert cells.share(0, 0) == "–"


def test_unfinished_self_edits_by_row_and_round():
    edits = [{"split": split, "arm": "SEAL", "round": number, "finished": finished, "text": "It is.",
              "problem": None}
             for split, number, finished in (("train", 1, False), ("train", 1, True), ("evaluation", 0, False),
                                             ("evaluation", 1, True))]  # fmt: skip
    found = Recorded({}, rows=[row(NO_RL), row(SEAL)], self_edits=edits)
    assert tables.unfinished(found) == {"SEAL, round 1, training": (1, 2), "self-edits, no RL": (1, 1)}
    assert cells.row_notes(found, []) == [
        "Self-edits cut off at max_new_tokens: 1 of 2 (50%) in SEAL, round 1, training; 1 of 1 (100%) in "
        "self-edits, no RL."
    ]


# ---------------------------------------------------------------- rounds


def rollout(arm, number, item, chosen, rewards=None, **others):
    return {"arm": arm, "round": number, "item": item, "rewards": rewards, "base": None, "heldout_rewards": None,
            "heldout_base": None, "accuracies": None, "retrains": None, "chosen": chosen, **others}  # fmt: skip


def test_rounds_with_the_control_and_held_out_questions():
    first = {"base": 0.5, "heldout_base": 0.0}
    rollouts = [
        rollout("SEAL", 1, "a", [1], [1.0, 2.0], heldout_rewards=[3.0, 1.0], **first),
        rollout("SEAL", 1, "b", [0], [4.0, None], heldout_rewards=[5.0, None], **first),
        rollout("random", 1, "a", [0]),
        rollout("random", 1, "b", [1]),
        rollout("random", 2, "a", [1]),
    ]
    seal, held, control, control_held = tables.rounds(rollouts)
    assert (seal.arm, seal.number, seal.heldout, seal.selected) == ("SEAL", 1, False, 2)
    assert (seal.untrained.mean, seal.all.mean, seal.best.mean, seal.chosen.mean) == (0.5, 2.75, 3.0, 3.0)
    assert held.heldout and (held.untrained.mean, held.all.mean, held.chosen.mean) == (0.0, 3.5, 3.0)
    assert control.arm == "random" and control.all.mean == 2.75
    assert control.chosen.mean == 1.0 and control.chosen.count == 1 and control_held.chosen.mean == 3.0
    assert [entry.on_itself for entry in (seal, held, control, control_held)] == [True, False, False, False]
    text = terminal.show_rounds(Recorded({}), [seal, held, control])
    assert "chosen*" in text and "* These self-edits were selected by these very rewards" in text
    text = terminal.show_rounds(Recorded({}), [held, control])
    assert "*" not in text


def test_the_best_of_a_race_is_one_that_was_not_dropped():
    record = rollout("SEAL", 1, "a", [1], [9.0, 2.0, 3.0, None], base=0.0, retrains=[1, 3, 3, 4])
    (only,) = tables.rounds([record])
    assert (only.best.mean, only.chosen.mean, only.all.mean) == (3.0, 2.0, pytest.approx(14 / 3))
    for rollouts, noted in (([record], True), ([rollout("SEAL", 1, "a", [1], [1.0, 2.0], retrains=[3, 3])], False)):
        notes = cells.round_notes(Recorded({}, rollouts=rollouts), [only])
        assert any("the mean of all is biased downwards" in note for note in notes) == noted


def test_a_round_that_selected_nothing_and_has_no_held_out_questions():
    (only,) = tables.rounds([rollout("SEAL", 1, "a", [], [1.0], base=0.0, heldout_rewards=[None])])
    assert not only.heldout and only.selected == 0 and math.isnan(only.chosen.mean)
    text = terminal.show_rounds(Recorded({}), [only])
    assert " –  " in text and "SEAL, round 1 selected nothing" in text
    both = tables.rounds([rollout("SEAL", 1, "a", [], [1.0], base=0.0, heldout_rewards=[0.5])])
    assert len(both) == 2 and terminal.show_rounds(Recorded({}), both).count("selected nothing") == 1


def test_rewards_without_verdicts_are_counted_in_training_only():
    trials = [trial(SEAL, "a", [-1.0], [None, True]), trial(SEAL, "a", [-1.0], [None, None]) | {"split": "train"}]
    assert cells.round_notes(recorded(trials), []) == ["Answers without a verdict, left out of every reward: 2."]


# ---------------------------------------------------------------- text


def test_wall_time_and_usage_add_up_over_starts():
    stage = {"split": "train", "arm": "SEAL", "round": 1, "purpose": "reward"}
    records = [
        stage | {"seconds": 30.0, "programs": 2, "real_tokens": 9, "token_slots": 10, "generated": 1000},
        stage | {"seconds": 3600.0, "split": "evaluation", "purpose": "answers"},
        stage | {"seconds": 31.0, "real_tokens": 0, "token_slots": 10},
    ]
    names = {"SEAL, round 1: inner loops": 61.0, "SEAL, round 1, evaluation: answers": 3600.0}
    assert tables.phases(records) == names
    text = terminal.show_phases(tables.phases(records)).splitlines()
    assert [line.split()[-1] for line in text[2:]] == ["1:01", "1:00:00", "1:01:01"]
    assert all(part in tables.usage(records) for part in ("2 programs", "45%", "1,000 tokens"))


def test_the_summary_fits_80_columns_and_nothing_is_cut(folder):
    found = load(folder)
    text, rows = terminal.summary(folder), tables.lines(found)
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    for line in rows:
        accuracy, gain = line.measures["accuracy"], line.over.get("over untrained", {}).get("log_likelihood")
        assert f"{100 * accuracy.mean:.1f} ± {100 * (accuracy.high - accuracy.mean):.1f}" in text
        assert gain is None or f"{gain.mean:+.2f} ± {gain.high - gain.mean:.2f}" in text
    missing = sum(verdict is None for t in found.trials if t["split"] == "train" for verdict in t["correct"])
    assert missing and f"left out of every reward: {missing}" in text and "SEAL, round 2, held out" in text
    words = " ".join(text.split())
    assert "1 of 6 (17%) in SEAL, round 1, training" in words and "1 of 6 (17%) in random, round 2" in words
    assert "Self-edits cut off at max_new_tokens" in words and "Judge: lexical" in words and "all phases" in words
    assert "sampled again" not in words  # that is for ARC
    order = [text.index(part) for part in ("phase ", "programs compiled", "Reward: ", "Evaluation on 6 passages")]
    assert order == sorted(order)


def test_the_summary_of_an_arc_run_speaks_of_tasks(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes().replace(b'"domain": "knowledge"', b'"domain": "arc"'))
    text = " ".join(terminal.summary(tmp_path).split())
    assert "Evaluation on 6 tasks" in text and "0 of 84 self-edits were sampled again" in text
    assert "solved" in text and "passages" not in text


def test_a_run_without_records_has_an_empty_summary(tmp_path):
    assert terminal.summary(tmp_path) == ""


def test_the_words_of_the_domains():
    assert words("knowledge") == Words("passage", "passages") and words("arc") == Words("task", "tasks")


def test_a_row_that_is_not_whole_says_so():
    trials = [trial(BASE, "a", [-1.0]), trial(BASE, "b", [-1.0]), trial(("passage only", 0), "a", [-1.0])]
    found = recorded(trials)
    text = terminal.show_rows(found, tables.lines(found))
    assert "passage only (1 of 2)" in text and "base (" not in text
    items = [{"split": split, "item": name} for split, name in (("evaluation", "a"), ("evaluation", "b"),
                                                               ("evaluation", "c"), ("train", "d"))]  # fmt: skip
    found = recorded(trials, items=items)
    assert "base (2 of 3)" in terminal.show_rows(found, tables.lines(found))


def test_self_edits_that_were_sampled_again_are_counted():
    edits = [{"attempts": 1, "problem": None}, {"attempts": 3, "problem": "bad"}, {"attempts": 2, "problem": None},
             {"attempts": 0, "problem": None}]  # fmt: skip
    assert tables.resampled(edits) == "2 of 4 self-edits were sampled again, 3 times in all; 1 stayed invalid"


# ---------------------------------------------------------------- curves


def test_curves_by_round_of_the_rows_that_are_whole(folder):
    found = scalars.points(load(folder), {BASE, SEAL})
    rows = {(line.arm, line.round): line for line in tables.lines(load(folder))}
    assert found["log_likelihood/SEAL", 1] == rows[SEAL].measures["log_likelihood"].mean
    assert found["accuracy/base", 0] == rows[BASE].measures["accuracy"].mean
    assert found["finetune_loss/SEAL", 1] == 2.0 and found["real_token_fraction/SEAL", 1] == pytest.approx(0.9)
    rewards = [r["rewards"] for r in read(folder / "rollouts.jsonl") if (r["arm"], r["round"]) == SEAL]
    assert found["reward/SEAL/best", 1] == pytest.approx(np.max(rewards, axis=1).mean())
    assert found["reward/SEAL/all", 1] == pytest.approx(np.mean(rewards))
    assert "heldout_reward/SEAL/chosen" in {name for name, _ in found}
    assert not [name for name, step in found if step == 2 or "random" in name or "passage only" in name]
    assert ("accuracy/SEAL", 0) not in found and ("accuracy/SEAL", 0) in scalars.points(load(folder), {NO_RL})


def test_every_point_is_written_once(folder, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(Metrics, "scalars", lambda self, step, values: sent.append((step, *values.items())))
    for rows in ({BASE}, {BASE, SEAL}, {BASE, SEAL}):
        written = Ledger(tmp_path / "metrics.jsonl", ("name", "step"))  # as after a new start
        with Metrics(tmp_path / "metrics") as metrics:
            scalars.publish(metrics, written, scalars.points(load(folder), rows))
        written.close()
    assert len(sent) == len(set(sent)) == len(read(tmp_path / "metrics.jsonl")) > 10
