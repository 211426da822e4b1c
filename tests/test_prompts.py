"""The prompts that ask for a self-edit of a passage: the families, and templates from files."""

import pytest

from seal_jax.domains.domain import Prompt
from seal_jax.domains.knowledge import prompts
from seal_jax.domains.knowledge.corpus import Passage, Question
from seal_jax.domains.knowledge.prompts import FAMILIES, edit_prompt, load_template, resolve
from seal_jax.errors import UserError

WHO = Question("Who built the weir at {Dunmar}?", "Ilse Torvald", heldout=False)
PASSAGE = Passage("p1", "Dunmar weir", "Ilse Torvald built the weir at Dunmar in 1811.", (WHO,))


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"none"}))
def test_family_asks_in_one_sentence_then_shows_the_passage(name):
    family = FAMILIES[name]
    plain, chat = edit_prompt(PASSAGE, name, chat=False), edit_prompt(PASSAGE, name, chat=True)
    assert family.request.count(". ") == 0 and family.request.endswith(".") and family.cue
    shown = f"{family.request}\n\nPassage:\nDunmar weir\n{PASSAGE.context}"
    assert plain == Prompt(f"{shown}\n\n{family.cue}", chat=False)
    assert chat == Prompt(shown, chat=True)


def test_the_seven_families_differ():
    names = {
        "implications",
        "implications-long",
        "implications-very-long",
        "rewrite",
        "self-qa",
        "none",
        "implications-cot",
    }
    assert set(FAMILIES) == names
    assert len({edit_prompt(PASSAGE, name, chat=False).text for name in names}) == 7
    assert edit_prompt(PASSAGE, "none", chat=False) == Prompt(f"Dunmar weir\n{PASSAGE.context}", chat=False)


def test_the_products_that_families_ask_for_fit_the_rules():
    assert "---" in FAMILIES["rewrite"].request
    assert FAMILIES["self-qa"].cue == "Question 1:" and "'Answer:'" in FAMILIES["self-qa"].request
    assert "'Implications:'" in FAMILIES["implications-cot"].request
    assert "Implications:" not in FAMILIES["implications-cot"].cue


def test_template_from_a_file_replaces_only_its_placeholders(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text('{"json": {}} {0} {title}: {context}\n{title}>\n', encoding="utf-8")
    passage = Passage("p", "A {context} title", "set {title} = {}", ())
    text = '{"json": {}} {0} A {context} title: set {title} = {}\nA {context} title>\n'
    for chat in (False, True):
        assert edit_prompt(passage, resolve(str(file)), chat) == Prompt(text, chat)
    assert resolve("rewrite") == "rewrite"


@pytest.mark.parametrize("placeholder", prompts.PLACEHOLDERS)
def test_template_file_without_a_placeholder_is_refused(tmp_path, placeholder):
    file = tmp_path / "mine.txt"
    file.write_text("{title} {context}".replace(placeholder, "x"), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_template(str(file))
    assert str(file) in str(caught.value) and placeholder in str(caught.value)


def test_unreadable_templates_and_unknown_families_are_refused(tmp_path):
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe{title}")
    for path in (tmp_path / "absent.txt", tmp_path, tmp_path / "binary.txt"):
        with pytest.raises(UserError, match="implications-cot"):
            resolve(str(path))
    with pytest.raises(UserError, match="'haiku'"):
        edit_prompt(PASSAGE, "haiku", chat=False)
