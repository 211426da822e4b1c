"""The records of a run: found by their fields, written once, and the wall time of what filled them."""

import json

import pytest

from seal_jax.errors import UserError
from seal_jax.runs import keys
from seal_jax.runs.keys import ANSWER, EVALUATION, REWARD, TRAIN, UNTRAINED, Stage
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.recorder import Recorder

STAGE = Stage(TRAIN, "SEAL", 2, REWARD)


def trial(sample, **more):
    return {**STAGE.fields, "item": "x", "sample": sample, "retrain": 0, **more}


KEYS = [STAGE.trial("x", sample, 0) for sample in range(4)]


@pytest.fixture
def used():
    """Counters of an engine, which tests raise."""
    return {"real_tokens": 10, "seconds_in": 1.5}


@pytest.fixture
def recorder(tmp_path, used):
    made = Recorder(tmp_path, lambda: dict(used))
    yield made
    made.close()


# ---------------------------------------------------------------- a ledger


def test_records_are_found_by_their_fields_also_in_the_next_process(tmp_path):
    path = tmp_path / "trials.jsonl"
    ledger = Ledger(path, keys.TRIAL)
    assert not ledger.has_all(KEYS[:1]) and ledger.has_all([])
    ledger.append([trial(0, loss=1.0), trial(1, loss=2.0)])
    ledger.append([trial(1, loss=9.0), trial(2, loss=3.0)])  # the second one is there already
    ledger.close()
    again = Ledger(path, keys.TRIAL)
    for one in (ledger, again):
        assert one.has_all(KEYS[:3]) and not one.has_all(KEYS)
        assert [one[key]["loss"] for key in KEYS[:3]] == [1.0, 2.0, 3.0]
        assert [record["loss"] for record in one.all()] == [1.0, 2.0, 3.0]
    again.append([trial(3, loss=4.0)])
    again.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["loss"] for line in lines] == [1.0, 2.0, 3.0, 4.0]
    assert [line["_group"] for line in lines] == [[0, 0, 2], [0, 1, 2], [1, 0, 1], [2, 0, 1]]


def test_keys_of_records_are_keys_of_stages(tmp_path):
    ledger = Ledger(tmp_path / "x.jsonl", keys.TRIAL)
    assert ledger.key(trial(1)) == STAGE.trial("x", 1, 0) == (TRAIN, "SEAL", 2, REWARD, "x", 1, 0)
    edit = {**STAGE.fields, "item": "x", "sample": 1}
    assert Ledger(tmp_path / "y.jsonl", keys.EDIT).key(edit) == STAGE.edit("x", 1) == (TRAIN, "SEAL", 2, "x", 1)


def test_stages_in_words():
    assert keys.title(STAGE) == "SEAL, round 2: inner loops"
    assert keys.title(Stage(EVALUATION, "base", 0, ANSWER)) == "base, evaluation: answers"
    assert keys.title(Stage(EVALUATION, "sentences", 0, keys.TEACH)) == "sentences: training on all passages"
    assert keys.title(Stage(EVALUATION, keys.OWN, 1, keys.TEACH)) == "1 self-edit each: training"
    assert keys.title(Stage(TRAIN, "random", 1, UNTRAINED)) == "random, round 1: asking the untrained student"
    assert keys.title(Stage(TRAIN, "random", 1)) == "random, round 1: writing self-edits"


# ---------------------------------------------------------------- the recorder


def test_each_kind_of_record_has_its_file(recorder, tmp_path):
    recorder.rows.append([{"arm": "base", "round": 0}])
    recorder.items.append([{"split": TRAIN, "item": "x"}])
    recorder.edits.append([{**STAGE.fields, "item": "x", "sample": 0}])
    recorder.trials.append([trial(0)])
    recorder.rollouts.append([{"arm": "SEAL", "round": 1, "item": "x"}])
    recorder.phases.append([{**STAGE.fields, "began": 1.0}])
    names = {path.name for path in tmp_path.glob("*.jsonl") if path.read_text().count("\n") == 1}
    assert names == {f"{kind}.jsonl" for kind in ("rows", "items", "self_edits", "trials", "rollouts", "phases")}
    assert recorder.checkpoints == str(tmp_path / "checkpoints")


