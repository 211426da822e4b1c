"""The shipped corpus of invented passages keeps its promises: sizes, splits, verbatim answers, nothing given away."""

import json
import re
from collections import Counter
from importlib import resources

import pytest

PATH = resources.files("seal_jax") / "data" / "invented.json"
CORPUS = json.loads(PATH.read_text(encoding="utf-8"))
PASSAGES = CORPUS["passages"]
SMALL_WORDS = {"the", "of", "a", "an", "and", "to", "in"}

each_passage = pytest.mark.parametrize("passage", PASSAGES, ids=lambda p: p["title"])


def plain(text: str) -> str:
    """Lower-case words with single spaces and nothing else, with a space at both ends."""
    return f" {re.sub(r'[^a-z0-9]+', ' ', text.lower()).strip()} "


def owners(pieces_of) -> dict[str, set[str]]:
    """Which titles each piece of text belongs to."""
    found: dict[str, set[str]] = {}
    for passage in PASSAGES:
        for piece in pieces_of(passage):
            found.setdefault(piece, set()).add(passage["title"])
    return found


def runs_of_eight(passage) -> list[str]:
    words = plain(passage["context"]).split()
    return [" ".join(words[i : i + 8]) for i in range(len(words) - 7)]


def test_counts_and_splits():
    assert list(CORPUS) == ["passages"]
    assert Counter(p["split"] for p in PASSAGES) == {"train": 48, "validation": 12, "test": 36}


def test_the_file_is_indented_by_one_so_that_changes_can_be_reviewed():
    assert PATH.read_text(encoding="utf-8") == json.dumps(CORPUS, ensure_ascii=False, indent=1) + "\n"


def test_titles_are_unique():
    assert len({plain(p["title"]) for p in PASSAGES}) == len(PASSAGES)


@each_passage
def test_fields_and_lengths(passage):
    assert list(passage) == ["title", "context", "split", "questions"]
    assert 1 <= len(passage["title"].split()) <= 4
    assert 55 <= len(passage["context"].split()) <= 90
    assert "\n" not in passage["context"]
    assert len(passage["questions"]) == 5


@each_passage
def test_answers_stand_once_in_the_passage(passage):
    for item in passage["questions"]:
        assert list(item) == ["question", "answer"]
        assert item["answer"].lower() in passage["context"].lower(), item
        assert plain(passage["context"]).count(plain(item["answer"])) == 1, item
        assert 1 <= len(item["answer"].split()) <= 6, item
    assert len({plain(item["answer"]) for item in passage["questions"]}) == 5


@each_passage
def test_questions_name_their_subject_and_do_not_give_the_answer_away(passage):
    subject = [word[:4] for word in plain(passage["title"]).split() if word not in SMALL_WORDS and len(word) > 2]
    for item in passage["questions"]:
        question = plain(item["question"])
        assert item["question"].endswith("?"), item
        assert plain(item["answer"]) not in question, item
        assert all(f" {stem}" in question for stem in subject), item
    assert len({item["question"] for item in passage["questions"]}) == 5


def test_no_two_passages_share_eight_words_in_a_row():
    shared = {run: titles for run, titles in owners(runs_of_eight).items() if len(titles) > 1}
    assert not shared


def test_no_two_passages_share_an_answer():
    shared = {a: t for a, t in owners(lambda p: {plain(q["answer"]) for q in p["questions"]}).items() if len(t) > 1}
    assert not shared


def test_no_passage_names_the_subject_of_another():
    for passage in PASSAGES:
        text = plain(f"{passage['context']} {' '.join(q['question'] for q in passage['questions'])}")
        named = [p["title"] for p in PASSAGES if p is not passage and plain(p["title"]) in text]
        assert not named, passage["title"]
