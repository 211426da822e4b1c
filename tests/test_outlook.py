"""What is still to come: all that a run then records; its time from measurements, or this machine's speed."""

from dataclasses import replace

import pytest
from plain_engine import plain_actor
from test_loop import Rig

from seal_jax import config as config_lib
from seal_jax.experiments import forecast, outlook, rounds
from seal_jax.experiments.outlook import Outlook
from seal_jax.runs.keys import ANSWER, EVALUATION, RATE, REWARD, SEAL, TEACH, TRAIN, UNTRAINED, WRITE, Stage

COSTS = {"answers": 10.0, "untrained": 4.0, "reward": 5.0, "self-edits": 2.0, "finetuning": 100.0}  # FLOPs


def ahead(setup, rate=None):
    return Outlook(setup, lambda stage: COSTS[stage.purpose], rate)


@pytest.fixture
def rig(home, tmp_path, monkeypatch):
    return Rig(home, tmp_path / "run", monkeypatch)


def test_what_is_announced_is_what_is_recorded(rig):
    setup = rig.setup(reward={"retrains": 2}, outer={"samples": 3}, evaluation={"retrains": 2})
    announced = outlook.whole(setup)
    assert outlook.left(setup) == announced
    seen = []
    rounds.run(setup, lambda rows: seen.append(outlook.left(setup)))
    made = outlook.made(setup.recorder)
    by_rule = Stage(EVALUATION, "title only", 0)
    assert dict(made) == dict(announced) | {by_rule: made[by_rule]} and len(announced) == len(dict(announced))
    assert [len(rest) for rest in seen] == sorted((len(rest) for rest in seen), reverse=True) and seen[-1] == []
    assert ahead(setup, 1.0).time_left() == ahead(setup, 1.0).listed() == ""
    setup.recorder.close()


def test_what_a_rubric_rates_and_what_others_write_is_announced(rig):
    reward = config_lib.defaults("knowledge")["reward"] | {"kind": "rubric"}
    reward["judge"] |= {"kind": "local"}  # the policy itself
    written = tuple(replace(item, completions=("one", "two")) for item in rig.world.evaluation)
    rig.world = replace(rig.world, evaluation=written)
    setup = rig.setup(reward=reward, outer={"rounds": 1, "random_control": False}, evaluation={"authors": ("file",)})
    announced = dict(outlook.whole(setup))
    assert Stage(TRAIN, SEAL, 1, RATE) in announced and Stage(TRAIN, SEAL, 1, REWARD) not in announced
    assert announced[Stage(EVALUATION, "file", 0, ANSWER)] == 4 and Stage(EVALUATION, "file", 0) not in announced
    assert "  SEAL, round 1: 4 self-edits, 4 ratings, finetuning;" in ahead(setup).listed()
    stage = Stage(TRAIN, SEAL, 1)
    record = {name: stage.fields[name] for name in ("split", "arm", "round")} | {"item": "x", "sample": 0}
    setup.recorder.ratings.append([record])
    assert outlook.made(setup.recorder)[Stage(TRAIN, SEAL, 1, RATE)] == 1
    setup.recorder.close()


def test_what_a_file_teaches_is_trained_and_not_written(rig):
    setup = rig.setup(outer={"rounds": 1, "author": "file"})
    announced = dict(outlook.whole(setup))
    assert Stage(TRAIN, SEAL, 1) not in announced and announced[Stage(TRAIN, SEAL, 1, REWARD)] == 4
    assert announced[Stage(EVALUATION, SEAL, 1)] == 4  # the policy writes the rows
    setup.recorder.close()


def test_the_list_has_a_line_for_each_row_and_no_time_where_none_is_known(rig):
    setup = rig.setup(outer={"rounds": 1, "random_control": False})
    lines = ahead(setup).listed().splitlines()
    assert lines[0] == "to come (how long it takes is told once the first rows are measured):"
    assert lines[1:] == [
        "  base: 2 inner loops",
        "  title only: 4 inner loops",
        "  self-edits, no RL: 4 self-edits, 4 inner loops",
        "  SEAL, round 1: 4 self-edits, 2 answers, 4 inner loops, finetuning; evaluation: 4 self-edits, 4 inner loops",
    ]
    # 14 loops in rows, 4 of the reward, 12 self-edits, 2 answers and a finetuning at SHARE of 1 FLOP/s
    total = 14 * 10 + 4 * 5 + 12 * 2 + 2 * 4 + 100
    minutes = round(total / forecast.SHARE / 60)
    first = ahead(setup, 1.0).listed().splitlines()[0]
    assert first == f"to come (about {minutes} minutes, by the speed of this machine, without compiling):"
    setup.recorder.close()


