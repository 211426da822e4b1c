"""Few-shot learning as the outer loop sees it: lessons, questions, verdicts, resampling, and a whole tiny run."""

import json
from types import SimpleNamespace

import pytest
import tiny_run
from test_arc_training_set import made_up

from seal_jax.config import Sampling
from seal_jax.engine.engine import Engine
from seal_jax.errors import UserError
from seal_jax.outer import edits, select, trials
from seal_jax.runs.records import read
from seal_jax.domains.arc import edit, text
from seal_jax.domains.arc.grids import ArcTask
from seal_jax.domains.arc.training_set import Limits
from seal_jax.domains.arc.fewshot import Fewshot
from seal_jax.domains.domain import Graded, Lesson

TASK = made_up(3)
VALID = edit.canonical(edit.ORACLE)
FEWSHOT = Fewshot(text.Form(), Limits(examples=6, tokens=400, steps=6), batch=2, seed=0)


def test_a_failed_self_edit_is_wrong_whatever_was_answered():
    graded = Graded(["[[1]]"], [True])
    assert trials._shown(graded, Lesson())["correct"] == [True]
    assert trials._shown(graded, Lesson(failure="too long"))["correct"] == [False]


def test_every_correct_self_edit_is_selected():
    assert select.correct([1.0, 0.5, None, 1.0]) == [0, 3] and select.correct([0.0, None]) == []


# ---------------------------------------------------------------- sampled again until valid


class Scripted:
    """A policy that writes `texts[item][sample]` in turn, one attempt after the other."""

    chat = True

    def __init__(self, texts):
        self.texts, self.asked, self.engine, self.base = texts, [], self, None
        self.settings = SimpleNamespace(decode_rows=4)
        self.tokenizer = SimpleNamespace(encode_prompt=lambda prompt: prompt.text, decode=lambda tokens: tokens[0])

    def rules(self, *_):
        return None

    stopper = rules

    def generate(self, base, adapters, lora, prompts, seeds, *_):
        self.asked.append([seed for lane in seeds[0] for seed in lane])
        out = []
        for prompt, lane in zip(prompts[0], seeds[0], strict=True):
            out.append([[self.texts[prompt, seed[3]].pop(0)] for seed in lane])
        return [out]


def test_invalid_self_edits_are_sampled_again_up_to_a_limit(monkeypatch):
    tasks = [ArcTask(name, TASK.train, TASK.test) for name in "ab"]
    monkeypatch.setattr(Fewshot, "edit_prompt", lambda self, task, chat: SimpleNamespace(text=task.id))
    texts = {("a", 0): [VALID], ("a", 1): ["bad", "worse", VALID], ("b", 0): ["bad"] * 9, ("b", 1): ["bad", VALID]}
    policy = Scripted(texts)
    plan = edits.EditPlan("round 1", 2, Sampling(max_new_tokens=9), (7, 0), attempts=3)
    [records] = edits.sample_edits(policy, tasks, FEWSHOT, plan, lambda keys: False)
    found = {(r["passage"], r["sample"]): (r["attempts"], r["problem"] is None) for r in records}
    assert found == {("a", 0): (1, True), ("a", 1): (3, True), ("b", 0): (3, False), ("b", 1): (2, True)}
    assert [len(seeds) for seeds in policy.asked] == [4, 3, 2]
    assert len({seed for seeds in policy.asked for seed in seeds}) == 9  # no attempt repeats another's draws
    assert list(edits.sample_edits(policy, tasks, FEWSHOT, plan, lambda keys: True)) == []


# ---------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def values(home, tmp_path_factory) -> dict:
    """The config of a tiny run on made-up tasks, constrained, so that a random model writes valid self-edits."""
    folder = tmp_path_factory.mktemp("tasks")
    for name in "abcd":
        task = made_up(2, seed=ord(name))
        parts = {"train": task.train, "test": task.test}
        content = {
            role: [{"input": p.input.tolist(), "output": p.output.tolist()} for p in pairs]
            for role, pairs in parts.items()
        }
        (folder / f"{name}.json").write_text(json.dumps(content))
    values = tiny_run.tiny_values(
        home, experiment="fewshot", task={"chat": "yes"}, sampling={"max_new_tokens": 400}, evaluation={"samples": 1},
        data={"train": str(folder), "evaluation": str(folder), "heldout_fraction": 0.0},
        arc={"train_ids": ("a", "b"), "evaluation_ids": ("c", "d"), "constrained": True, "examples": 2, "most_steps": 9,
             "example_tokens": 600, "most_epochs": 2},
        inner={"batch_size": 2, "schedule": "cosine"}, outer={"random_control": False},
        reward={"accuracy_weight": 1.0, "answer_tokens": 4}, engine={"candidates": 2, "decode_rows": 20},
    )  # fmt: skip
    return values


