"""The whole loop on a tiny random model: what is recorded and chosen, and that a run that was killed is the same."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from test_remote_judge import Endpoint, completion, error

from seal_jax.config import from_dict
from seal_jax.engine.engine import Engine
from seal_jax.errors import UserError
from seal_jax.experiments import experiment, judging, single_passage
from seal_jax.judges import remote
from seal_jax.outer import rest_em
from seal_jax.runs import checkpoint, table
from seal_jax.runs.records import read

ROWS = ["base", "passage only", "self-edits, no RL", "SEAL, round 1", "SEAL, round 2", "random, round 1",
        "random, round 2"]  # fmt: skip


def lines_of(json_file: Path) -> list[dict]:
    """Records without the reader that is under test."""
    return [json.loads(line) for line in json_file.read_text().splitlines()]


def stages(workdir: Path, name: str) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for record in lines_of(workdir / f"{name}.jsonl"):
        found.setdefault(record["stage"], []).append(record)
    return found


# ---------------------------------------------------------------- what a run leaves


def test_the_table_is_what_the_records_say(whole):
    values, workdir, lines = whole
    assert [line.name for line in lines] == ROWS
    trials = stages(workdir, "trials")
    means = {}
    for line in lines:
        rows: dict[str, list[float]] = {}
        for trial in trials[f"evaluation: {line.name}"]:
            rows.setdefault(trial["passage"], []).append(sum(trial["log_likelihood"]) / 3)
        means[line.name] = {passage: sum(v) / len(v) for passage, v in rows.items()}
        found = line.measures["log_likelihood"]
        assert found.mean == pytest.approx(sum(means[line.name].values()) / 2) and found.count == 2
        gains = [means[line.name][p] - means["base"][p] for p in means["base"]]
        assert line.name == "base" or line.over_base["log_likelihood"].mean == pytest.approx(sum(gains) / 2)
    assert [len(trials[f"evaluation: {row}"]) for row in ROWS] == [2, 2, 4, 4, 4, 4, 4]
    assert lines[-1].measures["log_likelihood"].mean != lines[2].measures["log_likelihood"].mean  # it learned something


def test_everything_is_recorded(whole):
    values, workdir, _ = whole
    edits, trials = stages(workdir, "self_edits"), stages(workdir, "trials")
    assert {"round 1", "SEAL, round 2", "random, round 2"} <= edits.keys() and "random, round 1" not in edits
    assert all(len(found) == 4 for found in edits.values())
    assert "random, round 2: reward" not in trials  # the control needs no rewards
    asked = trials["evaluation: base"][0]
    assert len(asked["answers"]) == len(asked["correct"]) == len(asked["log_likelihood"]) == 3
    assert trials["round 1: reward"][0]["answers"] is None  # a likelihood reward generates nothing
    assert sum(trials["round 1: reward"][0]["heldout"]) == 1 and not any(asked["heldout"])
    passages = {record["passage"]: record for record in lines_of(workdir / "passages.jsonl")}
    assert {trial["passage"] for found in trials.values() for trial in found} == passages.keys()
    phases = read(workdir / "phases.jsonl")
    assert [p["lessons"] for p in phases if "finetune" in p["phase"]] == [2, 2, 2, 2]
    assert all(p["loss"] > 0 for p in phases if "finetune" in p["phase"])
    assert (workdir / "report.html").stat().st_size > 50_000 and list((workdir / "metrics").glob("events.*"))
    points = {(p["name"], p["step"]) for p in read(workdir / "metrics.jsonl")}
    assert {("reward/SEAL/best", 2), ("log_likelihood/random", 1), ("real_token_fraction/SEAL", 2)} <= points


def test_rewards_are_gains_on_the_questions_that_count(whole):
    _, workdir, _ = whole
    trials = stages(workdir, "trials")
    base = {t["passage"]: t for t in trials["round 1: base"]}
    found = {(t["passage"], t["sample"]): t for t in trials["round 1: reward"]}

    def mean(trial, heldout):
        kept = [v for v, h in zip(trial["log_likelihood"], trial["heldout"], strict=True) if h == heldout]
        return sum(kept) / len(kept)

    selections = [s for s in lines_of(workdir / "selections.jsonl") if s["arm"] == "SEAL" and s["round"] == 1]
    assert len(selections) == 2
    for record in selections:
        for name, heldout in (("rewards", False), ("heldout_rewards", True)):
            start = mean(base[record["passage"]], heldout)
            gains = [mean(found[record["passage"], k], heldout) - start for k in (0, 1)]
            assert record[name] == pytest.approx(gains)
        assert record["chosen"] == [int(np.argmax(record["rewards"]))] and record["base"] == 0.0


def test_the_policy_of_a_round_is_the_base_with_all_lessons_merged(whole, actors, monkeypatch):
    values, workdir, _ = whole
    monkeypatch.setattr(experiment, "load_actor", actors)
    config = from_dict(values)
    lora = config.outer.sft
    learned = [checkpoint.load(workdir / "checkpoints" / "SEAL", step) for step in (1, 2)]
    assert checkpoint.steps(workdir / "checkpoints" / "random") == [1, 2]
    actor = actors(values["model"]["policy"], config)
    kernel = np.asarray(actor.base["layers"]["q_proj"]["kernel"], np.float64)
    for tree in learned:
        factors = tree["layers"]["q_proj"]
        assert np.abs(factors["B"]).max() > 0
        kernel = kernel + np.einsum("LDR,LRF->LDF", factors["A"], factors["B"]) * lora.alpha / lora.rank
    setup = single_passage.prepare(config, single_passage.epath.Path(workdir))
    policy = rest_em.run(setup, lambda row: None)
    np.testing.assert_allclose(policy.base["layers"]["q_proj"]["kernel"], kernel, atol=1e-5)


# ---------------------------------------------------------------- stopped and continued


def test_a_finished_run_computes_nothing_again(whole, fast, monkeypatch, capsys):
    values, workdir, lines = whole
    before = {file: file.read_bytes() for file in workdir.glob("*.jsonl")}
    for name in ("finetune", "teach", "generate", "log_likelihood"):
        monkeypatch.setattr(Engine, name, None)
    assert repr(tiny_run.run(values, workdir)) == repr(lines)
    assert before == {file: file.read_bytes() for file in workdir.glob("*.jsonl")}
    assert "continuing" in capsys.readouterr().out


@pytest.mark.parametrize("half", [False, True])
def test_killed_at_every_group_of_records(whole, fast, home, tmp_path, monkeypatch, half):
    values, workdir, lines = whole
    trained = []
    for name in ("finetune", "teach"):
        function = getattr(Engine, name)
        monkeypatch.setattr(Engine, name, lambda *args, do=function: trained.append(args) or do(*args))
    tiny_run.run(values, tmp_path / "again")
    at_once, lost = len(trained), []
    for count in (1, 2, 3, 5, 4, 7, 6, 9, 10, 8, 12, 11, 10_000):
        with monkeypatch.context() as patch:
            tiny_run.kill_at(patch, count + half, half, lost)
            try:
                found = tiny_run.run(values, tmp_path / "run")
            except tiny_run.Killed:
                continue
        break
    assert len(lost) >= 8 and repr(found) == repr(lines)
    again = sum(b'"log_likelihood"' in group or b"finetune the policy" in group for group in lost)
    assert len(trained) - at_once == at_once + again  # nothing was trained twice but what was lost
    assert tiny_run.records(tmp_path / "run") == tiny_run.records(workdir)
    same_checkpoints(tmp_path / "run", workdir)


@pytest.mark.parametrize("saved", [False, True])
def test_killed_before_and_after_a_checkpoint(whole, fast, tmp_path, monkeypatch, saved):
    values, workdir, lines = whole

    def dying(folder, step, tree):
        if saved:
            save(folder, step, tree)
        raise tiny_run.Killed

    save = checkpoint.save
    for _ in range(3 if saved else 1):  # each start makes one more checkpoint, and dies
        with monkeypatch.context() as patch, pytest.raises(tiny_run.Killed):
            patch.setattr(checkpoint, "save", dying)
            tiny_run.run(values, tmp_path / "run")
    assert repr(tiny_run.run(values, tmp_path / "run")) == repr(lines)
    assert tiny_run.records(tmp_path / "run") == tiny_run.records(workdir)
    same_checkpoints(tmp_path / "run", workdir)


def same_checkpoints(one: Path, other: Path, arms=("SEAL", "random")) -> None:
    for arm in arms:
        assert checkpoint.steps(one / "checkpoints" / arm) == checkpoint.steps(other / "checkpoints" / arm) != []
        for step in checkpoint.steps(one / "checkpoints" / arm):
            trees = [checkpoint.load(run / "checkpoints" / arm, step) for run in (one, other)]
            jax.tree.map(np.testing.assert_array_equal, *trees)


def test_records_and_checkpoints_that_were_lost_are_made_again(whole, fast, tmp_path):
    values, workdir, lines = whole
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "random")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "SEAL" / "2")
    for name in ("self_edits", "trials", "selections"):
        file = tmp_path / "run" / f"{name}.jsonl"
        kept = file.read_bytes()[: -len(file.read_bytes()) // 3]
        file.write_bytes(kept)
    assert repr(tiny_run.run(values, tmp_path / "run")) == repr(lines)
    assert tiny_run.records(tmp_path / "run") == tiny_run.records(workdir)
    same_checkpoints(tmp_path / "run", workdir)


DYING = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from seal_jax import main
from seal_jax.runs.records import Records

append = Records._append_bytes

def dying(self, data):
    if b"round 1: reward" in data:
        os.write(self._file, data[: len(data) * 2 // 3])
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, data)

Records._append_bytes = dying
sys.exit(main.main(["seal_jax", *sys.argv[2:]]))
"""


