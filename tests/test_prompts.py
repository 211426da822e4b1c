"""The prompts that ask for a self-edit of a passage: the families, and templates from files."""

import re

import pytest

from seal_jax.domains.domain import Prompt
from seal_jax.domains.knowledge import prompts
from seal_jax.domains.knowledge.corpus import Passage, Question
from seal_jax.domains.knowledge.prompts import FAMILIES, edit_prompt, load_template, resolve
from seal_jax.domains.knowledge.sequences import Rules, split_completion
from seal_jax.errors import UserError

WHO = Question("Who built the weir at {Dunmar}?", "Ilse Torvald", heldout=False)
PASSAGE = Passage("p1", "Dunmar weir", "Ilse Torvald built the weir at Dunmar in 1811.", (WHO,))


FEW_SHOT = ("facts-few-shot", "self-qa-few-shot", "rewrite-few-shot")
CUES = {
    "implications": "Implications:\n", "implications-long": "Implications:\n",
    "implications-very-long": "Implications:\n", "rewrite": "Versions:\n", "self-qa": "Question 1:",
    "implications-cot": "Step by step:\n",
}  # fmt: skip


@pytest.mark.parametrize("name", CUES)
def test_family_asks_in_one_sentence_then_shows_the_passage(name):
    plain, chat = edit_prompt(PASSAGE, name, chat=False), edit_prompt(PASSAGE, name, chat=True)
    request, _, shown = chat.text.partition("\n\n")
    assert request.count(". ") == 0 and request.endswith(".") and chat == Prompt(chat.text, chat=True)
    assert shown == f"Passage:\nDunmar weir\n{PASSAGE.context}"
    assert plain == Prompt(f"{chat.text}\n\n{CUES[name]}", chat=False)


def test_the_families_differ():
    assert set(FAMILIES) == {*CUES, *FEW_SHOT, "none"}
    assert len({edit_prompt(PASSAGE, name, chat=False).text for name in FAMILIES}) == len(FAMILIES) == 10
    assert edit_prompt(PASSAGE, "none", chat=False) == Prompt(f"Dunmar weir\n{PASSAGE.context}", chat=False)


def test_the_products_that_families_ask_for_fit_the_rules():
    asked = {name: edit_prompt(PASSAGE, name, chat=True).text for name in CUES}
    assert "---" in asked["rewrite"] and "'Answer:'" in asked["self-qa"]
    assert "'Implications:'" in asked["implications-cot"]


@pytest.mark.parametrize("name", FEW_SHOT)
def test_few_shot_families_are_plain_text_for_all_models_and_end_at_a_blank_line(name):
    prompt = edit_prompt(PASSAGE, name, chat=True)
    assert prompt == edit_prompt(PASSAGE, name, chat=False) and (prompt.chat, prompt.stops) == (False, ("\n\n",))
    assert "{" not in prompt.text.replace(WHO.question, "") and prompt.text.count("Passage:") == 3
    *examples, last = prompt.text.split("\n\nPassage:\n")
    assert last.startswith(f"Dunmar weir\n{PASSAGE.context}\n\n")
    cue = last.rpartition("\n\n")[2]
    for shown in examples[1:]:
        told, _, product = shown.partition(f"\n\n{cue}")
        assert product.strip() and "\n\n" not in product  # what is shown would not be cut by the stop
        rules = Rules(max_sequences=99)
        parts = split_completion(cue + product if cue.startswith("Question") else product, rules)
        assert len(parts) >= 5
        for part in parts:  # short answers and sentences hold nothing that the passage does not
            numbers = re.findall(r"\d+", part.partition("Answer:")[2] or part)
            assert all(number in told for number in numbers)
    assert cue == {"self-qa-few-shot": "Question 1:", "facts-few-shot": "Facts:\n"}.get(name, "Told again:\n")


def test_what_follows_the_cue_of_ones_own_file_is_for_plain_models(tmp_path):
    (tmp_path / "mine.txt").write_text("{title}: {context}{cue} So:", encoding="utf-8")
    text = resolve(str(tmp_path / "mine.txt"))
    assert edit_prompt(PASSAGE, text, chat=True) == Prompt(f"Dunmar weir: {PASSAGE.context}", chat=True)
    assert edit_prompt(PASSAGE, text, chat=False) == Prompt(f"Dunmar weir: {PASSAGE.context} So:", chat=False)


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