def test_items_are_those_with_which_the_run_began(recorder, tmp_path):
    items = [{"split": TRAIN, "item": "x", "title": "One"}, {"split": EVALUATION, "item": "y", "title": "Two"}]
    recorder.declare_items(items)
    recorder.declare_items([dict(item) for item in items])
    assert recorder.items.all() == items
    for others in (items[:1], items[::-1], [items[0], items[1] | {"title": "Other"}]):
        with pytest.raises(UserError, match="the items are not those in .*items.jsonl"):
            recorder.declare_items(others)


def test_groups_are_drawn_into_the_ledger_with_the_time_they_took(recorder, used, capsys):
    def groups():
        used["real_tokens"] += 5
        yield [trial(0, reward=1.0, loss=2.0, correct=[True, False, None]), trial(1, reward=None, loss=4.0)]
        assert recorder.trials.has_all(KEYS[:2])  # on disk before the next group is computed
        used["seconds_in"] += 0.123
        yield [trial(2, reward=2.0)]

    told = []
    recorder.observers.append(lambda *what: told.append(what))
    recorder.fill(STAGE, recorder.trials, KEYS[:3], groups(), lambda record: record["reward"])
    assert recorder.trials.has_all(KEYS[:3])
    assert told == [(STAGE, 2, {"reward": 1.0, "loss": 3.0, "accuracy": 0.5}), (STAGE, 3, {"reward": 1.5})]
    [phase] = recorder.phases.all()
    assert {name: phase[name] for name in STAGE.fields} == STAGE.fields
    assert phase["real_tokens"] == 5 and phase["seconds_in"] == 0.12 and 0 <= phase["seconds"] < 60
    out = capsys.readouterr().err
    assert "SEAL, round 2: inner loops: 3/3" in out and out.rstrip().endswith("reward 1.500")


def test_progress_counts_what_was_there_and_shows_no_reward_where_there_is_none(recorder, capsys):
    recorder.trials.append([trial(0)])
    recorder.fill(STAGE, recorder.trials, KEYS[:2], iter([[trial(1)]]))
    out = capsys.readouterr().err
    assert "inner loops: 2/2" in out and "reward" not in out
    recorder.fill(STAGE, recorder.trials, KEYS[:3], iter([[trial(2)]]), lambda record: None)
    assert "reward" not in capsys.readouterr().err


def test_what_is_there_is_not_drawn_again(recorder):
    recorder.trials.append([trial(0)])

    def groups():
        raise AssertionError("computed again")
        yield

    recorder.fill(STAGE, recorder.trials, KEYS[:1], groups())
    assert recorder.phases.all() == []


def test_a_phase_that_was_stopped_is_recorded_with_its_facts(recorder):
    with pytest.raises(KeyboardInterrupt), recorder.phase(STAGE) as facts:
        facts["loss"] = 0.5
        raise KeyboardInterrupt
    with recorder.phase(STAGE):
        pass
    first, second = recorder.phases.all()
    assert first["loss"] == 0.5 and "loss" not in second and first["began"] < second["began"]


def test_a_closed_recorder_writes_no_more(tmp_path):
    recorder = Recorder(tmp_path, dict)
    recorder.close()
    ledgers = (recorder.items, recorder.rows, recorder.edits, recorder.trials, recorder.rollouts, recorder.phases)
    record = {**trial(0), "began": 1.0}
    for ledger in ledgers:
        with pytest.raises(ValueError, match="closed"):
            ledger.append([record])


def test_progress_of_a_stage_tells_units_and_what_the_engines_do(tmp_path):
    recorder = Recorder(tmp_path, dict, lambda: "training step (3 of 9)")
    with recorder.progress(STAGE, 8, done=2) as progress:
        assert progress.title == keys.title(STAGE) and (progress.done, progress.total) == (2, 8)
        assert progress.figures().endswith("training step (3 of 9)")
    recorder.close()