def test_kill_9_and_the_same_command_again(fast, home, tmp_path):
    """In processes of their own, through the command line; the first dies with a part of a group of records written."""
    values = tiny_run.tiny_values(home, outer={"random_control": False})
    tiny_run.run(values, tmp_path / "whole")
    config = tiny_run.config_file(tmp_path / "config.py", values)
    arguments = [f"--config={config}", f"--workdir={tmp_path / 'run'}"]
    command = [sys.executable, "-c", DYING, str(Path(__file__).parent), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert len(read(tmp_path / "run" / "trials.jsonl")) == 10  # base 2, passage only 2, no RL 4, base of round 1 2
    result = subprocess.run([sys.executable, "-m", "seal_jax.main", *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert tiny_run.records(tmp_path / "run") == tiny_run.records(tmp_path / "whole")
    same_checkpoints(tmp_path / "run", tmp_path / "whole", arms=("SEAL",))
    # What a user sees: tables on stdout, plain lines of progress and nothing else on stderr.
    assert "Log-likelihood of the gold answers" in result.stdout and "report.html" in result.stdout
    assert "continuing" in result.stdout and max(map(len, result.stdout.splitlines())) < 200
    assert all(": " in line and "/" in line for line in result.stderr.splitlines()), result.stderr


def test_another_config_and_other_passages_are_refused(whole, fast, home, tmp_path):
    values, workdir, _ = whole
    shutil.copytree(workdir, tmp_path / "run")
    with pytest.raises(UserError, match="outer.samples: 2 -> 3"):
        tiny_run.run(tiny_run.tiny_values(home, outer={"rounds": 2, "samples": 3}), tmp_path / "run")
    elsewhere = tmp_path / "train.json"
    shutil.copy(home / "train.json", elsewhere)
    moved = tiny_run.tiny_values(home, outer={"rounds": 0}, data={"train": str(elsewhere)})
    tiny_run.run(moved, tmp_path / "other")
    items = json.loads(elsewhere.read_text())
    items[0]["questions"][0]["answer"] = "Zinc"
    elsewhere.write_text(json.dumps(items))
    with pytest.raises(UserError, match="passages are not those in"):
        tiny_run.run(moved, tmp_path / "other")


# ---------------------------------------------------------------- other kinds of reward, selection and roles


def one_round(home, workdir, **changes):
    outer = {"rounds": 1, "random_control": False} | changes.pop("outer", {})
    lines = tiny_run.run(tiny_run.tiny_values(home, outer=outer, **changes), workdir)
    return lines, stages(workdir, "trials"), [s for s in lines_of(workdir / "selections.jsonl") if s["arm"] == "SEAL"]


def test_accuracy_reward_with_a_judge_of_our_own(fast, home, tmp_path, monkeypatch):
    def judge(items):
        return [len(item.answer) % 3 == 0 for item in items]

    judge.name = "length"
    monkeypatch.setattr(judging, "make", lambda config, fallback: judge)
    reward = {"accuracy_weight": 1.0, "likelihood_weight": 0.0, "retrains": 2}
    _, trials, selections = one_round(home, tmp_path, reward=reward, data={"heldout_fraction": 0.0})
    found: dict[tuple, list[float]] = {}
    for trial in trials["round 1: reward"]:
        assert trial["correct"] == [len(answer) % 3 == 0 for answer in trial["answers"]]
        found.setdefault((trial["passage"], trial["sample"]), []).append(sum(trial["correct"]) / 3)
    assert all(len(each) == 2 for each in found.values())
    base = {t["passage"]: sum(t["correct"]) / 3 for t in trials["round 1: base"]}
    for record in selections:
        assert record["rewards"] == pytest.approx([sum(found[record["passage"], k]) / 2 for k in (0, 1)])
        assert record["base"] == pytest.approx(base[record["passage"]]) and record["heldout_rewards"] == [None, None]


def test_all_above_the_base_are_chosen_and_where_none_is_nobody_learns(fast, home, tmp_path, monkeypatch):
    outer = {"selection": "above_base"}
    _, _, selections = one_round(home, tmp_path / "a", outer=outer)
    for record in selections:
        assert record["chosen"] == [k for k, reward in enumerate(record["rewards"]) if reward > record["base"]]
    monkeypatch.setattr(rest_em, "reward", lambda *_: 0.0)
    monkeypatch.setattr("seal_jax.outer.reward.reward", lambda *_: 0.0)
    lines, trials, selections = one_round(home, tmp_path / "b", outer=outer)
    assert [record["chosen"] for record in selections] == [[], []]
    assert not checkpoint.steps(tmp_path / "b" / "checkpoints" / "SEAL")
    rows = {line.name: line.measures["log_likelihood"].mean for line in lines}
    assert rows["SEAL, round 1"] == rows["self-edits, no RL"]  # the policy is what it was


def test_random_selection_measures_no_rewards(fast, home, tmp_path):
    _, trials, selections = one_round(home, tmp_path, outer={"selection": "random"})
    assert "round 1: reward" not in trials and all(len(record["chosen"]) == 1 for record in selections)


def test_the_student_may_be_another_model(fast, home, tmp_path, whole):
    values, workdir, _ = whole
    model = {"policy": str(home / "policy"), "student": str(home / "student")}
    lines, trials, _ = one_round(home, tmp_path, model=model)
    own = stages(workdir, "trials")
    assert trials["evaluation: base"][0]["log_likelihood"] != own["evaluation: base"][0]["log_likelihood"]
    edits, own_edits = stages(tmp_path, "self_edits"), stages(workdir, "self_edits")
    assert [e["text"] for e in edits["round 1"]] == [e["text"] for e in own_edits["round 1"]]  # the policy's
    rows = {line.name: line.measures["log_likelihood"].mean for line in lines}
    assert rows["SEAL, round 1"] != rows["self-edits, no RL"]
    learned = checkpoint.load(tmp_path / "checkpoints" / "SEAL", 1)
    assert np.abs(learned["layers"]["q_proj"]["B"]).max() > 0


def test_the_student_may_be_the_policy_before_round_1(fast, home, tmp_path, whole):
    model = {"policy": str(home / "policy"), "student": "initial"}
    _, trials, _ = one_round(home, tmp_path, model=model, outer={"rounds": 2})
    own = stages(whole[1], "trials")
    for found, same in ((trials, True), (own, False)):
        first, second = (
            {trial["passage"]: trial["log_likelihood"] for trial in found[stage]}
            for stage in ("round 1: base", "SEAL, round 2: base")
        )
        assert (first == second) == same


def test_verdicts_that_the_judge_did_not_give_are_reported(fast, home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("TINY_KEY", "not-a-secret")
    asked: list[str] = []

    def script(answer, before):
        asked.append(answer)
        return (error(503), completion("yes"), completion("no"))[len(answer) % 3]

    server = Endpoint(script)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    reward = {"judge": "remote", "judge_url": server.url, "judge_model": "m", "judge_key": "TINY_KEY",
              "accuracy_weight": 1.0}  # fmt: skip
    lines, trials, selections = one_round(home, tmp_path, reward=reward)
    server.shutdown()
    server.server_close()
    expected = {0: None, 1: True, 2: False}
    rows = [t for found in trials.values() for t in found]
    for trial in rows:
        assert trial["judge"] == "remote:m"
        for answer, verdict in zip(trial["answers"], trial["correct"], strict=True):
            assert verdict is (expected[len(answer) % 3] if answer.strip() else False)
    missing = sum(v is None for t in rows if t["stage"].startswith("evaluation") for v in t["correct"])
    assert missing and sum(line.ungraded for line in lines) == missing
    out = capsys.readouterr().out
    assert "Answers without a verdict, left out of every mean" in out and "judge remote:m" in out
    assert "not-a-secret" not in out + "".join(f.read_text() for f in tmp_path.glob("*.json*"))
    for line in lines:
        known = table.per_passage([t for t in trials[f"evaluation: {line.name}"]], "accuracy")
        assert line.measures["accuracy"].count == len(known)


def test_nothing_gradable_teaches_nothing(fast, home, tmp_path, monkeypatch):
    def judge(items):
        return [None] * len(items)

    judge.name = "silent"
    monkeypatch.setattr(judging, "make", lambda config, fallback: judge)
    reward = {"accuracy_weight": 1.0, "likelihood_weight": 0.0}
    lines, _, selections = one_round(home, tmp_path, reward=reward)
    assert [record["rewards"] for record in selections] == [[None, None]] * 2
    assert [record["chosen"] for record in selections] == [[], []]
    assert all(np.isnan(line.measures["accuracy"].mean) and line.ungraded == line.answers for line in lines)
