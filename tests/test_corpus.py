"""Reading passages from every source, and choosing among them."""

import hashlib
import json
import random

import datasets
import pytest

from seal_jax.errors import UserError
from seal_jax.tasks.corpus import Passage, Question, hold_out, load_passages, select

ITEM = {
    "title": "Dunmar weir",
    "context": "Ilse Torvald built the weir in 1811.",
    "questions": [{"question": "Who built it?", "answer": "Ilse Torvald"}, {"question": "When?", "answer": "1811"}],
}
QA = {"id": "q0", "question": "Who?", "answers": [{"text": "Torvald", "answer_start": 5}, {"text": "Ilse Torvald"}]}
ARTICLE = {
    "title": "Dunmar_weir",
    "paragraphs": [
        {"context": "Torvald built it.", "qas": [QA]},
        {"context": "Unasked.", "qas": []},
        {"context": "It leaks.", "qas": [{**QA, "question": "What leaks?"}]},
    ],
}


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def passages(count, questions=5):
    asked = tuple(Question(f"Q{i}?", f"A{i}", heldout=False) for i in range(questions))
    return [Passage(f"id{i}", f"T{i}", f"C{i}", asked) for i in range(count)]


def test_seal_style_file(tmp_path):
    source = write(
        tmp_path / "seal.json", [{**ITEM, "completions": ["1. Old.", ""], "prompt": "p"}, {**ITEM, "title": "Other"}]
    )
    first, second = load_passages(source)
    assert (first.title, first.context) == ("Dunmar weir", "Ilse Torvald built the weir in 1811.")
    assert first.questions == (Question("Who built it?", "Ilse Torvald", False), Question("When?", "1811", False))
    assert first.completions == ("1. Old.", "") and second.completions == ()


def test_ids_are_stable_and_unique(tmp_path):
    source = write(
        tmp_path / "seal.json", [ITEM, {**ITEM, "title": "Other"}, {**ITEM, "questions": ITEM["questions"][:1]}]
    )
    ids = [passage.id for passage in load_passages(source)]
    digest = hashlib.sha256(b"Dunmar weir\nIlse Torvald built the weir in 1811.").hexdigest()
    assert ids[0] == digest[:12] and ids[2] == f"{ids[0]}-2"
    assert len(set(ids)) == 3


def test_squad_file(tmp_path):
    source = write(tmp_path / "squad.json", {"version": "1.1", "data": [ARTICLE]})
    first, second = load_passages(source)
    assert (first.title, first.context) == ("Dunmar weir", "Torvald built it.")
    assert first.questions == (Question("Who?", "Torvald", False),)
    assert second.questions[0].question == "What leaks?"


def changed(item, field, value):
    return {**item, field: value}


def without(item, field):
    return {name: value for name, value in item.items() if name != field}


SEAL_FAULTS = [
    (without(ITEM, "title"), "'title'"),
    (changed(ITEM, "title", 7), "'title'"),
    (changed(ITEM, "context", "  "), "'context'"),
    (without(ITEM, "questions"), "'questions'"),
    (changed(ITEM, "questions", {}), "'questions'"),
    (changed(ITEM, "questions", []), "'questions'"),
    (changed(ITEM, "questions", ["Who?"]), "question 0"),
    (changed(ITEM, "questions", [{"question": "Who?"}]), "'answer'"),
    (changed(ITEM, "questions", [{"question": None, "answer": "x"}]), "'question'"),
    (changed(ITEM, "completions", "1. Old."), "'completions'"),
    (changed(ITEM, "completions", [1]), "'completions'"),
    (["not an object"], "object"),
]


@pytest.mark.parametrize(("item", "field"), SEAL_FAULTS)
def test_faults_in_a_seal_file_name_file_item_and_field(tmp_path, item, field):
    source = write(tmp_path / "bad.json", [ITEM, item])
    with pytest.raises(UserError) as caught:
        load_passages(source)
    assert f"{source}, item 1" in str(caught.value) and field in str(caught.value)


def paragraph(value):
    return changed(ARTICLE, "paragraphs", [value])


SQUAD_FAULTS = [
    (without(ARTICLE, "title"), "'title'"),
    (without(ARTICLE, "paragraphs"), "'paragraphs'"),
    (paragraph("text"), "paragraph 0"),
    (paragraph({"qas": [QA]}), "'context'"),
    (paragraph({"context": "C", "qas": "Q"}), "'qas'"),
    (paragraph({"context": "C", "qas": [without(QA, "question")]}), "'question'"),
    (paragraph({"context": "C", "qas": [changed(QA, "answers", [])]}), "'answers'"),
    (paragraph({"context": "C", "qas": [changed(QA, "answers", ["x"])]}), "'text'"),
]


