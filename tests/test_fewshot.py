"""Few-shot learning as a whole: verdicts of failed self-edits, resampling, and a tiny run on made-up tasks."""

import json
from types import SimpleNamespace

import pytest
import tiny_run
from etils import epath
from test_arc_training_set import made_up

from seal_jax import config as config_lib
from seal_jax.authors.policy import Policy
from seal_jax.config import Sampling
from seal_jax.domains.arc import edit, text
from seal_jax.domains.arc.fewshot import Fewshot
from seal_jax.domains.arc.grids import ArcTask
from seal_jax.domains.arc.training_set import Limits
from seal_jax.domains.domain import Graded, Lesson
from seal_jax.engine.engine import Engine
from seal_jax.engine.generation import Sample
from seal_jax.errors import UserError
from seal_jax.report import recorded, tables
from seal_jax.runs.records import read
from seal_jax.student import trials
from seal_jax.student.ask import Answers

TASK = made_up(3)
VALID = edit.canonical(edit.ORACLE)
INVALID = VALID.replace("0.0001", "7.5")  # can be read, and asks for a learning rate that there is not
FEWSHOT = Fewshot(text.Form(), Limits(examples=6, tokens=400, steps=6), batch=2, seed=0)


def test_a_failed_self_edit_is_wrong_whatever_was_answered():
    graded, said = Graded(["[[1]]"], [True]), Answers(["[[1]]"], [False], [-1.0])
    assert trials._shown(graded, said, Lesson())["correct"] == [True]
    assert trials._shown(graded, said, Lesson(failure="too long"))["correct"] == [False]


# ---------------------------------------------------------------- sampled again until it can be read


class Scripted:
    """A policy that writes `texts[item][sample]` in turn, one attempt after the other."""

    chat = True

    def __init__(self, texts):
        self.texts, self.asked, self.engine, self.base = texts, [], self, {}
        self.settings = SimpleNamespace(decode_rows=4)
        self.tokenizer = SimpleNamespace(encode_prompt=lambda prompt: prompt.text, decode=lambda tokens: tokens[0])

    def rules(self, *_):
        return None

    stopper = rules

    def generate(self, weights, prompts, seeds, generation):
        self.asked.append([seed for lane in seeds[0] for seed in lane])
        out = []
        for prompt, lane in zip(prompts[0], seeds[0], strict=True):
            out.append([Sample([self.texts[prompt, seed[4]].pop(0)], [-1.0], None, False) for seed in lane])
        return [out]


def test_what_cannot_be_read_is_sampled_again_and_what_is_invalid_is_not(monkeypatch):
    tasks = [ArcTask(name, TASK.train, TASK.test) for name in "ab"]
    monkeypatch.setattr(Fewshot, "edit_prompt", lambda self, task, chat: SimpleNamespace(text=task.id, stops=()))
    texts = {("a", 0): [VALID], ("a", 1): ["bad", "worse", VALID], ("b", 0): ["bad"] * 9, ("b", 1): ["bad", INVALID]}
    policy = Scripted(texts)
    [written] = Policy(policy, FEWSHOT, Sampling(max_new_tokens=9), attempts=3).write(tasks, 2, (7, 1))
    found = {(item, k): (e.attempts, e.problem is None) for item, edits in written.items() for k, e in enumerate(edits)}
    assert found == {("a", 0): (1, True), ("a", 1): (3, True), ("b", 0): (3, False), ("b", 1): (2, False)}
    assert [len(seeds) for seeds in policy.asked] == [4, 3, 2]
    assert len({seed for seeds in policy.asked for seed in seeds}) == 9  # no attempt repeats another's draws


# ---------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def values(home, tmp_path_factory) -> dict:
    """The config of a tiny run on made-up tasks, constrained, so that a random model writes valid self-edits."""
    model, folder = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("tasks")
    for name in "abcd":
        task = made_up(2, seed=ord(name))
        parts = {"train": task.train, "test": task.test}
        content = {
            role: [{"input": p.input.tolist(), "output": p.output.tolist()} for p in pairs]
            for role, pairs in parts.items()
        }
        (folder / f"{name}.json").write_text(json.dumps(content))
    source = tiny_run.make_model(model, context=2048)
    values = tiny_run.tiny_values(
        home, domain="arc", model={"policy": source}, sampling={"max_new_tokens": 400}, evaluation={"samples": 1},
        data={"train": str(folder), "evaluation": str(folder)},
        arc={"train_ids": ("a", "b"), "evaluation_ids": ("c", "d"), "constrained": True, "examples": 2, "most_steps": 9,
             "example_tokens": 600, "most_epochs": 2},
        inner={"batch_size": 2, "schedule": "cosine"}, outer={"random_control": False},
        reward={"accuracy_weight": 1.0, "answer_tokens": 4}, engine={"candidates": 2, "decode_rows": 20},
    )  # fmt: skip
    return values


