"""Reading passages from every source, and choosing among them."""

import hashlib
import json
import random

import datasets
import pytest

from seal_jax.config import Data
from seal_jax.domains.knowledge import corpus
from seal_jax.domains.knowledge.corpus import Passage, Question, hold_out, load_passages, select, splits
from seal_jax.errors import UserError

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


@pytest.mark.parametrize(
    "content", ([{**ITEM, "title": "Saint%27s weir"}], {"data": [{**ARTICLE, "title": "Saint%27s_weir"}]})
)
def test_a_title_is_not_written_as_in_an_address(tmp_path, content):
    assert load_passages(write(tmp_path / "passages.json", content))[0].title == "Saint's weir"


def test_space_around_texts_is_removed(tmp_path):
    spaced = {
        "title": " Dunmar weir\n",
        "context": "\tOld.  And wet. ",
        "questions": [{"question": " Who? ", "answer": "T\n"}],
    }
    article = {"title": " Dunmar_weir ", "paragraphs": [{"context": spaced["context"], "qas": [
        {"question": " Who? ", "answers": [{"text": "T\n"}]}]}]}  # fmt: skip
    for content in ([spaced], {"data": [article]}):
        (found,) = load_passages(write(tmp_path / "spaced.json", content))
        assert (found.title, found.context) == ("Dunmar weir", "Old.  And wet.")
        assert found.questions == (Question("Who?", "T", False),)


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
    names = ("here.json", "train_items")
    assert select(passages(50), 10, 42, names) == expected[:10]
    assert random.getstate() == state
    assert select(passages(50), 0, 42, names) == expected
    assert select(passages(50), 10, -1, names) == passages(10)
    with pytest.raises(
        UserError, match="here.json has 50 passages and --config.data.train_items=51 asks for more.*0 for"
    ):
        select(passages(50), 51, 42, names)


@pytest.fixture
def stored(tmp_path):
    """A function that writes passages with these titles to a file, and gives its path."""

    def store(name, titles):
        items = [{**ITEM, "title": title, "context": f"About {title}."} for title in titles]
        return write(tmp_path / name, items)

    return store


def titles(found):
    return [passage.title for passage in found]


TEN = [f"T{i}" for i in range(10)]


def shuffled(names, seed=42):
    names = list(names)
    random.Random(seed).shuffle(names)
    return names


def test_two_sources_are_shuffled_alike_and_need_no_note(stored):
    data = Data(stored("a.json", TEN), stored("b.json", [f"U{i}" for i in range(10)]), 3, 4)
    train, evaluation, note = splits(data, seed=0)
    order = shuffled(range(10))
    assert titles(train) == [f"T{i}" for i in order[:3]] and titles(evaluation) == [f"U{i}" for i in order[:4]]
    assert note == ""


@pytest.mark.parametrize(
    ("train_items", "evaluation_items", "learned", "evaluated"),
    [(3, 4, 3, 4), (6, 4, 6, 4), (0, 4, 6, 4), (5, 0, 5, 2), (0, 0, 8, 2)],
)
def test_without_an_evaluation_source_passages_are_kept_out_of_training(
    stored, train_items, evaluation_items, learned, evaluated
):
    source = stored("mine.json", TEN)
    train, evaluation, note = splits(Data(source, "auto", train_items, evaluation_items), seed=0)
    order = shuffled(TEN)
    assert titles(train) == order[:learned] and titles(evaluation) == order[learned : learned + evaluated]
    assert note == f"evaluating on {evaluated} of the 10 passages of {source}, kept out of training"


def test_a_fifth_is_at_least_one_passage(stored):
    train, evaluation, _ = splits(Data(stored("mine.json", TEN[:3]), "auto", 0, 0), seed=0)
    assert (len(train), len(evaluation)) == (2, 1)