@pytest.mark.parametrize(("article", "field"), SQUAD_FAULTS)
def test_faults_in_a_squad_file_name_file_item_and_field(tmp_path, article, field):
    source = write(tmp_path / "bad.json", {"data": [ARTICLE, article]})
    with pytest.raises(UserError) as caught:
        load_passages(source)
    assert f"{source}, item 1" in str(caught.value) and field in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "{", '"text"', "7", "null", "{}", "[]", '{"data": []}', '{"data": 3}', "[" * 100_000]
)
def test_files_of_another_shape_are_refused(tmp_path, content):
    source = write(tmp_path / "bad.json", content)
    with pytest.raises(UserError) as caught:
        load_passages(source)
    assert source in str(caught.value) and len(str(caught.value)) < 500


def test_unreadable_files_are_refused(tmp_path):
    (tmp_path / "latin.json").write_bytes('["\xe9"]'.encode("latin-1"))
    for path in (tmp_path / "absent.json", tmp_path, tmp_path / "latin.json"):
        with pytest.raises(UserError, match=path.name):
            load_passages(str(path))


ROWS = [
    {
        "id": "1",
        "title": "Dunmar_weir",
        "context": "Old.",
        "question": "Who?",
        "answers": {"text": ["T", "U"], "answer_start": [0, 1]},
    },
    {
        "id": "2",
        "title": "Hale",
        "context": "Stone.",
        "question": "What?",
        "answers": {"text": ["Stone"], "answer_start": [0]},
    },
    {
        "id": "3",
        "title": "Dunmar_weir",
        "context": "Old.",
        "question": "How old?",
        "answers": {"text": ["Very"], "answer_start": [0]},
    },
]


@pytest.fixture
def dataset_folder(tmp_path, monkeypatch):
    """A local folder that `datasets` reads; its cache goes to the test's own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "quarry"
    folder.mkdir()

    def fill(**splits):
        for split, rows in splits.items():
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return f"datasets:{folder}"

    return fill


def test_datasets_rows_are_grouped(dataset_folder):
    found = load_passages(dataset_folder(train=ROWS))
    assert [(p.title, p.context, len(p.questions)) for p in found] == [
        ("Dunmar weir", "Old.", 2),
        ("Hale", "Stone.", 1),
    ]
    assert found[0].questions == (Question("Who?", "T", False), Question("How old?", "Very", False))


def test_datasets_split_is_named_where_there_are_several(dataset_folder):
    source = dataset_folder(train=ROWS, test=ROWS[1:2])
    assert [p.title for p in load_passages(f"{source}:test")] == ["Hale"]
    with pytest.raises(UserError, match="quarry:test"):
        load_passages(source)
    with pytest.raises(UserError, match="could not be loaded"):
        load_passages(f"{source}:dev")


def test_datasets_faults_name_the_row(dataset_folder):
    source = dataset_folder(train=[ROWS[0], {**ROWS[1], "answers": {"text": [], "answer_start": []}}])
    with pytest.raises(UserError, match="row 1.*'answers'"):
        load_passages(source)


def test_dataset_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="datasets:.*absent could not be loaded"):
        load_passages(f"datasets:{tmp_path}/absent")


def test_shipped_splits_are_disjoint_and_complete():
    splits = {name: load_passages(f"shipped:{name}") for name in ("train", "validation", "test")}
    ids = [passage.id for found in splits.values() for passage in found]
    assert all(splits.values()) and len(ids) == len(set(ids))
    assert all(len(passage.questions) >= 2 for found in splits.values() for passage in found)
    with pytest.raises(UserError, match="shipped:validation"):
        load_passages("shipped:dev")


@pytest.mark.parametrize(
    ("fraction", "questions", "held"), [(0, 5, 0), (0.2, 5, 1), (0.5, 5, 3), (0.99, 5, 4), (0.5, 1, 0), (0.2, 2, 0)]
)
def test_hold_out_marks_a_fraction_and_leaves_one(fraction, questions, held):
    for passage in hold_out(passages(4, questions), fraction, seed=0):
        assert sum(q.heldout for q in passage.questions) == held
        assert [q.question for q in passage.questions] == [f"Q{i}?" for i in range(questions)]


def test_hold_out_depends_on_seed_and_passage_alone():
    whole = hold_out(passages(20), 0.4, seed=3)
    assert hold_out(passages(20)[7:9], 0.4, seed=3) == whole[7:9]
    assert hold_out(whole, 0.4, seed=3) == whole
    assert hold_out(passages(20), 0.4, seed=4) != whole
    assert len({tuple(q.heldout for q in p.questions) for p in whole}) > 3
    for fraction in (-0.1, 1.0):
        with pytest.raises(UserError, match="fraction"):
            hold_out(passages(1), fraction, seed=0)


def test_select_is_the_global_seed_and_shuffle():
    expected = passages(50)
    random.seed(42)
    random.shuffle(expected)
    state = random.getstate()
    assert select(passages(50), 10, seed=42) == expected[:10]
    assert random.getstate() == state
    assert select(passages(50), 10, seed=None) == passages(10)
    for count in (0, 51):
        with pytest.raises(UserError, match="50"):
            select(passages(50), count, seed=None)