def test_time_is_that_of_the_same_kind_of_work_without_compilation(rig):
    setup = rig.setup(outer={"rounds": 1, "random_control": False})
    stage = Stage(EVALUATION, SEAL, 0, ANSWER)
    trial = {"steps": 3, "sample": 0, "retrain": 0}
    setup.recorder.trials.append([{**stage.fields, "item": item, **trial} for item in "ef"])
    setup.recorder.phases.append([{**stage.fields, "began": 1.0, "seconds": 100.0, "compile_seconds": 80.0}])
    assert ahead(setup).paces() == {"inner loops": 1.0}  # seconds a FLOP
    # 2 (base), 4 (title only), 2 left of the row and 4 (row of round 1) of 10 FLOPs, 4 (reward) of 5
    assert ahead(setup).time_left() == (
        "about 2 minutes, besides self-edits and answers and finetuning, of which none has run yet"
    )
    # The same, and 12 self-edits of 2 FLOPs, 2 answers of 4, a finetuning of 100, at 3 s a FLOP
    assert ahead(setup, 1 / forecast.SHARE / 3).time_left() == f"about {round((140 + 3 * 132) / 60)} minutes"
    teach = Stage(TRAIN, SEAL, 1, TEACH)
    setup.recorder.phases.append([{**teach.fields, "began": 2.0, "seconds": 7.0, "compile_seconds": 2.0}])
    setup.recorder.rollouts.append([{"arm": SEAL, "round": 1, "item": item, "chosen": [0]} for item in "xy"])
    assert ahead(setup).paces()["finetuning"] == 0.05
    assert not any(stage.split == TRAIN for stage, _ in outlook.left(setup))  # the round is over
    idle = Stage(EVALUATION, "base", 0, ANSWER)
    setup.recorder.trials.append([{**idle.fields, "item": "e", **trial, "steps": 0}])
    setup.recorder.phases.append([{**idle.fields, "began": 3.0, "seconds": 1.0}])
    assert ahead(setup).paces()["inner loops"] == 1.0  # what trained nothing tells nothing of those that do
    rule = Stage(EVALUATION, "title only", 0, WRITE)
    setup.recorder.edits.append([{"split": EVALUATION, "arm": "title only", "round": 0, "item": "e", "sample": 0}])
    setup.recorder.phases.append([{**rule.fields, "began": 4.0, "seconds": 0.0}])
    assert "self-edits" not in ahead(setup).paces()  # a rule writes in no time
    assert Stage(TRAIN, SEAL, 1, UNTRAINED) not in dict(outlook.left(setup))
    setup.recorder.close()


def test_arithmetic_is_counted_by_tokens(rig):
    """Against the lengths of the rig's two items, added up by hand."""
    setup = rig.setup(outer={"rounds": 1, "samples": 3}, reward={"accuracy_weight": 1.0, "likelihood_weight": 0.0})
    cost, actor, domain = forecast.costs(setup), plain_actor(), setup.domain
    prompts = [len(actor.tokenizer.encode_prompt(domain.edit_prompt(item, False))) for item in setup.train]
    sampling, answer = setup.config.sampling.max_new_tokens, setup.config.reward.answer_tokens
    assert cost(Stage(TRAIN, SEAL, 1)) == 2 * (sum(prompts) / 2 / 3 + sampling)  # a prompt is read once for 3 samples
    asked = [sum(len(actor.tokenizer.encode_prompt(p)) + answer for p in domain.quiz(item, False).prompts)
             for item in setup.train]  # fmt: skip
    assert cost(Stage(TRAIN, SEAL, 1, UNTRAINED)) == 2 * sum(asked) / 2
    (rule,) = [control for control in domain.controls() if control.text]
    lessons = [domain.lesson(item, rule.text(item, 0), (), len) for item in setup.train]
    trained = [one.epochs * sum(map(actor.length, one.examples)) for one in lessons]
    assert sum(trained) > 0
    assert cost(Stage(TRAIN, SEAL, 1, REWARD)) == 2 * sum(asked) / 2 + 4 * sum(trained) / 2
    assert cost(Stage(EVALUATION, "base", 0, ANSWER)) < cost(Stage(EVALUATION, SEAL, 0, ANSWER))


def test_the_rate_of_a_product_is_measured_on_a_cpu_only(monkeypatch):
    assert 1e8 < forecast.product_rate() < 1e14
    monkeypatch.setattr(forecast.jax, "default_backend", lambda: "gpu")
    assert forecast.product_rate() is None
