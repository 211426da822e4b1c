"""report.html: true to the records, whole in one file, and safe with whatever a model writes."""

import base64
import html
import json
import re
from html.parser import HTMLParser

import made_up_run
import pytest
from made_up_run import append

from seal_jax.runs import report, table, terminal
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
    return made_up_run.write(tmp_path_factory.mktemp("runs") / "made-up", passages=10)


@pytest.fixture(scope="module")
def text(folder):
    return report.write(folder).read_text()


def test_one_file_that_asks_for_nothing(folder, text):
    assert report.write(folder) == folder / "report.html" and not (folder / "report.html.new").exists()
    tags = Page(text).tags
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    sources = [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(sources) == 5 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(base64.b64decode(source.partition(",")[2]).startswith(b"\x89PNG") for source in sources)
    assert all(attributes["alt"] for tag, attributes in tags if tag == "img")
    assert "url(" not in text and "@import" not in text


def test_the_tables_are_those_of_the_terminal(folder, text):
    shown = html.unescape(text)
    for line in table.lines(read(folder / "trials.jsonl")):
        for measure in table.MEASURES:
            cells = [terminal.cell(line.measures[measure], measure)]
            cells += [terminal.cell(getattr(line, field).get(measure), measure, "+") for field, _ in terminal.COMPARED]
            assert f'<th scope="row">{line.name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) in shown
    for entry in table.rounds(read(folder / "selections.jsonl")):
        assert terminal.round_name(entry) in shown and terminal.cell(entry.chosen, "reward") in shown
    for name, seconds in table.phases(read(folder / "phases.jsonl")).items():
        assert f"<th scope=\"row\">{name}</th><td>{report.duration(seconds)}</td>" in shown


def test_self_edits_with_rewards_and_who_chose_them(folder, text):
    record = next(r for r in read(folder / "selections.jsonl") if r["arm"] == "SEAL" and r["passage"] == "t0")
    chosen = record["rewards"][record["chosen"][0]]
    assert re.search(rf'class="text chosen"><span class="label">reward {chosen:.3f} · <b>chosen by SEAL</b>', text)
    for value in record["rewards"]:
        assert f"reward {value:.3f}" in text
    shown = [f"t{i}" for i in range(report.SHOWN)]
    picks = {
        ("round 1" if r["round"] == 1 else r["arm"], r["round"], r["passage"], k)
        for r in read(folder / "selections.jsonl")
        if r["passage"] in shown
        for k in r["chosen"]
    }
    assert text.count('class="text chosen"') == len(picks)
    assert "chosen by random" in text and "no reward" in text and ", cut off" in text
    assert "8 of 10 training passages" in text and "The Harbour of t7" in text and "The Harbour of t8" not in text
    assert text.count("(held out)") == report.SHOWN


def test_answers_beside_gold_with_verdicts(folder, text):
    trial = next(t for t in read(folder / "trials.jsonl") if t["passage"] == "e3")
    assert "a lighthouse of 4 storeys" in text and f"{trial['log_likelihood'][0]:.2f}</span>" in text
    shown = [t for t in read(folder / "trials.jsonl") if t["passage"] in [f"e{i}" for i in range(report.SHOWN)]]
    verdicts = [verdict for t in shown for verdict in t["correct"]]
    for mark, verdict in (("✓", True), ("✗", False), ("?", None)):
        assert text.count(f">{mark}</span>") == sum(v is verdict for v in verdicts)
    assert "Answers without a verdict" in text


def test_config_and_environment_are_there(folder, text):
    words = "".join(Page(text).words)
    assert (folder / "config.json").exists() and '"train_passages": 10' in words and '"python": "3.11"' in words
    assert "started 2 times" in words and "a/policy" in words and "1 × accuracy" in words


def test_headlines_name_doubt():
    lines = [made_line("base"), made_line("SEAL, round 1", (0.5, 0.2)), made_line("SEAL, round 2", (0.3, 0.4))]
    (sentence,) = report.headlines(lines)
    assert sentence.startswith("SEAL, round 2, against the base model: +0.30 ± 0.40 nats per answer token (the inter")
    (sentence,) = report.headlines(lines[:2])
    assert "+0.50 ± 0.20" in sentence and "zero" not in sentence
    assert report.headlines(lines[:1]) == []


def made_line(name, gain=None):
    over = {} if gain is None else {"log_likelihood": table.Estimate(*gain, 9)}
    measures = {measure: table.Estimate(-3.0, 0.1, 9) for measure in table.MEASURES}
    return table.Line(name, 9, measures, over, {}, {}, 0, 0)


HOSTILE = "</div><script>alert(1)</script> {{ 7 * 7 }} {% raw %} \u0000 \ud83d\ude00 & <img src=x onerror=y>"


def test_whatever_a_model_writes_is_text(tmp_path):
    folder = made_up_run.write(tmp_path / "<b>run", passages=2)
    edit = {"stage": "SEAL, round 1", "passage": "t0", "sample": 9, "title": "t", "tokens": 1, "finished": True}
    append(folder, "self_edits", [edit | {"text": HOSTILE, "stage": "round 1", "sample": 0, "passage": "x"}])
    passage = {"role": "train", "passage": "x", "title": HOSTILE, "context": HOSTILE, "questions": []}
    append(folder, "passages", [passage])
    page = Page(report.render(folder))
    assert not {"script", "b"} & ({tag for tag, _ in page.tags} - {"b"}) and "onerror" not in str(page.tags)
    assert "{{ 7 * 7 }}" in "".join(page.words) and "alert(1)" in "".join(page.words)


@pytest.mark.parametrize("kept", [[], ["config.json"], ["config.json", "passages.jsonl"],
                                  ["config.json", "passages.jsonl", "trials.jsonl"], ["trials.jsonl", "phases.jsonl"],
                                  ["selections.jsonl", "self_edits.jsonl"]])  # fmt: skip
def test_a_run_at_any_stage_has_a_report(folder, tmp_path, kept):
    for name in kept:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    Page(report.write(tmp_path).read_text())


def test_a_run_that_goes_on_says_so_and_an_unfinished_group_is_left_out(folder, tmp_path, text):
    assert "not complete" not in text
    for file in folder.glob("*.json*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    lines = (tmp_path / "trials.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_bytes(b"".join(lines[:-10]) + lines[-10][:50])
    before = (tmp_path / "trials.jsonl").read_bytes()
    page = report.render(tmp_path)
    assert "not complete" in page and "random, round 1" in page
    assert not any(line.name == "random, round 2" for line in table.lines(read(tmp_path / "trials.jsonl")))
    assert (tmp_path / "trials.jsonl").read_bytes() == before
    assert json.loads((tmp_path / "config.json").read_text())["outer"]["rounds"] == 2
