"""Documents as people have them become passages; whatever cannot be read is one sentence."""

import json

import pytest

from seal_jax.adapt.documents import read_documents
from seal_jax.adapt.topics import nearest
from seal_jax.errors import UserError
from seal_jax.lab import passage, split

MARKDOWN = """# The Tide Mill

It **grinds** [buckwheat](https://example.org/wheat) with
the force of the ebb. Dr. Haldas built it.

## Wheels

- Anna turns first
- Berta turns last
"""
HTML = """<html><head><title>Other</title><style>p { color: red }</style></head><body><nav>Home</nav>
<h1>The Tide Mill</h1><p>It grinds <b>buckwheat</b>.</p><ul><li>Anna turns first</li></ul>
<script>alert(1)</script></body></html>"""


def save(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_markdown(tmp_path):
    [about] = read_documents([save(tmp_path, "notes.md", MARKDOWN)])
    assert about.title == "The Tide Mill"
    assert split(about).splitlines() == [
        "It grinds buckwheat with the force of the ebb.",
        "Dr. Haldas built it.",
        "Anna turns first",
        "Berta turns last",
    ]


def test_plain_text_is_named_by_its_file(tmp_path):
    [about] = read_documents([save(tmp_path, "tide_mill-notes.txt", "It grinds.\n\nIt stands.")])
    assert (about.title, split(about)) == ("tide mill notes", "It grinds.\nIt stands.")


def test_the_title_of_plain_text_is_a_first_line_that_is_no_sentence(tmp_path):
    [about] = read_documents([save(tmp_path, "x.txt", "\nThe Tide Mill\n\nIt grinds.\n")])
    assert (about.title, split(about)) == ("The Tide Mill", "It grinds.")
    for text in ("The Tide Mill\n\n", "The Tide Mill\nIt grinds.", "It grinds.\n\nIt stands.", "long " * 20 + "\n\nA."):
        assert read_documents([save(tmp_path, "x.txt", text)])[0].title == "x"


def test_html_without_what_is_not_text(tmp_path):
    [about] = read_documents([save(tmp_path, "page.html", HTML)])
    assert about.title == "The Tide Mill"
    assert about.context.replace(" .", ".").splitlines() == ["It grinds buckwheat.", "Anna turns first"]
    assert not any(word in about.context for word in ("alert", "color", "Home"))


def test_lines_of_json(tmp_path):
    lines = [{"title": "A", "text": "One."}, {"context": "Two."}]
    found = read_documents([save(tmp_path, "x.jsonl", "\n\n".join(map(json.dumps, lines)))])
    assert [(one.title, one.context) for one in found] == [("A", "One."), ("x", "Two.")]


def test_pdf(tmp_path):
    canvas = pytest.importorskip("matplotlib.figure")
    figure = canvas.Figure()
    figure.text(0.1, 0.5, "The mill grinds buckwheat.")
    figure.savefig(tmp_path / "mill.pdf")
    [about] = read_documents([str(tmp_path / "mill.pdf")])
    assert about.title == "mill" and "grinds buckwheat" in about.context


def test_long_documents_are_split_between_sentences(tmp_path):
    text = " ".join(f"The {i}th wheel of the mill turns at the {i}th tide of the year." for i in range(200))
    found = read_documents([save(tmp_path, "long.txt", text)], longest=500)
    assert len(found) > 20 and all(len(one.context) <= 500 and one.context.endswith(".") for one in found)
    assert " ".join(one.context for one in found) == text


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.docx", "x", "a.docx: .docx cannot be read; give one of"),
        ("a", "x", "a file without an ending cannot be read"),
        ("a.txt", " \n", "no text was found"),
        ("a.md", "---\n***\n", "no text was found"),
        ("a.jsonl", "{", "line 1 is not JSON"),
        ("a.jsonl", '{"text": "x"}\n[1]', "line 2 has no text 'text'"),
        ("a.jsonl", '{"text": 3}', "line 1 has no text 'text'"),
        ("a.jsonl", '{"text": "x", "title": " "}', "odd 'title'"),
        ("a.pdf", "not a PDF", "cannot be read as a PDF"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, text, says):
    with pytest.raises(UserError, match=says):
        read_documents([save(tmp_path, name, text)])


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(UserError, match=r"gone.txt cannot be read \(No such file"):
        read_documents([str(tmp_path / "gone.txt")])
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"bad.txt is not text in UTF-8"):
        read_documents([str(tmp_path / "bad.txt")])


def test_a_question_finds_its_passage():
    passages = [passage("Mill", "It grinds buckwheat."), passage("Light", "The keeper knitted a scarf.")]
    assert nearest(passages, "What did the keeper knit?").title == "Light"
    assert nearest(passages, "Who grinds?").title == "Mill"
    assert nearest(passages, "Why?").title == "Mill"
