"""From a config to the pieces of a run, and what a run prints, reports and exports."""

import json
import shutil

import numpy as np
import tiny_run
from etils import epath

from seal_jax.config import Judge, from_dict
from seal_jax.domains.domain import Answered
from seal_jax.engine.recipe import recipe
from seal_jax.experiments import assemble, judging
from seal_jax.judges import lexical
from seal_jax.model.lora import merge
from seal_jax.model.pretrained import load
from seal_jax.report import html, recorded, tables
from seal_jax.runs import checkpoint
from seal_jax.runs.records import read


def test_what_is_printed_is_the_table(fast, whole, capsys):
    values, workdir = whole
    tiny_run.run(values, workdir)
    out = capsys.readouterr().out
    final = next(line for line in tables.lines(recorded.load(epath.Path(workdir))) if line.name == "SEAL, round 2")
    for part in ("2 passages to learn from, 2 to evaluate on; judge lexical", "programs compiled", "accuracy, %",
                 "SEAL, round 1, held out", "all phases", "over random", f"Report: {workdir / 'report.html'}",
                 f"{final.measures['log_likelihood'].mean:.2f} ± "):  # fmt: skip
        assert part in out
    assert out.count("base, evaluation: answers") == 1


def test_the_report_is_written_after_every_row(home, actors, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(assemble, "load_actor", actors)
    monkeypatch.setattr(html, "write", lambda path: written.append(read(path / "trials.jsonl")[-1]))
    tiny_run.run(tiny_run.tiny_values(home), tmp_path)
    rules = [("base", 0), ("passage in context", 0), ("passage only", 0), ("sentences", 0)]
    rows = [*rules, ("SEAL", 0), ("SEAL", 1), ("random", 1)]
    assert [(trial["arm"], trial["round"]) for trial in written] == rows


def test_prepare_takes_what_the_config_says(fast, home, tmp_path):
    values = tiny_run.tiny_values(home, data={"train": "shipped:train", "train_items": 4, "shuffle_seed": -1})
    setup = assemble.prepare(from_dict(values), epath.Path(tmp_path))
    assert [len(setup.train), len(setup.evaluation)] == [4, 2] and setup.student is None
    assert all(sum(q.heldout for q in p.questions) == 2 for p in setup.train)  # 0.3 of 5, rounded
    assert not any(q.heldout for p in setup.evaluation for q in p.questions)
    assert setup.domain.grader == lexical.grade.name and setup.domain.rules.max_sequences == 2


def test_a_local_judge_weighs_yes_against_no(fast, home, actors):
    values = tiny_run.tiny_values(home)
    config = from_dict(values)
    judge = judging.make(Judge("local", str(home / "student")), config, actors(values["model"]["policy"], config))
    items = [Answered("What is it?", "Bo0", answer) for answer in ("Bo0", "no idea", "")]
    verdicts = judge(items)
    assert judge.name == f"local:{home / 'student'}" and verdicts[2] is False
    assert all(isinstance(verdict, bool) for verdict in verdicts) and verdicts == judge(items)


def test_a_local_judge_without_a_model_is_the_policy_not_the_student(fast, home, actors, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(judging, "yes_no", lambda actor: asked.append(actor) or (lambda prompts: []))
    model = {"policy": str(home / "policy"), "student": str(home / "student")}
    judges = {"reward": {"judge": {"kind": "local"}}, "evaluation": {"judge": {"kind": "local"}}}
    config = from_dict(tiny_run.tiny_values(home, model=model, **judges))
    setup = assemble.prepare(config, epath.Path(tmp_path))
    assert asked == [setup.policy, setup.policy] and setup.student is not setup.policy


def test_export_of_one_round_is_an_adapter_and_a_model(fast, home, tmp_path):
    values = tiny_run.tiny_values(home, outer={"rounds": 1, "random_control": False}, export={"policy": True})
    tiny_run.run(values, tmp_path)
    config = from_dict(values)
    learned = checkpoint.load(tmp_path / "checkpoints" / "SEAL", 1)
    base = load(str(home / "policy"), "float32").params
    expected = merge(base, learned, recipe(config.outer.sft).lora)
    exported = load(str(tmp_path / "policy"), "float32").params
    for name in ("q_proj", "down_proj"):
        ours = exported["layers"][name]["kernel"]
        np.testing.assert_allclose(ours, expected["layers"][name]["kernel"], atol=1e-6)
        assert np.abs(ours - base["layers"][name]["kernel"]).max() > 1e-4
    names = {file.name for file in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("[ap]*/*")}
    tiny_run.run(values, tmp_path)  # again: nothing is exported twice, and nothing is in the way
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.glob("[ap]*/*")}


def test_more_rounds_export_the_model_alone(fast, home, tmp_path, whole):
    values, workdir = whole
    shutil.copytree(workdir, tmp_path / "run")
    tiny_run.run(values | {"export": {"policy": True}}, tmp_path / "run")
    assert (tmp_path / "run" / "policy" / "model.safetensors").exists() and not (tmp_path / "run" / "adapter").exists()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["export"] == {"policy": True}
