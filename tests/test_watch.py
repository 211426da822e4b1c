"""What is made of the records while a run goes on: curves, sheets and the page, on the first host only."""

import dataclasses
import json

import made_up_run
import pytest
from made_up_run import append
from test_metrics import read_events

from seal_jax import config as config_lib
from seal_jax.report import watch as module
from seal_jax.report.recorded import load
from seal_jax.report.watch import Watch, draw_sheets
from seal_jax.runs.keys import Stage
from seal_jax.runs.records import read

CONFIG = config_lib.from_dict({"domain": "knowledge"})
GRID, OTHER = [[0, 1], [2, 3]], [[4, 5, 6]]
RIGHT = "[[4 5 6]]"


@pytest.fixture
def folder(tmp_path):
    return made_up_run.write(tmp_path / "run", items=2)


@pytest.fixture
def arc(folder):
    """A run with one task: its first trial has both attempts, its second none; another one failed."""
    grids = {"train": [[GRID, OTHER]], "test": [[GRID, OTHER], [OTHER, GRID]]}
    append(folder, "items", [{"split": split, "item": "1a2b", "title": "1a2b", "context": "", "questions": [],
                              "grids": grids} for split in ("train", "evaluation")])  # fmt: skip
    found = next(t for t in read(folder / "trials.jsonl") if t["split"] == "evaluation")
    found |= {"arm": "SEAL", "round": 1, "item": "1a2b"}
    answers = [f"[[0 1]\n [2 3]]\n\n{RIGHT}", ""]
    append(folder, "trials", [found | {"sample": 1, "answers": [RIGHT, RIGHT]}, found | {"answers": answers},
                              found | {"round": 2, "answers": None, "correct": None}])  # fmt: skip
    return folder


def test_after_a_row_its_points_are_written_and_the_page_is_there(folder):
    with Watch(folder, CONFIG) as watch:
        watch.after_rows([("base", 0)])
        names = {(point["name"], point["step"]) for point in read(folder / "metrics.jsonl")}
        assert ("accuracy/base", 0) in names and not any("SEAL" in name for name, _ in names)
        assert (folder / "report.html").exists()
        (folder / "report.html").unlink()
        watch.after_rows([("SEAL", 1)])
        assert not (folder / "report.html").exists()  # it would be the same
        append(folder, "phases", read(folder / "phases.jsonl")[:1])
        watch.after_rows([("SEAL", 1)])
        assert (folder / "report.html").exists()
    events = read_events(folder / "metrics")
    sent = [(value.tag, event.step) for event in events for value in event.summary.value]
    assert len(sent) == len(set(sent)) and {("accuracy/base", 0), ("accuracy/SEAL", 1)} <= set(sent)
    with Watch(folder, CONFIG) as watch:  # a new start begins with the rows that are there
        watch.after_rows([("base", 0)])
    assert [(point["name"], point["step"]) for point in read(folder / "metrics.jsonl")] == sent
    assert not (folder / "sheets").exists()


def test_points_come_while_a_stage_goes_on(folder):
    stage = Stage("train", "SEAL", 1, "reward")
    with Watch(folder, CONFIG) as watch:
        watch.during(stage, 4, {"reward": 0.25, "loss": 1.5})
        assert (4, "running/SEAL_1_train_reward/reward", 0.25) in points(folder)  # on disk before the stage ends
        watch.during(stage, 8, {"reward": 0.5})
    assert (8, "running/SEAL_1_train_reward/reward", 0.5) in points(folder)


def points(folder):
    return [(event.step, value.tag, value.simple_value)
            for event in read_events(folder / "metrics") for value in event.summary.value]  # fmt: skip


def test_other_hosts_write_nothing(folder, monkeypatch):
    before = {file.name for file in folder.iterdir()}
    monkeypatch.setattr(module, "is_first", lambda: False)
    monkeypatch.setattr("seal_jax.runs.ledger.is_first", lambda: False)
    monkeypatch.setattr("seal_jax.runs.ledger.from_first", lambda value: b"[]")
    with Watch(folder, CONFIG) as watch:
        watch.after_rows([("base", 0)])
        watch.during(Stage("train", "SEAL", 1, "reward"), 4, {"reward": 0.25})
    assert {file.name for file in folder.iterdir()} == before


def test_wandb_gets_the_config(folder, monkeypatch):
    made = []
    monkeypatch.setattr(module, "Metrics", lambda *arguments: made.append(arguments))
    machine = dataclasses.replace(CONFIG.metrics, wandb_project="p")
    Watch(folder, dataclasses.replace(CONFIG, metrics=machine)).close()
    ((path, project, config),) = made
    assert path == folder / "metrics" and project == "p" and json.loads(json.dumps(config))["outer"]["rounds"] == 2


def titles(monkeypatch, arc, *row):
    """The titles of the pictures in the one sheet that is drawn of a row."""
    drawn = []
    monkeypatch.setattr(module.sheets, "save", lambda path, figure: drawn.append((path, figure)))
    draw_sheets(arc, load(arc), *row)
    ((path, figure),) = drawn
    assert path == arc / "sheets" / f"1a2b--seal-round-{row[1]}.png"
    return figure.get_suptitle(), [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_sheets_show_the_attempts_of_the_first_trial(arc, monkeypatch):
    title, found = titles(monkeypatch, arc, "SEAL", 1)
    assert title == "1a2b: SEAL, round 1"
    assert sorted(found) == sorted(["input 1", "output 1", *["test input", "truth"] * 2, "attempt 1: wrong",
                                    "attempt 2: right", "attempt 1: none", "attempt 2: none"])  # fmt: skip


def test_a_failed_trial_has_a_sheet_without_attempts(arc, monkeypatch):
    _, found = titles(monkeypatch, arc, "SEAL", 2)
    assert found.count("attempt 1: none") == found.count("attempt 2: none") == 2


def test_sheets_are_drawn_once_and_the_page_links_them(arc):
    with Watch(arc, CONFIG) as watch:
        watch.after_rows([("SEAL", 1)])
        watch.after_rows([("random", 1)])  # has no trial of the task
        file = arc / "sheets" / "1a2b--seal-round-1.png"
        assert [found.name for found in (arc / "sheets").iterdir()] == [file.name]
        file.write_bytes(b"drawn before")
        watch.after_rows([("SEAL", 1)])
    assert file.read_bytes() == b"drawn before"
    assert f'<a href="sheets/{file.name}">SEAL, round 1</a>' in (arc / "report.html").read_text()


def test_nothing_is_drawn_in_a_bucket(arc, monkeypatch):
    monkeypatch.setattr(module, "in_bucket", lambda folder: True)
    draw_sheets(arc, load(arc), "SEAL", 1)
    assert not (arc / "sheets").exists()
