"""report.html: true to the records, whole in one file, and safe with whatever a model writes."""

import base64
import dataclasses
import html
import json
import re
from html.parser import HTMLParser

import made_up_run
import pytest
from made_up_run import append

from seal_jax.report import cells, tables
from seal_jax.report import html as report
from seal_jax.report.estimates import Estimate
from seal_jax.report.recorded import load
from seal_jax.runs.records import read

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags with their attributes; fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_up_run.write(tmp_path_factory.mktemp("runs") / "made-up", items=10)


@pytest.fixture(scope="module")
def text(folder):
    return report.write(folder).read_text()


def test_one_file_that_asks_for_nothing(folder, text):
    assert report.write(folder) == folder / "report.html" and not (folder / "report.html.new").exists()
    tags = Page(text).tags
    assert not {"link", "iframe", "object"} & {tag for tag, _ in tags} and [tag for tag, _ in tags].count("script") == 1
    sources = [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href")]
    assert sources.pop(0) == "#answers"
    assert len(sources) == 6 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(base64.b64decode(source.partition(",")[2]).startswith(b"\x89PNG") for source in sources)
    assert all(attributes["alt"] for tag, attributes in tags if tag == "img")
    assert "url(" not in text and "@import" not in text


def test_the_tables_are_those_of_the_terminal(folder, text):
    shown, found = html.unescape(text), load(folder)
    lines, rounds = tables.lines(found), tables.rounds(found.rollouts)
    expected = [cells.row_table(lines, 10, found.words), *cells.difference_tables(lines), cells.round_table(rounds)]
    assert len(expected) == 4 and sum(len(table.rows) for table in expected) == 7 + 6 + 6 + 6
    for table in expected:
        assert "".join(f'<th scope="col">{title}</th>' for title in table.header) in shown
        for row in table.rows:
            assert f'<th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) in shown
    for note in [*cells.row_notes(found, lines), *cells.round_notes(found, rounds)]:
        assert f'<p class="note">{note}</p>' in shown
    for name, seconds in tables.phases(found.phases).items():
        assert f'<th scope="row">{name}</th><td>{report.duration(seconds)}</td>' in shown


def test_self_edits_with_rewards_and_who_chose_them(folder, text):
    rollouts = read(folder / "rollouts.jsonl")
    record = next(r for r in rollouts if r["arm"] == "SEAL" and r["item"] == "t0")
    chosen = record["rewards"][record["chosen"][0]]
    assert re.search(rf'class="text card chosen"><span class="label">reward {chosen:.3f} · <b>chosen by SEAL</b>', text)
    for value in record["rewards"]:
        assert f"reward {value:.3f}" in text
    shown = [f"t{i}" for i in range(report.SHOWN)]
    picks = {
        ("SEAL" if r["round"] == 1 else r["arm"], r["round"], r["item"], k)
        for r in rollouts
        if r["item"] in shown
        for k in r["chosen"]
    }
    assert text.count('class="text card chosen"') == len(picks)
    edits = [e for e in read(folder / "self_edits.jsonl") if e["split"] == "train" and e["item"] in shown]
    assert text.count(">no reward") == sum(e["arm"] == "random" for e in edits) > 0
    assert all(f" {len(e['tokens'])} tokens" in text for e in edits) and "chosen by random" in text
    assert "8 of 10 training passages" in text and "The Harbour of t7" in text and "The Harbour of t8" not in text
    assert text.count("(held out)") == report.SHOWN


def test_a_few_answers_before_and_after_come_first(text):
    shown = text.partition("<h2>Before and after")[2].partition("<h2>Self-edits")[0]
    assert shown.count('class="question"') == 3 and shown.count("<dt>gold</dt>") == 3
    assert shown.count("<dt>base</dt>") == shown.count("<dt>SEAL, round 2</dt>") == 3
    assert shown.count("</span> It is a") == 9  # three rows of each


def test_answers_beside_gold_with_verdicts(folder, text):
    found = [t for t in read(folder / "trials.jsonl") if t["split"] == "evaluation"]
    shown = [t for t in found if t["item"] in [f"e{i}" for i in range(report.SHOWN)]]
    assert "a lighthouse of 4 storeys" in text
    verdicts = [verdict for t in shown for verdict in t["correct"] or [None] * 5]
    for mark, verdict in (("✓", True), ("✗", False), ("?", None)):
        marks = text.partition('<h2 id="answers">')[2].count(f">{mark}</span>")
        assert marks == sum(v is verdict for v in verdicts) > 0
    for value in (value for t in shown for value in t["log_likelihood"] if value is not None):
        assert f'<span class="label">{value:.2f}' in text
    edits = [e for e in read(folder / "self_edits.jsonl") if e["split"] == "train" and e["item"][1:] < "8"]
    cut = sum(sum(t["cut"] or []) for t in shown) + sum(not e["finished"] for e in edits)
    assert text.count(" cut off</span>") == cut > 20
    assert text.count(" failed: training diverged") == 5  # one task's questions
    asked = "".join(Page(text).words).partition("Answers\n")[2]
    measured = [e for e in read(folder / "self_edits.jsonl") if e["split"] == "evaluation" and e["item"] == "e0"]
    assert len(measured) == 5 and all(e["text"] in asked for e in measured)


def test_config_and_environment_are_there(folder, text):
    words = "".join(Page(text).words)
    assert '"train_items": 10' in words and '"python": "3.11"' in words
    assert "started 2 times" in words and "a/policy" in words and "1 × accuracy" in words
    assert "lexical in the reward, lexical in the evaluation" in words and "10 passages of datasets:" in words


# ---------------------------------------------------------------- headlines


def test_headlines_name_doubt_and_begin_with_accuracy():
    gains = [{"accuracy": Estimate(0.1, 0.05, 0.15, 9), "log_likelihood": Estimate(0.3, -0.1, 0.7, 9)}]
    lines = [made_line("base", 0), made_line("SEAL", 1, {"log_likelihood": Estimate(0.5, 0.3, 0.7, 9)}),
             made_line("SEAL", 2, *gains), made_line("random", 2, *gains)]  # fmt: skip
    assert report.headlines(lines) == [
        "Right answers, in %: “SEAL, round 2” 40.0 ± 10.0, “SEAL, round 1” 20.0 ± 10.0, “base, round 0” 0.0 ± 10.0.",
        "SEAL, round 2, against the untrained student: +10.0 ± 5.0 points of accuracy, "
        "+0.30 ± 0.40 nats per answer token (the interval includes zero)."
    ]
    assert report.headlines(lines[:2])[1:] == [
        "SEAL, round 1, against the untrained student: +0.50 ± 0.20 nats per answer token."
    ]
    begun = [lines[0], dataclasses.replace(lines[1], items=4)]
    assert report.headlines(begun)[0].startswith("Right answers, in %: “SEAL, round 1 (4 of 9)” 20.0 ± 10.0, “base,")
    assert report.headlines(lines[:1]) == [] and report.headlines([made_line("SEAL", 0, *gains)]) == []


def test_a_difference_without_an_interval_is_no_headline():
    nan = float("nan")
    assert len(report.headlines([made_line("SEAL", 1, {"accuracy": Estimate(0.5, nan, nan, 1)})])) == 1
    _, *found = report.headlines([made_line("SEAL", 1, {"accuracy": Estimate(0.5, -0.9, 0.9, 4)})])
    assert found == ["SEAL, round 1, against the untrained student: +50.0 (-90.0 to +90.0) points of accuracy "
                     "(the interval includes zero)."]  # fmt: skip


def test_a_policy_that_did_not_change_is_a_headline():
    _, sentence = report.headlines([made_line("SEAL", 1, same_as="self-edits, no RL")])
    assert sentence == "SEAL, round 1 has the policy of “self-edits, no RL”: no self-edit was selected since."


def made_line(arm, number, gains=None, same_as=None):
    measures = {"accuracy": Estimate(number / 5, number / 5 - 0.1, number / 5 + 0.1, 9)}
    measures["log_likelihood"] = Estimate(-3.0, -3.1, -2.9, 9)
    over = {"over untrained": gains} if gains else {}
    return tables.Line(arm, number, f"{arm}, round {number}", "policy", 9, measures, over, same_as=same_as)


# ---------------------------------------------------------------- whatever is in the folder


HOSTILE = "</div><script>alert(1)</script> {{ 7 * 7 }} {% raw %} \u0000 \ud83d\ude00 & <img src=x onerror=y>"


def test_whatever_a_model_writes_is_text(tmp_path):
    folder = made_up_run.write(tmp_path / "<b>run", items=2)
    stage = {"split": "train", "arm": "SEAL", "round": 1}
    edit = {"item": "x", "sample": 0, "tokens": [1], "log_probs": [0.0], "finished": True, "problem": HOSTILE,
            "attempts": 1}  # fmt: skip
    append(folder, "self_edits", [stage | edit | {"text": HOSTILE}])
    questions = [{"question": HOSTILE, "answer": HOSTILE, "heldout": False}]
    for split in ("train", "evaluation"):
        item = {"split": split, "item": "x", "title": HOSTILE, "context": HOSTILE, "questions": questions}
        append(folder, "items", [item])
    append(folder, "rows", [made_up_run.row("oracle", 0, "<b onclick=x>oracle</b>", "control")])
    trial = next(t for t in read(folder / "trials.jsonl") if t["split"] == "evaluation" and t["item"] == "e0")
    trial |= {"arm": "oracle", "item": "x", "answers": [HOSTILE], "failure": HOSTILE}
    append(folder, "trials", [trial])
    page = Page(report.render(folder))
    assert sum(tag == "script" for tag, _ in page.tags) == 1 and "onerror" not in str(page.tags)
    words = "".join(page.words)
    assert "{{ 7 * 7 }}" in words and words.count("alert(1)") >= 10
    assert "onclick" not in str(page.tags) and "<b onclick=x>oracle</b>" in words


@pytest.mark.parametrize("kept", [[], ["config.json"], ["config.json", "items.jsonl"],
                                  ["config.json", "items.jsonl", "rows.jsonl"],
                                  ["config.json", "items.jsonl", "rows.jsonl", "trials.jsonl"],
                                  ["trials.jsonl", "phases.jsonl"], ["rows.jsonl", "trials.jsonl"],
                                  ["rollouts.jsonl", "self_edits.jsonl"]])  # fmt: skip
def test_a_run_at_any_stage_has_a_report(folder, tmp_path, kept):
    for name in kept:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    Page(report.write(tmp_path).read_text())


def test_a_run_that_goes_on_says_so_and_an_unfinished_group_is_left_out(folder, tmp_path, text):
    assert "not complete" not in text
    for file in folder.glob("*.json*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    lines = (tmp_path / "trials.jsonl").read_bytes().splitlines(keepends=True)
    fields = [[json.loads(line)[name] for name in ("split", "arm", "round")] for line in lines]
    last = fields.index(["evaluation", "random", 2])
    (tmp_path / "trials.jsonl").write_bytes(b"".join(lines[:last]) + lines[last][:50])
    before = (tmp_path / "trials.jsonl").read_bytes()
    page = report.render(tmp_path)
    assert "not complete" in page and "random, round 1" in page
    assert "random, round 2" not in [line.name for line in tables.lines(load(tmp_path))]
    assert (tmp_path / "trials.jsonl").read_bytes() == before


def test_complete_is_what_has_every_row_and_item(folder):
    found = load(folder)
    assert report.complete(found, tables.lines(found))
    later = {**found.config, "outer": {**found.config["outer"], "rounds": 3}}
    item = {**found.items_of("evaluation")[0], "item": "e99"}
    for change in ({"config": later}, {"items": [*found.items, item]}, {"trials": found.trials[:60]},
                   {"rows": [*found.rows, made_up_run.row("oracle", 0, "oracle", "control")]}):  # fmt: skip
        changed = dataclasses.replace(found, **change)
        assert not report.complete(changed, tables.lines(changed)), change.keys()
    alone = {**found.config, "outer": {**found.config["outer"], "rounds": 1, "random_control": False}}
    rows = [row for row in found.rows if row["arm"] != "random" and row["round"] < 2]
    fewer = dataclasses.replace(found, config=alone, rows=rows)
    assert report.complete(fewer, tables.lines(fewer))