ROWS = ["in context", "random configuration", "oracle configuration", "self-edits, no RL", "SEAL, round 1"]


@pytest.fixture(scope="module")
def finished(values, actors, tmp_path_factory):
    return tiny_run.uninterrupted(values, actors, tmp_path_factory.mktemp("runs") / "fewshot")[1]


def test_every_row_is_measured(finished):
    lines = tables.lines(recorded.load(epath.Path(finished)))
    assert [line.name for line in lines] == ROWS
    assert all(line.counts.trials == 2 and line.measures["log_likelihood"].count == 2 for line in lines)
    base = [r for r in read(finished / "trials.jsonl") if r["arm"] == "in context"]
    assert all(r["sequences"] == 0 and r["loss"] is None and r["judge"] == "exact match" for r in base)
    assert all(len(r["cut"]) > len(r["answers"]) == 1 for r in base)  # many views make one recorded answer


def test_self_edits_bring_their_own_rates_and_epochs(finished):
    edits = [r for r in read(finished / "self_edits.jsonl") if r["arm"] == "SEAL"]
    assert all(record["problem"] is None and record["attempts"] == 1 for record in edits)
    written = {(r["split"], r["round"], r["item"], r["sample"]): r for r in edits}
    rewarded = [r for r in read(finished / "trials.jsonl") if r["purpose"] == "reward"]
    assert len(rewarded) == 4
    for trial in rewarded:
        chosen = edit.parse(written["train", 1, trial["item"], trial["sample"]]["text"]).training
        assert trial["steps"] == chosen.num_train_epochs * -(-trial["sequences"] // 2) and trial["sequences"] == 2


def test_sheets_are_drawn_and_linked(finished):
    assert len(list((finished / "sheets").glob("*.png"))) == 2 * len(ROWS)
    page = (finished / "report.html").read_text()
    assert "self-edits were sampled again, 0 times in all; 0 stayed invalid." in page
    assert 'href="sheets/c--seal-round-1.png"' in page and "2 tasks of" in page and " passages" not in page
    assert "The run is not complete" not in page


def test_a_finished_run_computes_nothing_again(finished, values, fast, monkeypatch, capsys):
    before = tiny_run.records(finished)
    for name in ("finetune", "teach", "generate", "log_likelihood"):
        monkeypatch.setattr(Engine, name, None)
    tiny_run.run(values, finished)
    assert tiny_run.records(finished) == before
    out = capsys.readouterr().out
    assert "Evaluation on 2 tasks" in out and "solved" in out


def test_where_nothing_is_right_nothing_is_learned(finished, values, fast, tmp_path):
    """'Keep every correct one' of a random model keeps none: the policy stays as it was, and is not measured again."""
    values = values | {"outer": values["outer"] | {"selection": "correct"}}
    tiny_run.run(values, tmp_path)
    assert all(record["chosen"] == [] for record in read(tmp_path / "rollouts.jsonl"))
    assert not (tmp_path / "checkpoints").exists()
    last = read(tmp_path / "rows.jsonl")[-1]
    assert (last["name"], last["same_as"]) == ("SEAL, round 1", ["SEAL", 0])
    assert not [r for r in read(tmp_path / "trials.jsonl") if r["split"] == "evaluation" and r["round"] == 1]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"arc": {"train_ids": ("a", "zz")}}, "--config.arc.train_ids names zz"),
        ({"arc": {"evaluation_ids": ("a", "c")}}, "1 of its items are in config.data.train as well"),
        ({"data": {"evaluation": "nowhere"}}, "config.data.evaluation: nowhere cannot be read"),
        ({"sampling": {"max_new_tokens": 20}}, "max_new_tokens is 20"),
        ({"sampling": {"max_new_tokens": 1900}}, "more than the 2048 of the model's context"),
        ({"inner": {"epochs": 3}}, "config.inner.epochs: is set, but the domain 'arc' does not read it"),
    ],
)
def test_bad_input_is_one_sentence(values, fast, tmp_path, changes, words):
    changed = values | {group: values[group] | fields for group, fields in changes.items()}
    with pytest.raises(UserError, match=words):
        config_lib.from_dict(changed)
        tiny_run.run(changed, tmp_path / "run")
