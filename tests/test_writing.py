"""Runs whose self-edits somebody else than the policy writes, and rewards without gold answers, over an engine in plain
Python: from the config to the records, the table and its notes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_run
from chat_server import completion, error, servers
from etils import epath
from plain_engine import PlainEngine, plain_actor, speaks

from seal_jax import config
from seal_jax.domains.knowledge.corpus import Passage, Question
from seal_jax.domains.knowledge.knowledge import Knowledge
from seal_jax.domains.knowledge.sequences import Rules
from seal_jax.errors import UserError
from seal_jax.experiments import assemble, rounds
from seal_jax.experiments.world import World
from seal_jax.judges import endpoint, lexical
from seal_jax.report import html, terminal
from seal_jax.rewards.own_questions import questions

KEY = "sk-very-secret-0123456789"
CLEAN = {"kind": "answers", "accuracy_weight": 1.0, "likelihood_weight": 0.0, "retrains": 3, "answer_tokens": 64}


def passage(name):
    return Passage(name, name, f"{name} was built by Torvald in 1811.", (Question("Who?", "Torvald", False),
                                                                       Question("When?", "1811", False)))  # fmt: skip


TRAIN, EVALUATED = (passage("Weir"), passage("Mill")), (passage("Dam"), passage("Lock"))


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("TINY_KEY", KEY)
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)
    with servers() as running:

        def start(script):
            server = running(script)
            return {"url": server.url, "model": "big", "key": "TINY_KEY"}, server

        yield start


@pytest.fixture
def run(home, tmp_path, monkeypatch):
    """run(says, **config) -> (setup, folder); a second run in the same test continues the first."""

    def start(says=speaks, train=TRAIN, **changes):
        engine = PlainEngine(says)
        monkeypatch.setattr(assemble, "load_actor", lambda source, setting: plain_actor(engine))
        changes["outer"] = {"rounds": 1, "random_control": False, "unfinished": "open"} | changes.get("outer", {})
        changes["evaluation"] = {"samples": 1} | changes.get("evaluation", {})
        values = tiny_run.tiny_values(home, **changes)
        setting = config.from_dict(values)
        world = World(train, EVALUATED, lambda judge: Knowledge("rewrite", Rules(), 1e-3, 1, judge or lexical.grade))
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(values))
        setup = assemble.assemble(setting, epath.Path(folder), world)
        rounds.run(setup, lambda rows: None)
        setup.recorder.close()
        return setup, folder

    return start


def edits(setup, **fields):
    return tiny_run.pick(setup.recorder.edits.all(), **fields)


def named(request):
    return next(one.title for one in (*TRAIN, *EVALUATED) if f"\n{one.title}\n" in request)


def test_a_teacher_and_a_file_have_rows_and_teach_and_what_is_missing_is_listed(run, serve, tmp_path):
    how, server = serve(lambda request, before: error(500, KEY) if named(request) in ("Weir", "Lock")
                        else completion(f"{named(request)} is old."))  # fmt: skip
    released = [{"title": one.title, "context": one.context, "prompt": "p", "completions": ["It is."]}
                for one in EVALUATED]  # fmt: skip
    (tmp_path / "released.json").write_text(json.dumps({"articles": released}))
    fields = {
        "authors": {"file": str(tmp_path / "released.json"), "endpoint": how | {"retries": 0}},
        "outer": {"author": "endpoint"}, "evaluation": {"authors": ("file", "endpoint")},
    }  # fmt: skip
    setup, folder = run(**fields)
    texts = {(e["arm"], e["item"], e["sample"]): e["text"] for e in edits(setup, split="train")}
    assert texts == {("SEAL", "Weir", 0): None, ("SEAL", "Weir", 1): None, ("SEAL", "Mill", 0): "Mill is old.",
                     ("SEAL", "Mill", 1): "Mill is old."}  # fmt: skip
    chosen = {record["item"]: (record["rewards"], record["chosen"]) for record in setup.recorder.rollouts.all()}
    assert chosen["Weir"] == ([None, None], []) and len(chosen["Mill"][1]) == 1
    assert {e["text"] for e in edits(setup, arm="file")} == {"It is."}
    assert {e["prompt"] for e in edits(setup, arm="file")} == {"p"}
    rows = [(row["arm"], row["name"], row["kind"]) for row in setup.recorder.rows.all()]
    assert rows[4:6] == [("file", "self-edits of a file", "author"), ("endpoint", "self-edits by big", "author")]
    asked = {trial["item"] for trial in setup.recorder.trials.all() if trial["arm"] == "endpoint"}
    assert asked == {"Dam"}
    summary = " ".join(terminal.summary(folder).split())
    assert "Self-edits that were not written, left out of every mean: " in summary
    assert "1 of 2 (no answer: HTTP 500: 1) in self-edits by big" in summary
    assert "2 of 4 (no answer: HTTP 500: 2) in SEAL, round 1, training" in summary
    page = html.render(epath.Path(folder))
    assert "The run is not complete" not in page and KEY not in page
    assert not any(KEY in file.read_text() for file in folder.glob("*.jsonl"))
    before = server.asked.total()
    run(**fields)
    assert server.asked.total() == before  # nothing is asked for twice


def test_the_policy_is_taught_after_the_released_prompt(run, tmp_path):
    released = [{"title": one.title, "context": one.context, "prompt": f"List {one.title}", "completions": ["a", "b"]}
                for one in TRAIN]  # fmt: skip
    (tmp_path / "released.json").write_text(json.dumps(released))
    setup, _ = run(authors={"file": str(tmp_path / "released.json")}, outer={"author": "file"})
    [(_, _, candidate, _)] = [call for call in setup.policy.engine.calls if call[0] == "teach"]
    said = sorted(setup.policy.tokenizer.decode(list(row.tokens)) for row in candidate.rows)
    assert [text[:9] for text in said] == ["List Mill", "List Weir"]


def test_entigraph_by_the_policy_teaches_and_has_a_row(run):
    def says(weight, prompt, seed):
        return "Torvald, 1811, weir" if prompt.endswith("Names:\n") else f"They are {seed[-2:]}."

    setup, _ = run(says, sampling={"max_new_tokens": 64}, authors={"entigraph": {"pairs": 2, "triples": 1}},
                   outer={"author": "entigraph"}, evaluation={"authors": ("entigraph",)})  # fmt: skip
    assert all(edit["text"].count("---") == 2 for edit in edits(setup, split="train"))
    assert len(edits(setup, arm="entigraph")) == 2
    assert [row["name"] for row in setup.recorder.rows.all()][4] == "EntiGraph"


# ---------------------------------------------------------------- rewards


def test_the_rubric_is_a_reward_and_asks_nothing_twice(run, serve):
    def script(request, before):
        text = request.partition("Notes:\n")[2]
        return completion("no" if "Mill" in request else f"length: {len(text) % 5 + 1}\ndiversity: 2\nquality: 3\n"
                          "correctness: 4")  # fmt: skip

    how, server = serve(script)
    how |= {"kind": "remote"}
    fields = {"reward": CLEAN | {"kind": "rubric", "judge": how}}
    setup, folder = run(**fields)
    found = {record["item"]: record for record in setup.recorder.rollouts.all()}
    texts = {(e["item"], e["sample"]): e["text"] for e in edits(setup, split="train")}
    requests = [body["messages"][0]["content"] for _, _, body in server.requests if "Weir" in str(body)]
    shown = [request.partition("Notes:\n")[2] for request in requests]
    expected = {text.partition("\n\nReply")[0]: len(text) % 5 + 10 for text in shown}
    assert found["Weir"]["rewards"] == [expected[texts["Weir", k]] for k in (0, 1)]
    assert found["Weir"]["chosen"] == [int(np.argmax(found["Weir"]["rewards"]))]
    assert found["Mill"]["rewards"] == [None, None] and found["Mill"]["chosen"] == []
    assert not tiny_run.pick(setup.recorder.trials.all(), split="train")  # no inner loops
    assert "2 of 4 (unreadable reply: 2) in SEAL, round 1" in " ".join(terminal.summary(folder).split())
    assert "judge&#39;s rubric" in html.render(epath.Path(folder))
    before = server.asked.total()
    run(**fields)
    assert server.asked.total() == before


def test_a_local_judge_rates_by_what_it_writes(run):
    def says(weight, prompt, seed):
        return " 3\ndiversity: 9\nquality: 2\ncorrectness: 1" if "You rate" in prompt else speaks(weight, prompt, seed)

    setup, _ = run(says, reward=CLEAN | {"kind": "rubric", "judge": {"kind": "local"}})
    assert {record["total"] for record in setup.recorder.ratings.all()} == {3 + 5 + 2 + 1}
    assert setup.reward.name.startswith("local:")


def test_questions_that_the_policy_wrote_decide_and_gold_ones_are_held_out(run):
    def says(weight, prompt, seed):
        if not prompt.endswith("Question 1:"):
            return speaks(weight, prompt, seed)
        own = " What was built?\nAnswer: Weir\nQuestion 2: By whom?\nAnswer: Torvald\nQuestion 3: Why?\nAnswer: For fun"
        return f"{own}\n\nPassage:\nmore" if "\nWeir\n" in prompt else " Nothing is asked."

    setup, _ = run(says, sampling={"max_new_tokens": 128}, data={"heldout_fraction": 0.0},
                   reward={"kind": "own_questions"})  # fmt: skip
    found = {record["item"]: record for record in setup.recorder.rollouts.all()}
    trials = tiny_run.pick(setup.recorder.trials.all(), split="train")
    assert trials and {trial["item"] for trial in trials} == {"Weir"}
    assert {tuple(trial["heldout"]) for trial in trials} == {(False, False, True, True)}
    base = next(trial for trial in trials if trial["purpose"] == "untrained")
    for trial in tiny_run.pick(trials, purpose="reward"):
        gains = np.array(trial["log_likelihood"]) - np.array(base["log_likelihood"])
        assert found["Weir"]["rewards"][trial["sample"]] == pytest.approx(gains[:2].mean())
        assert found["Weir"]["heldout_rewards"][trial["sample"]] == pytest.approx(gains[2:].mean())
    assert found["Mill"]["rewards"] == [None, None] and found["Mill"]["chosen"] == []
    assert len(edits(setup, arm="own questions")) == 2


def test_passages_without_any_questions_can_be_learned_from(run):
    bare = tuple(replace(one, questions=()) for one in TRAIN)
    says = " What was built?\nAnswer: was built by Torvald"
    asks = "Question 1:"
    setup, folder = run(lambda weight, prompt, seed: says if prompt.endswith(asks) else speaks(weight, prompt, seed),
                        bare, sampling={"max_new_tokens": 64}, data={"heldout_fraction": 0.0},
                        reward={"kind": "own_questions"})  # fmt: skip
    for record in setup.recorder.rollouts.all():
        assert None not in record["rewards"] and len(record["chosen"]) == 1
        assert record["heldout_rewards"] == [None, None]
    assert "SEAL, round 1" in terminal.summary(folder) and html.render(epath.Path(folder))


def test_own_questions_are_kept_if_their_short_answers_stand_in_the_passage():
    text = ("Question 1: Who built it?\nAnswer: Torvald.\nQuestion 2: Who BUILT it?\nAnswer: Torvald\n"
            "Question 3: When?\nAnswer: In 1812\nQuestion 4: When was it?\n\nAnswer: 1811\nQuestion 5: What?\nNothing")
    assert questions(text, passage("Weir")) == [Question("Who built it?", "Torvald", False),
                                                Question("When was it?", "1811", False)]  # fmt: skip


# ---------------------------------------------------------------- mistakes in the config


def mistake(home, **changes):
    with pytest.raises(UserError) as caught:
        config.from_dict(tiny_run.tiny_values(home, **changes))
    return str(caught.value)


def test_fields_that_nobody_reads_or_that_are_missing_are_named(home):
    assert "config.authors.file: is set, but neither" in mistake(home, authors={"file": "x"})
    assert "config.authors.endpoint: is set" in mistake(home, authors={"endpoint": {"model": "m"}})
    assert "config.authors.entigraph: is set" in mistake(home, authors={"entigraph": {"pairs": 1}})
    assert "config.authors.endpoint.model: is empty" in mistake(home, outer={"author": "endpoint"})
    assert "pairs and triples are both 0" in mistake(
        home, outer={"author": "entigraph"}, authors={"entigraph": {"pairs": 0, "triples": 0}}
    )
    assert "must name some of" in mistake(home, evaluation={"authors": ("teacher",)})
    for author in ("file", "entigraph"):
        said = mistake(home, outer={"author": author, "improver": "policy_gradient"})
        assert f"outer.author is '{author}'; set that to 'policy'" in said


def test_a_reward_refuses_what_it_does_not_read(home):
    judge = {"kind": "remote", "model": "m"}
    said = mistake(home, reward={"kind": "rubric", "judge": judge})
    for field, usual in (("accuracy_weight", 1.0), ("likelihood_weight", 0.0), ("retrains", 3), ("answer_tokens", 64)):
        assert f"config.reward.{field}: is" in said and f"leave it at {usual!r}" in said
    said = mistake(home, reward=CLEAN | {"kind": "rubric"}, outer={"selection": "above_base"})
    assert "config.reward.judge.kind: is 'lexical', which cannot rate" in said and "set it to 'best'" in said
    assert "holds out all gold questions" in mistake(home, reward={"kind": "own_questions"})  # 0.3 are held out
    config.from_dict(tiny_run.tiny_values(home, reward=CLEAN | {"kind": "rubric", "judge": judge}))