@pytest.mark.parametrize(("train_items", "evaluation_items"), [(7, 4), (10, 0), (0, 10), (0, 11), (11, 1)])
def test_too_few_passages_for_both_names_both_flags(stored, train_items, evaluation_items):
    source = stored("mine.json", TEN)
    with pytest.raises(UserError) as caught:
        splits(Data(source, "auto", train_items, evaluation_items), seed=0)
    text = str(caught.value)
    assert text.startswith(f"{source} has 10 passages, too few for {train_items or 'the rest'} to learn from and ")
    assert "--config.data.train_items" in text and "--config.data.evaluation_items" in text


def test_a_single_passage_cannot_be_both(stored):
    with pytest.raises(UserError, match="has 1 passage, too few"):
        splits(Data(stored("mine.json", TEN[:1]), "auto", 0, 0), seed=0)


def test_copies_of_what_is_learned_are_not_evaluated_on(stored):
    source = stored("mine.json", ["A", "B", "A", "C"])
    train, evaluation, _ = splits(Data(source, "auto", 2, 1, shuffle_seed=-1), seed=0)
    assert (titles(train), titles(evaluation)) == (["A", "B"], ["C"])
    with pytest.raises(UserError, match="too few for 2 to learn from and 2 others"):
        splits(Data(source, "auto", 2, 2, shuffle_seed=-1), seed=0)


@pytest.mark.parametrize(("train", "expected"), [(corpus.SQUAD_TRAIN, corpus.SQUAD_VALIDATION), ("mine", "mine")])
def test_only_squad_is_evaluated_on_its_own_validation_split(monkeypatch, train, expected):
    asked = []

    def load(source, labelled=True):
        asked.append(source)
        return [Passage(f"{source}{i}", f"{source}{i}", "C", ()) for i in range(8)]

    monkeypatch.setattr(corpus, "load_passages", load)
    _, evaluation, note = splits(Data(train, "auto", 2, 3), seed=0)
    assert set(asked) == {train, expected}
    assert all(passage.title.startswith(expected) for passage in evaluation) and bool(note) == (train == expected)


def test_a_passage_in_both_is_refused_by_name(stored):
    first = stored("a.json", TEN)
    with pytest.raises(UserError) as caught:
        splits(Data(first, stored("b.json", ["U", "T3", "T7"]), 0, 0, shuffle_seed=-1), seed=0)
    text = str(caught.value)
    assert text.startswith("2 of the 3 passages to evaluate on are also learned from ('T3', 'T7');")
    assert "--config.data.evaluation" in text
    with pytest.raises(UserError, match=r"5 of the 5 .*\('T0', 'T1', 'T2', …\)"):
        splits(Data(first, first, 5, 5, shuffle_seed=-1), seed=0)


def test_the_same_title_with_another_text_is_another_passage(stored, tmp_path):
    other = write(tmp_path / "b.json", [{**ITEM, "title": "T1", "context": "Something else."}])
    _, evaluation, _ = splits(Data(stored("a.json", TEN), other, 0, 0), seed=0)
    assert titles(evaluation) == ["T1"]


def test_asking_for_more_than_there_are_names_the_flag(stored):
    data = Data(stored("a.json", TEN), stored("b.json", ["U"]), 11, 1)
    with pytest.raises(UserError, match="a.json has 10 passages and --config.data.train_items=11 asks for more"):
        splits(data, seed=0)
    data = Data(stored("a.json", TEN), stored("b.json", ["U"]), 1, 2)
    with pytest.raises(UserError, match="b.json has 1 passage and --config.data.evaluation_items=2 asks for more"):
        splits(data, seed=0)


def test_questions_are_held_out_of_what_is_learned_alone(stored):
    data = Data(stored("mine.json", TEN), "auto", 5, 5, heldout_fraction=0.5)
    train, evaluation, _ = splits(data, seed=3)
    plain, _, _ = splits(Data(data.train, "auto", 5, 5), seed=3)
    assert train == hold_out(plain, 0.5, seed=3) and train != plain
    assert not any(question.heldout for passage in evaluation for question in passage.questions)
