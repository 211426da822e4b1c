"""What is still to come: every unit that a run then records, and a time only where one was measured."""

import pytest
from test_loop import Rig

from seal_jax.experiments import outlook, rounds
from seal_jax.runs.keys import ANSWER, EVALUATION, SEAL, TEACH, TRAIN, UNTRAINED, Stage


@pytest.fixture
def rig(home, tmp_path, monkeypatch):
    return Rig(home, tmp_path / "run", monkeypatch)


def test_what_is_announced_is_what_is_recorded(rig):
    setup = rig.setup(reward={"retrains": 2}, outer={"samples": 3}, evaluation={"retrains": 2})
    announced = outlook.whole(setup)
    assert outlook.left(setup) == announced
    seen = []
    rounds.run(setup, lambda arm, number: seen.append(outlook.left(setup)))
    made = outlook.made(setup.recorder)
    by_rule = Stage(EVALUATION, "title only", 0)
    assert dict(made) == dict(announced) | {by_rule: made[by_rule]} and len(announced) == len(dict(announced))
    assert [len(rest) for rest in seen] == sorted((len(rest) for rest in seen), reverse=True) and seen[-1] == []
    assert outlook.time_left(setup) == outlook.listed(setup) == ""
    setup.recorder.close()


def test_the_list_has_a_line_for_each_row_and_no_time_before_anything_ran(rig):
    setup = rig.setup(outer={"rounds": 1, "random_control": False})
    lines = outlook.listed(setup).splitlines()
    assert lines[0] == "to come (how long it takes is told once the first rows are measured):"
    assert lines[1:] == [
        "  base: 2 inner loops",
        "  title only: 4 inner loops",
        "  self-edits, no RL: 4 self-edits, 4 inner loops",
        "  SEAL, round 1: 4 self-edits, 2 answers, 4 inner loops, finetuning; evaluation: 4 self-edits, 4 inner loops",
    ]
    setup.recorder.close()


def test_time_is_that_of_the_same_kind_of_work_without_compilation(rig):
    setup = rig.setup(outer={"rounds": 1, "random_control": False})
    stage = Stage(EVALUATION, SEAL, 0, ANSWER)
    trial = {"steps": 3, "sample": 0, "retrain": 0}
    setup.recorder.trials.append([{**stage.fields, "item": item, **trial} for item in "ef"])
    setup.recorder.phases.append([{**stage.fields, "began": 1.0, "seconds": 100.0, "compile_seconds": 80.0}])
    # 2 (base) + 4 (title only) + 2 left of the row + 4 (reward) + 4 (row of round 1), 10 s each
    assert outlook.rates(setup.recorder) == {"inner loops": 10.0}
    assert outlook.time_left(setup) == (
        "about 3 minutes to come, besides self-edits and answers and finetuning, of which none has run yet"
    )
    teach = Stage(TRAIN, SEAL, 1, TEACH)
    setup.recorder.phases.append([{**teach.fields, "began": 2.0, "seconds": 7.0, "compile_seconds": 2.0}])
    setup.recorder.rollouts.append([{"arm": SEAL, "round": 1, "item": item, "chosen": [0]} for item in "xy"])
    assert outlook.rates(setup.recorder)["finetuning"] == 5.0
    assert not any(stage.split == TRAIN for stage, _ in outlook.left(setup))  # the round is over
    idle = Stage(EVALUATION, "base", 0, ANSWER)
    setup.recorder.trials.append([{**idle.fields, "item": "e", **trial, "steps": 0}])
    setup.recorder.phases.append([{**idle.fields, "began": 3.0, "seconds": 1.0}])
    assert outlook.rates(setup.recorder)["inner loops"] == 10.0  # what trained nothing tells nothing of those that do
    assert Stage(TRAIN, SEAL, 1, UNTRAINED) not in dict(outlook.left(setup))
    setup.recorder.close()
