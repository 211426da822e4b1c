"""Files of completions in every form, and the passages that they belong to."""

import json
import random

import pytest

from seal_jax.authors.author import SelfEdit
from seal_jax.authors.file import Completions, File
from seal_jax.config import Data
from seal_jax.domains.knowledge.corpus import Passage, load_passages, splits
from seal_jax.domains.knowledge.released import Index, Written, load_written
from seal_jax.errors import UserError
from seal_jax.runs.records import Records

CONTEXT = "Torvald built\nthe weir in 1811."
ITEM = {"title": "Dunmar_weir", "context": CONTEXT, "questions": [{"question": "When?", "answer": "1811"}]}
PROMPT = f"List what follows.\n\nPassage:\nDunmar weir\n{CONTEXT}\n\nImplications:\n"


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def found_for(path, title="Dunmar weir", context=CONTEXT):
    entry = Index(load_written(path)).find(title, context)
    return None if entry is None else (entry.texts, entry.prompt)


FORMS = {
    "list.json": ([{**ITEM, "completions": ["one", "two"], "prompt": PROMPT}], (("one", "two"), PROMPT)),
    "articles.json": (
        {"overall": {}, "articles": [{**ITEM, "completions": [{"text": "one", "stats": {}}, {"text": "two"}]}]},
        (("one", "two"), None),
    ),
    "bare.json": (  # a result file without passages: the prompt shows which one it is
        {"articles": [{"title": "Dunmar weir", "prompt": PROMPT, "completions": [{"text": "one"}]}]},
        (("one",), PROMPT),
    ),
    "titles.json": ({"articles": [{"title": "Dunmar weir", "completions": ["one"]}]}, (("one",), None)),
    "sft.jsonl": (
        "".join(json.dumps({"prompt": prompt, "completion": text}) + "\n"
                for prompt, text in ((PROMPT, "one"), ("Of another", "x"), (PROMPT, "two"))),
        (("one", "two"), PROMPT),
    ),
    "graph.json": (
        [{**ITEM, "pair_completions": ["a and b", "b and c"], "triple_completions": ["a, b and c"]}],
        (("a and b\n---\nb and c\n---\na, b and c",), None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read(tmp_path, name):
    value, expected = FORMS[name]
    path = write(tmp_path / name, value)
    assert found_for(path) == expected
    assert found_for(path, title="Other", context="Another passage.") is None


def test_a_title_as_in_an_address_is_the_same_title(tmp_path):
    path = write(tmp_path / "titles.json", {"articles": [{"title": "Saint%27s_weir", "completions": ["one"]}]})
    assert found_for(path, title="Saint's weir") == (("one",), None)


def test_equal_titles_without_passages_belong_to_nobody():
    index = Index([Written(("a",), "Weir"), Written(("b",), "Weir"), Written(("c",), "Mill")])
    assert index.find("Weir", "x") is None and index.find("Mill", "x").texts == ("c",)


def test_a_runs_last_usable_self_edits_are_read_from_its_folder(tmp_path):
    def edit(arm, number, item, sample, text, problem=None, split="train"):
        return {"split": split, "arm": arm, "round": number, "item": item, "sample": sample, "text": text,
                "tokens": [], "log_probs": [], "finished": True, "problem": problem, "attempts": 1}  # fmt: skip

    with Records(tmp_path / "items.jsonl") as records:
        records.append_many([{"split": "train", "item": name, "title": name, "context": f"of {name}"} for name in "xy"])
    with Records(tmp_path / "self_edits.jsonl") as records:
        records.append_many([
            edit("SEAL", 1, "x", 0, "old"), edit("SEAL", 2, "x", 1, "new 1"), edit("SEAL", 2, "x", 0, "new 0"),
            edit("SEAL", 1, "y", 0, "kept"), edit("SEAL", 1, "y", 1, None, "no answer"),
            edit("random", 3, "x", 0, "not"),
        ])  # fmt: skip
    for path in (tmp_path, tmp_path / "self_edits.jsonl"):
        written = load_written(str(path))
        assert [(entry.title, entry.texts) for entry in written] == [("x", ("new 0", "new 1")), ("y", ("kept",))]
        assert Index(written).find("x", "of x").texts == ("new 0", "new 1")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("a.json", "{", "is not JSON"), ("a.json", {"data": []}, "holds no completions"),
        ("a.json", [ITEM], "none of its 1 items has a field 'completions'"),
        ("a.json", [{**ITEM, "completions": "one"}], "item 0: 'completions' must be a list"),
        ("a.json", [{**ITEM, "completions": [{"words": "one"}]}], "item 0: 'completions' must be a list of texts"),
        ("a.json", [{**ITEM, "completions": ["one"], "prompt": 3}], "item 0: 'prompt' must be a text"),
        ("a.json", [3], "item 0 must be an object"), ("a.json", [{"context": 1}], "'context' must be a text"),
        ("a.jsonl", '{"prompt": "p", "completion": "c"}\n{"prompt": 1}\n', "line 2: must be an object with the texts"),
        ("a.jsonl", "\n\n", "it is empty"), ("a.jsonl", "{\n", "line 1 is not JSON"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_one_sentence_with_its_place(tmp_path, name, value, said):
    path = write(tmp_path / name, value)
    with pytest.raises(UserError) as caught:
        load_written(path)
    assert path in str(caught.value) and said in str(caught.value)


def test_what_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_written(str(tmp_path / "none.json"))
    with pytest.raises(UserError, match="has no self-edits"):
        load_written(str(tmp_path))


# ---------------------------------------------------------------- as passages


def test_a_result_file_with_questions_is_a_source_of_passages(tmp_path):
    articles = [{**ITEM, "prompt": PROMPT, "completions": [{"text": "one"}]}]
    [passage] = load_passages(write(tmp_path / "a.json", {"articles": articles}))
    assert passage.completions == ("one",) and passage.prompt == PROMPT and passage.questions[0].answer == "1811"
    with pytest.raises(UserError, match="item 0 lacks the field 'questions'"):
        load_passages(write(tmp_path / "b.json", {"articles": [{"title": "x", "completions": []}]}))


@pytest.mark.parametrize("released", [True, False])
def test_a_released_file_keeps_its_own_order(tmp_path, released):
    items = [{**ITEM, "title": f"T{i}"} | ({"prompt": f"p{i}"} if released else {}) for i in range(8)]
    source = write(tmp_path / "a.json", items)
    other = write(tmp_path / "b.json", [{**ITEM, "title": "B"}])
    data = Data(train=source, evaluation=other, train_items=5, evaluation_items=1, shuffle_seed=42)
    order = [f"T{i}" for i in range(8)]
    if not released:
        random.Random(42).shuffle(order)
    assert [passage.title for passage in splits(data, 0)[0]] == order[:5]


def test_passages_to_learn_from_need_no_questions_where_no_gold_answer_is_asked_for(tmp_path):
    bare = {"title": "Bare", "context": "It is bare."}
    source = write(tmp_path / "a.json", [bare, ITEM, {**bare, "title": "Empty", "questions": []}])
    data = Data(train=source, evaluation=write(tmp_path / "b.json", [{**ITEM, "title": "B"}]), train_items=0,
                evaluation_items=1, shuffle_seed=-1, heldout_fraction=0.5)  # fmt: skip
    train, _, _ = splits(data, 0, labelled=False)
    assert [len(passage.questions) for passage in train] == [0, 1, 0]
    with pytest.raises(UserError, match="item 0 lacks the field 'questions'"):
        splits(data, 0)
    with pytest.raises(UserError, match="item 0 lacks the field 'questions'"):  # evaluation always asks
        splits(Data(train=write(tmp_path / "c.json", [ITEM]), evaluation=source), 0, labelled=False)


# ---------------------------------------------------------------- as an author


def passage(name, *completions, prompt=None):
    return Passage(name, name, name, (), completions, prompt)


def test_a_file_keeps_the_released_prompt_and_lists_what_it_lacks():
    items = [passage("x", "a", "b", prompt="p"), passage("y"), passage("z", "c", "d", "e")]
    [found] = File("train.json").write(items, 2, (0, 1))
    assert found["x"] == [SelfEdit("a", prompt="p"), SelfEdit("b", prompt="p")]
    assert [edit.missing for edit in found["y"]] == [True, True] and found["y"][0].problem == "the file has none"
    assert [edit.text for edit in found["z"]] == ["c", "d"] and found["z"][0].prompt is None


def test_a_file_without_any_of_the_items_is_an_error():
    author = File("other.json", lambda item: Completions())
    with pytest.raises(UserError, match="other.json has no completions of any of the 2 items, such as 'x'"):
        list(author.write([passage("x", "unused"), passage("y")], 1, (0, 1)))
