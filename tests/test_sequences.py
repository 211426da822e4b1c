"""From self-edits to training sequences: the paper's rules, Markdown, the forms, and how questions are asked."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal_jax.domains.domain import Example, Prompt
from seal_jax.domains.knowledge.corpus import Passage, Question
from seal_jax.domains.knowledge.sequences import (
    Rules,
    answer_example,
    question_prompt,
    split_completion,
    training_examples,
    training_texts,
)
from seal_jax.errors import UserError

WHO = Question("Who built the weir at {Dunmar}?", "Ilse Torvald", heldout=False)
PASSAGE = Passage("p1", "Dunmar weir", "Ilse Torvald built the weir at Dunmar in 1811.", (WHO,))

LINES, WHOLE, THOUGHT = Rules(), Rules(split_newlines=False), Rules(chain_of_thought=True)
NUMBERED = [f"{n}. Stone number {n} came from Hale." for n in range(1, 41)]

SENTENCES = Rules(split_sentences=True)

# (name, rules, completion, the expected texts without title and without the passage), each worked out by hand
CASES = [
    (
        "sentences of lines",
        SENTENCES,
        "1. The weir is old. Dr. I. Torvald built it!\nIt holds 3.5 tons. \"Why?\" Nobody knows.",
        ["The weir is old.", "Dr. I. Torvald built it!", "It holds 3.5 tons.", '"Why?"', "Nobody knows."],
    ),
    ("fragments", Rules(split_sentences=True, least_words=3, max_sequences=2),
     "Facts:\n1. Ab\n2. It is ab. Yes. Bo is bo.\nCo is co.", ["It is ab.", "Bo is bo."]),
    ("the first two", Rules(split_sentences=True, max_sequences=2), "Ab. Bo. Co. Do.", ["Ab.", "Bo."]),
    (
        "numbered list",
        LINES,
        "1. The weir is old.\n2. Torvald built it.",
        ["1. The weir is old.", "2. Torvald built it."],
    ),
    (
        "bullets",
        LINES,
        "- It is old.\n- 200-300 carts of stone went in.",
        ["- It is old.", "- 200-300 carts of stone went in."],
    ),
    (
        "blank lines and spaces at the ends",
        LINES,
        "1. It is old. \n\n  \n   a. Very old.\n",
        ["1. It is old.", "a. Very old."],
    ),
    (
        "heading before the list",
        LINES,
        "What follows from this:\n1. It is old.\n2. It leaks.",
        ["1. It is old.", "2. It leaks."],
    ),
    (
        "heading after the list stays",
        LINES,
        "1. It is old.\nNotes:\n1. It leaks.",
        ["1. It is old.", "Notes:", "1. It leaks."],
    ),
    ("heading before bullets stays", LINES, "Facts:\n- It is old.", ["Facts:", "- It is old."]),
    ("two lists, blank line between", LINES, "1. Old.\n\n1. Leaks.", ["1. Leaks."]),
    ("Windows line ends", LINES, "1. It is old.\r\n2. It leaks.\r\n", ["1. It is old.", "2. It leaks."]),
    (
        "segments and lines",
        LINES,
        "A weir.\nBuilt of stone.\n---\nOld.\n---\n\n",
        ["A weir.", "Built of stone.", "Old."],
    ),
    ("segments whole", WHOLE, "A weir.\nBuilt of stone.\n---\nOld.\n---\n\n", ["A weir.\nBuilt of stone.", "Old."]),
    ("one segment whole", WHOLE, " List:\n1. Old.\n", ["List:\n1. Old."]),
    ("at most 30", LINES, "\n".join(NUMBERED), NUMBERED[:30]),
    ("heading dropped before counting", LINES, "Facts:\n" + "\n".join(NUMBERED), NUMBERED[:30]),
    (
        "rambling into another passage",
        LINES,
        "1. Old.\n\nPassage:\nBread rises.\n\nImplications:\n1. Yeast.",
        ["1. Old.", "Passage:", "Bread rises.", "Implications:", "1. Yeast."],
    ),
    (
        "questions after the cue",
        LINES,
        " Who built it?\nAnswer: Torvald.\n\nQuestion 2: When?\nAnswer: 1811.",
        ["Question 1: Who built it?\nAnswer: Torvald.", "Question 2: When?\nAnswer: 1811."],
    ),
    (
        "questions with their marker",
        LINES,
        "Question 1: Who?\nAnswer: Torvald.\nQuestion 2: When?\nAnswer: In\n1811.",
        ["Question 1: Who?\nAnswer: Torvald.", "Question 2: When?\nAnswer: In\n1811."],
    ),
    (
        "questions on one line",
        LINES,
        "Question 1: Who? Answer: T. Question 2: When? Answer: 1811.",
        ["Question 1: Who? Answer: T.", "Question 2: When? Answer: 1811."],
    ),
    (
        "questions between rules",
        LINES,
        "Question 1: Who?\nAnswer: T.\n---\nQuestion 2: When?\nAnswer: 1811.",
        ["Question 1: Who?\nAnswer: T.", "Question 2: When?\nAnswer: 1811."],
    ),
    (
        "questions without answers are lines",
        LINES,
        "Question 1: Who?\nQuestion 2: When?",
        ["Question 1: Who?", "Question 2: When?"],
    ),
    (
        "questions unsplit",
        WHOLE,
        "Question 1: Who?\nAnswer: T.\nQuestion 2: When?\nAnswer: 1811.",
        ["Question 1: Who?\nAnswer: T.\nQuestion 2: When?\nAnswer: 1811."],
    ),
    (
        "thought",
        THOUGHT,
        "A weir holds water.\nSo there was a mill.\nImplications:\n1. A mill stood there.",
        ["1. A mill stood there."],
    ),
    (
        "thought in bold, text on the line",
        THOUGHT,
        "Hm.\n**Implications:** A mill.\nA miller.",
        ["A mill.", "A miller."],
    ),
    ("thought that never ends", THOUGHT, "A weir holds water, and the implications: many.", []),
    (
        "bold markers",
        LINES,
        "**Question 1:** Who?\n**Answer:** Torvald.\n\n**Question 2:** When?\n**Answer:** 1811.",
        ["Question 1: Who?\nAnswer: Torvald.", "Question 2: When?\nAnswer: 1811."],
    ),
    (
        "bold markers with the colon outside",
        LINES,
        "**Question 1**: Who?\n**Answer**: T.\n\n__Question 2__ : When?\n*Answer:* 1811.",
        ["Question 1: Who?\nAnswer: T.", "Question 2: When?\nAnswer: 1811."],
    ),
    (
        "bold questions",
        LINES,
        "**Question 1: Who?**  \nAnswer: T.\n\n**Question 2: When?**\n**Answer: In *1811*.**",
        ["Question 1: Who?  \nAnswer: T.", "Question 2: When?\nAnswer: In *1811*."],
    ),
    (
        "bold on one line",
        LINES,
        "**Question 1: Who?** **Answer: T.** **Question 2:** When? **Answer:** 1811.",
        ["Question 1: Who? Answer: T.", "Question 2: When? Answer: 1811."],
    ),
    (
        "questions as headings and list entries",
        LINES,
        "### Question 1: Who?\n- Answer: T.\n## **Question 2:** When?\n* **Answer:** 1811.",
        ["Question 1: Who?\nAnswer: T.", "Question 2: When?\nAnswer: 1811."],
    ),
    (
        "bold and rules",
        LINES,
        "**Question 1:** Who?\n**Answer:** T.\n\n---\n\n**Question 2:** When?\n**Answer:** 1811.\n\n---",
        ["Question 1: Who?\nAnswer: T.", "Question 2: When?\nAnswer: 1811."],
    ),
    (
        "bold inside a question stays",
        LINES,
        "**Question 1:** Who **really** built it?\n**Answer:** **Torvald**.",
        ["Question 1: Who **really** built it?\nAnswer: **Torvald**."],
    ),
    (
        "Markdown without questions stays",
        LINES,
        "### Facts\n**Old:** it is.\n- **Answer:** none.",
        ["### Facts", "**Old:** it is.", "- **Answer:** none."],
    ),
    ("bold questions unsplit", WHOLE, "**Question 1:** Who?\n**Answer:** T.", ["**Question 1:** Who?\n**Answer:** T."]),
    ("empty", LINES, "", []),
    ("nothing but rules and space", LINES, " \n---\n\t---", []),
]


@pytest.mark.parametrize(("rules", "completion", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_training_texts_follow_the_rules(rules, completion, expected):
    texts = training_texts(PASSAGE, completion, rules)
    assert texts == [f"Dunmar weir\n{text}" for text in [*expected, PASSAGE.context]]


def test_plain_examples_are_the_texts_unchanged():
    rules = Rules(closing=True)
    examples = training_examples(PASSAGE, "1. It is old.", rules)
    assert examples == [Example(None, text, True) for text in training_texts(PASSAGE, "1. It is old.", rules)]
    assert not training_examples(PASSAGE, "", Rules())[0].closing


def test_without_the_passage_an_empty_edit_trains_nothing():
    for form in ("plain", "chat"):
        assert training_examples(PASSAGE, " \n", Rules(form=form, include_passage=False)) == []
        assert len(training_examples(PASSAGE, " \n", Rules(form=form))) == 1


def test_chat_lines_lose_title_and_list_marker():
    completion = "1. It is old.\n2) It leaks.\n- It sings.\n* It hums.\n1811 was dry.\n***"
    examples = training_examples(PASSAGE, completion, Rules(form="chat", closing=True))
    texts = ["It is old.", "It leaks.", "It sings.", "It hums.", "1811 was dry.", PASSAGE.context]
    assert [example.text for example in examples] == texts
    assert all(example.closing and example.prompt.chat for example in examples)
    requests = [example.prompt.text for example in examples]
    assert len(set(requests[:-1])) == 1 and requests[-1] != requests[0]
    assert all(PASSAGE.title in request and PASSAGE.context not in request for request in requests)


def test_chat_questions_are_asked_as_in_the_evaluation():
    completion = " Who built it?\nAnswer: Torvald.\n**Question 2:** When?\n**Answer:** 1811.\n\nQuestion 3: Why"
    examples = training_examples(PASSAGE, completion, Rules(form="chat", include_passage=False))
    asked = [("Who built it?", "Torvald."), ("When?", "1811.")]  # the third was cut off before its answer
    expected = [Example(question_prompt(PASSAGE, Question(q, a, False), True), a, False) for q, a in asked]
    assert examples == expected


def test_chat_keeps_an_unsplit_list_of_questions_whole():
    completion = "Question 1: Who?\nAnswer: T.\nQuestion 2: When?\nAnswer: 1811."
    examples = training_examples(PASSAGE, completion, Rules("chat", split_newlines=False, include_passage=False))
    assert [example.text for example in examples] == [completion]


PARTS = st.sampled_from(
    [
        "Question 1:",
        "Question 99:",
        "Answer:",
        "---",
        "\n",
        "\r\n",
        "1.",
        "- ",
        "* ",
        "Implications:",
        "**",
        "### ",
        "**Question 2:**",
        "**Answer:**",
        "{title}",
        "{0}",
        "Question",
        "  ",
        "\x00",
        "\u2028",
        "é",
        "word ",
    ]
)


@settings(database=None, deadline=None)
@given(
    st.one_of(st.text(), st.lists(st.one_of(PARTS, st.text(max_size=5)), max_size=60).map("".join)),
    st.builds(
        Rules,
        st.sampled_from(["plain", "chat"]),
        st.booleans(),
        st.integers(0, 40),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
)
def test_any_completion_gives_well_formed_examples(completion, rules):
    parts = split_completion(completion, rules)
    assert len(parts) <= rules.max_sequences
    assert all(part and part == part.strip() for part in parts)
    examples = training_examples(PASSAGE, completion, rules)
    assert len(examples) <= len(parts) + rules.include_passage
    assert all(example.text.strip() and example.closing == rules.closing for example in examples)
    if rules.include_passage:
        assert examples[-1].text.endswith(PASSAGE.context)
    if rules.form == "plain":
        assert all(example.prompt is None and example.text.startswith("Dunmar weir\n") for example in examples)
    else:
        assert all(example.prompt.chat and "Dunmar weir" in example.prompt.text for example in examples)


def test_rules_are_checked():
    with pytest.raises(UserError, match="'plain' or 'chat'"):
        Rules(form="chatty")
    with pytest.raises(UserError, match="max_sequences"):
        Rules(max_sequences=-1)


def test_question_prompt_shows_topic_and_question_only():
    for chat in (False, True):
        prompt = question_prompt(PASSAGE, WHO, chat)
        assert prompt.chat == chat
        assert "Topic: Dunmar weir\nWho built the weir at {Dunmar}?" in prompt.text
        assert PASSAGE.context not in prompt.text and WHO.answer not in prompt.text
    assert question_prompt(PASSAGE, WHO, chat=False).text.endswith("\n\nAnswer:")
    assert question_prompt(PASSAGE, WHO, chat=True).text.endswith("{Dunmar}?")


def test_gold_answer_continues_the_prompt():
    plain, chat = answer_example(PASSAGE, WHO, chat=False), answer_example(PASSAGE, WHO, chat=True)
    assert plain == Example(question_prompt(PASSAGE, WHO, False), " Ilse Torvald", False)
    assert chat == Example(question_prompt(PASSAGE, WHO, True), "Ilse Torvald", False)


# ---------------------------------------------------------------- teachers


def test_a_teacher_reads_the_passage_above_the_same_request():
    """In both forms; the passage's own sequence has none, and without it the last line has one too."""
    shown = f"{PASSAGE.title}\n{PASSAGE.context}\n\n"
    text = "Question 1: Who?\nAnswer: Ilse\nQuestion 2: When?\nAnswer: 1811"
    for form in ("plain", "chat"):
        for passage in (True, False):
            bare = training_examples(PASSAGE, text, Rules(form=form, include_passage=passage))
            taught = training_examples(PASSAGE, text, Rules(form=form, include_passage=passage, teacher=True))
            assert [replace(example, teacher=None) for example in taught] == bare and len(bare) == 2 + passage
            assert [example.teacher is None for example in taught] == [False, False, True][: len(taught)]
            for example in taught[:2]:
                request = "" if form == "plain" else example.prompt.text
                assert example.teacher == Prompt(shown + request, chat=form == "chat")
