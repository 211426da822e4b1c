"""The domain of passages: prompts, lessons, quizzes, grades and controls."""

import dataclasses
import json

import pytest

from seal_jax.domains.domain import Answered, Example, Graded
from seal_jax.domains.knowledge.corpus import Passage, Question
from seal_jax.domains.knowledge.knowledge import Knowledge
from seal_jax.domains.knowledge.prompts import edit_prompt
from seal_jax.domains.knowledge.sequences import Rules, answer_example, question_prompt, training_examples

WEIR = Passage("w", "Dunmar weir", "Torvald built it in 1811.", (Question("Who?", "Torvald", True),
                                                                 Question("When?", "1811", False)))  # fmt: skip
HALE = Passage("h", "Hale", "Stone came from Hale.", (Question("What?", "Stone", False),))
SEED = (1, 2)


class Noting:
    """A judge that holds an answer for right if it is the gold one, and cannot grade 'odd'; it notes its calls."""

    name = "noting"

    def __init__(self):
        self.calls = []

    def __call__(self, answered):
        self.calls.append(list(answered))
        return [None if one.answer == "odd" else one.answer == one.gold for one in answered]


def length(example):
    raise AssertionError("the domain of passages does not need lengths")


def knowledge(**rules):
    return Knowledge("rewrite", Rules(**rules), 2e-3, 7, Noting())


def test_a_lesson_is_the_training_sequences_with_the_rate_and_epochs():
    lesson = knowledge(form="chat").lesson(WEIR, "1. It is old.", SEED, length)
    assert lesson.examples == tuple(training_examples(WEIR, "1. It is old.", Rules(form="chat")))
    assert (lesson.learning_rate, lesson.epochs, lesson.failure) == (2e-3, 7, None)


def test_a_lesson_without_text_fails_and_the_passage_alone_does_not():
    assert knowledge().lesson(WEIR, " \n", SEED, length).failure is None
    lesson = knowledge(include_passage=False).lesson(WEIR, " \n", SEED, length)
    assert lesson.failure == "the self-edit holds no text to train on" and lesson.examples == ()
    assert knowledge(include_passage=False).lesson(WEIR, "It is old.", SEED, length).failure is None


@pytest.mark.parametrize("chat", [False, True])
def test_a_quiz_asks_every_question_and_marks_what_is_held_out(chat):
    quiz = knowledge().quiz(WEIR, chat)
    assert quiz.prompts == tuple(question_prompt(WEIR, question, chat) for question in WEIR.questions)
    assert quiz.gold == tuple(answer_example(WEIR, question, chat) for question in WEIR.questions)
    assert quiz.heldout == (True, False)


def test_all_answers_are_graded_in_one_call_of_the_judge():
    domain = knowledge()
    assert domain.grade([(WEIR, ["Torvald", "odd"]), (HALE, ["Iron"])]) == [
        Graded(["Torvald", "odd"], [True, None]),
        Graded(["Iron"], [False]),
    ]
    assert domain.judge.calls == [
        [Answered("Who?", "Torvald", "Torvald"), Answered("When?", "1811", "odd"), Answered("What?", "Stone", "Iron")]
    ]
    assert domain.grader == "noting"


def test_nothing_to_grade_asks_nobody():
    domain = knowledge()
    assert domain.grade([]) == [] and domain.judge.calls == []


def test_an_answer_too_few_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        knowledge().grade([(WEIR, ["Torvald"])])


@pytest.mark.parametrize("include_passage", [True, False])
def test_the_controls_are_what_needs_no_policy(include_passage):
    domain = knowledge(include_passage=include_passage)
    base, shown, passage, rule = domain.controls()
    assert (base.name, base.kind, base.text, base.domain) == ("base", "untrained", None, None)
    assert (shown.name, shown.kind, shown.text) == ("passage in context", "control", None)
    assert (passage.name, passage.kind, passage.text(WEIR, 0)) == ("passage only", "control", "")
    assert passage.domain.lesson(WEIR, "", SEED, length).examples == (
        Example(None, "Dunmar weir\nTorvald built it in 1811.", False),
    )
    text = "Torvald built it in 1811. It holds back the Oru."
    assert rule.text(dataclasses.replace(WEIR, context=text), 0) == text.replace(". It", ".\nIt")


def test_with_the_passage_in_context_it_stands_before_every_question():
    domain = knowledge()
    closed, opened = domain.quiz(WEIR, chat=True), domain.controls()[1].domain.quiz(WEIR, chat=True)
    for asked, shown in zip(closed.prompts, opened.prompts, strict=True):
        assert shown.text == f"{WEIR.title}\n{WEIR.context}\n\n{asked.text}"
    assert [gold.prompt for gold in opened.gold] == list(opened.prompts)
    assert [gold.text for gold in opened.gold] == [gold.text for gold in closed.gold]


def test_what_is_shown_is_json():
    shown = knowledge().shown(WEIR)
    assert (
        json.loads(json.dumps(shown))
        == shown
        == {
            "title": "Dunmar weir",
            "context": "Torvald built it in 1811.",
            "questions": [
                {"question": "Who?", "answer": "Torvald", "heldout": True},
                {"question": "When?", "answer": "1811", "heldout": False},
            ],
        }
    )


def test_any_text_can_be_a_self_edit():
    assert knowledge().problem("") is None
    assert knowledge().words.many == "passages"


def test_the_policy_is_asked_with_the_prompt_of_the_config():
    for chat in (False, True):
        assert knowledge().edit_prompt(WEIR, chat) == edit_prompt(WEIR, "rewrite", chat)