ROWS = ["in context", "random configuration", "oracle configuration", "self-edits, no RL", "SEAL, round 1"]


@pytest.fixture(scope="module")
def finished(values, actors, tmp_path_factory):
    from seal_jax.experiments import experiment

    workdir = tmp_path_factory.mktemp("runs") / "fewshot"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "load_actor", actors)
        return tiny_run.run(values, workdir), workdir


def test_every_row_is_measured(finished):
    lines, workdir = finished
    assert [line.name for line in lines] == ROWS
    assert all(line.trials == 2 and line.measures["log_likelihood"].count == 2 for line in lines)
    base = [r for r in read(workdir / "trials.jsonl") if r["stage"] == "evaluation: in context"]
    assert all(r["sequences"] == 0 and r["loss"] is None and r["judge"] == "exact match" for r in base)
    assert all(line.over_base for line in lines[1:]) and not lines[0].over_base


def test_self_edits_bring_their_own_rates_and_epochs(finished):
    _, workdir = finished
    written = {(r["stage"], r["passage"], r["sample"]): r for r in read(workdir / "self_edits.jsonl")}
    assert all(record["problem"] is None and record["attempts"] == 1 for record in written.values())
    rewarded = [r for r in read(workdir / "trials.jsonl") if r["stage"] == "round 1: reward"]
    assert len(rewarded) == 4
    for trial in rewarded:
        chosen = edit.parse(written["round 1", trial["passage"], trial["sample"]]["text"]).training
        assert trial["steps"] == chosen.num_train_epochs * -(-trial["sequences"] // 2) and trial["sequences"] == 2


def test_sheets_are_drawn_and_linked(finished):
    _, workdir = finished
    assert len(list((workdir / "sheets").glob("*.png"))) == 2 * len(ROWS)
    page = (workdir / "report.html").read_text()
    assert "0 of 8 self-edits were sampled again, 0 times in all; 0 stayed invalid." in page
    assert 'href="sheets/c--seal-round-1.png"' in page and "2 tasks of" in page and " passages" not in page
    assert "The run is not complete" not in page


def test_a_finished_run_computes_nothing_again(finished, values, fast, monkeypatch, capsys):
    lines, workdir = finished
    for name in ("finetune", "teach", "generate", "log_likelihood"):
        monkeypatch.setattr(Engine, name, None)
    assert repr(tiny_run.run(values, workdir)) == repr(lines)
    out = capsys.readouterr().out
    assert "Evaluation on 2 tasks" in out and "trials that solve their task" in out


def test_where_nothing_is_right_nothing_is_learned(finished, values, fast, tmp_path):
    """'Keep every correct one' of a random model keeps none: the policy stays as it was."""
    values = values | {"outer": values["outer"] | {"selection": "correct"}}
    tiny_run.run(values, tmp_path)
    assert all(record["chosen"] == [] for record in read(tmp_path / "selections.jsonl"))
    own = [r["text"] for r in read(tmp_path / "self_edits.jsonl") if r["stage"] == "evaluation: SEAL, round 1"]
    before = [r["text"] for r in read(tmp_path / "self_edits.jsonl") if "no RL" in r["stage"]]
    assert own == before and not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"arc": {"train_ids": ("a", "zz")}}, "config.data.train: the source has no task zz"),
        ({"data": {"evaluation": "nowhere"}}, "config.data.evaluation: nowhere cannot be read"),
        ({"sampling": {"max_new_tokens": 20}}, "max_new_tokens is 20"),
        ({"task": {"chat": "no"}}, "no chat template"),
    ],
)
def test_bad_input_is_one_sentence(values, fast, tmp_path, changes, words):
    changed = values | {group: values[group] | fields for group, fields in changes.items()}
    with pytest.raises(UserError, match=words):
        tiny_run.run(changed, tmp_path / "run")
