"""ARC as a domain: problems, lessons, quizzes, verdicts, the rows that need no policy, and what is recorded."""

import dataclasses
import json

import numpy as np
import pytest
from test_arc_training_set import made_up

from seal_jax.domains.arc import edit, text, views
from seal_jax.domains.arc.fewshot import ControlSettings, Fewshot, attempts_of
from seal_jax.domains.arc.grids import ArcTask, Pair, make_grid
from seal_jax.domains.arc.training_set import Limits
from seal_jax.domains.domain import Graded, Lesson, Problem, Words

TASK = made_up(3)
PAIR = Pair(make_grid([[1, 2, 3]]), make_grid([[4], [5], [6]]))
TWO_TESTS = ArcTask("two tests", TASK.train, (*TASK.test, PAIR))
VALID = edit.canonical(edit.ORACLE)
FEWSHOT = Fewshot(text.Form(), Limits(examples=6, tokens=400, steps=6), batch=2, seed=0)


def length(example) -> int:
    return len(example.prompt.system) + len(example.prompt.text) + len(example.text)


def lesson(words: str, domain: Fewshot = FEWSHOT) -> Lesson:
    return domain.lesson(TASK, words, (0, 1), length)


# ---------------------------------------------------------------- self-edits


def test_what_cannot_be_read_is_sampled_again_and_what_is_invalid_fails():
    assert FEWSHOT.problem(VALID) is None
    unreadable, invalid = FEWSHOT.problem("no JSON at all"), FEWSHOT.problem(VALID.replace("2}", "0}"))
    assert unreadable == Problem("there is no whole JSON object in the text", again=True)
    assert invalid == Problem("num_train_epochs must be a whole number from 1 and is 0", again=False)
    assert FEWSHOT.problem(VALID.replace("2}", "99}")) is None  # too many steps: only the lesson can tell


def test_a_valid_self_edit_is_a_lesson():
    found = lesson(f"Here it is: {VALID}")
    assert found.failure is None and len(found.examples) == 6
    assert (found.learning_rate, found.epochs) == (1e-4, 2)
    assert all(length(example) < 400 for example in found.examples)
    assert found == lesson(VALID) and found != FEWSHOT.lesson(TASK, VALID, (0, 2), length)


@pytest.mark.parametrize(
    "words, why",
    [
        ("no JSON at all", "invalid: there is no whole JSON object"),
        (VALID.replace("2}", "3}"), "9 steps, more than 6"),
        (VALID.replace("true", "1"), "invalid: use_basic_augmentations must be"),
    ],
)
def test_what_cannot_be_carried_out_fails_with_a_reason(words, why):
    found = lesson(words)
    assert found.examples == () and why in found.failure


def test_no_example_within_the_limit_fails():
    strict = dataclasses.replace(FEWSHOT, limits=Limits(examples=6, tokens=10, steps=6))
    assert "fewer than 10 tokens" in lesson(VALID, strict).failure


def test_the_request_shows_the_task():
    prompt = FEWSHOT.edit_prompt(TASK, True)
    assert prompt == edit.edit_prompt(TASK) and prompt.chat


# ---------------------------------------------------------------- questions and verdicts


def seen(prompt) -> str:
    """The text of all grids of a prompt."""
    return prompt.system.partition("\n\n")[2] + prompt.text


def test_the_quiz_asks_all_views_of_each_test_input():
    quiz = FEWSHOT.quiz(TWO_TESTS, True)
    assert len(quiz.gold) == len(quiz.heldout) == 2 and quiz.heldout == (False, False)
    # Three contexts of two demonstrations in one or both orders, and five views, for each test input.
    assert 2 * (3 + 5) < len(quiz.prompts) <= 2 * (6 + 5)
    asked = text.grid_text(PAIR.input, FEWSHOT.form) + text.ARROW
    first = next(i for i, prompt in enumerate(quiz.prompts) if prompt.text == asked)
    assert all(prompt.text != asked for prompt in quiz.prompts[:first])
    assert quiz.prompts[first].system.count(text.END) == 2  # a context lacks one of three demonstrations
    assert quiz == FEWSHOT.quiz(TWO_TESTS, True)
    other = dataclasses.replace(FEWSHOT, seed=1).quiz(TWO_TESTS, True)
    assert list(map(seen, other.prompts)) != list(map(seen, quiz.prompts)) and other.gold == quiz.gold


def test_two_tests_of_a_task_are_asked_in_views_of_their_own():
    """The draws for one test input are not those for the other, nor those for another task."""

    def orders(task: ArcTask) -> list[list[str]]:
        prompts = FEWSHOT.quiz(task, True).prompts
        systems = [prompt.system for prompt in prompts]
        starts = [i for i, system in enumerate(systems) if i == 0 or system == systems[0]]
        return [systems[begin:end] for begin, end in zip(starts, [*starts[1:], None], strict=True)]

    same = make_grid([[1, 2], [3, 4]])
    tests = tuple(Pair(same, same) for _ in range(6))
    per_test = [tuple(map(tuple, orders(ArcTask(name, made_up(4).train, tests)))) for name in "ab"]
    assert len(per_test[0]) == len(per_test[1]) == 6
    assert len(set(per_test[0])) == 6 and not set(per_test[0]) & set(per_test[1])


def test_the_gold_answer_follows_all_demonstrations():
    [example] = FEWSHOT.quiz(TASK, True).gold
    assert example.text == text.answer_text(TASK.test[0].output, FEWSHOT.form)
    assert not example.closing and not example.whole
    assert example.prompt == text.answer_prompt(TASK.train, TASK.test[0].input, FEWSHOT.form)


def answered(task: ArcTask, grids, domain: Fewshot = FEWSHOT) -> list[str]:
    """The answers of one who gives `grids[test]` to each question, seen in the view of the question."""
    return [
        text.answer_text(views.VIEWS[question.view][0](grid), domain.form)
        for questions, grid in zip(domain.questions(task), grids, strict=True)
        for question in questions
    ]


def test_answers_in_every_view_are_put_to_the_vote():
    truths = [pair.output for pair in TWO_TESTS.test]
    [graded] = FEWSHOT.grade([(TWO_TESTS, answered(TWO_TESTS, truths))])
    assert graded.verdicts == [True, True]
    for shown, truth in zip(graded.answers, truths, strict=True):
        np.testing.assert_array_equal(attempts_of(shown)[0], truth)
    [half] = FEWSHOT.grade([(TWO_TESTS, answered(TWO_TESTS, [truths[0], truths[1].T]))])
    assert half.verdicts == [False, False]  # a task is solved as a whole
    count = len(FEWSHOT.quiz(TWO_TESTS, True).prompts)
    [none] = FEWSHOT.grade([(TWO_TESTS, ["no grid"] * count)])
    assert none == Graded(["", ""], [False, False]) and attempts_of("") == []
    with pytest.raises(ValueError, match=f"{count - 1} answers to {count} questions"):
        FEWSHOT.grade([(TWO_TESTS, ["no grid"] * (count - 1))])


@pytest.mark.parametrize("view", views.VIEWS)
def test_an_answer_counts_as_it_stands_in_the_task(view):
    """Only the questions of one view are answered, all others with nothing."""
    truth = make_grid([[1, 2, 3], [4, 5, 6]])
    [questions] = FEWSHOT.questions(TASK)
    seen = text.answer_text(views.VIEWS[view][0](truth), FEWSHOT.form)
    [graded] = FEWSHOT.grade([(TASK, [seen if question.view == view else "" for question in questions])])
    [attempt] = attempts_of(graded.answers[0])
    np.testing.assert_array_equal(attempt, truth)


def test_test_inputs_may_have_different_numbers_ofquestions():
    """A symmetric test input with symmetric demonstrations has fewer views that differ."""
    same = make_grid([[1, 2], [2, 1]])  # looks alike transposed and turned by half
    odd = make_grid([[1, 2, 3]])
    task = ArcTask("t", (Pair(same, same), Pair(same, same)), (Pair(same, make_grid([[7]])), Pair(odd, odd)))
    sizes = [len(questions) for questions in FEWSHOT.questions(task)]
    assert sizes[0] < sizes[1]
    [graded] = FEWSHOT.grade([(task, answered(task, [pair.output for pair in task.test]))])
    assert graded.verdicts == [True, True]


def test_the_vote_is_chosen_by_its_name():
    """Identity: 1, 1, 2. Flip 0: 3. In two stages each has a vote; the reference gives 3 four, 1 three and 2 two."""
    grids = {"identity": [1, 1, 2], "flip 0": [3]}
    [questions] = FEWSHOT.questions(TASK)
    answers = []
    for question in questions:
        left = grids.get(question.view)
        answers.append(text.answer_text(make_grid([[left.pop(0)]]), FEWSHOT.form) if left else "")
    assert not any(grids.values())
    for vote, attempts in (("two-stage", [1, 2]), ("reference", [3, 1])):
        [graded] = dataclasses.replace(FEWSHOT, vote=vote).grade([(TASK, answers)])
        assert [int(grid[0, 0]) for grid in attempts_of(graded.answers[0])] == attempts
    assert FEWSHOT.vote == "two-stage"


# ---------------------------------------------------------------- rows and records


def test_the_rows_that_need_no_policy():
    settings = ControlSettings(rates=(1e-4, 1e-2), epochs=(2, 4), oracle_rate=5e-4, oracle_epochs=7, samples=20)
    rows = dataclasses.replace(FEWSHOT, settings=settings).controls()
    assert [(row.name, row.samples, row.kind) for row in rows] == [
        ("in context", 1, "untrained"),
        ("random configuration", 20, "control"),
        ("oracle configuration", 1, "control"),
    ]
    untrained, random, oracle = (row.text for row in rows)
    assert untrained is None
    by_hand = edit.parse(oracle(TASK, 0))
    assert by_hand.data_generation == edit.ORACLE.data_generation
    assert by_hand.training == edit.TrainingChoice(edit.OUTPUT_TOKENS, 5e-4, 7)
    drawn = [random(TASK, sample) for sample in range(20)]
    found = [edit.parse(text) for text in drawn]
    assert len(set(drawn)) > 15 and drawn == [random(TASK, sample) for sample in range(20)]
    assert {one.training.num_train_epochs for one in found} == {2, 3, 4}
    assert all(1e-4 <= one.training.learning_rate <= 1e-2 for one in found)
    assert random(TWO_TESTS, 0) != drawn[0]
    again = dataclasses.replace(FEWSHOT, settings=settings, seed=1).controls()[1]
    assert again.text(TASK, 0) != drawn[0]


def test_the_oracle_is_the_papers_by_default():
    assert edit.parse(FEWSHOT.controls()[2].text(TASK, 0)) == edit.ORACLE


def test_what_is_recorded_of_a_task():
    one, two = make_grid([[1, 2]]), make_grid([[3], [4]])
    task = ArcTask("t", (Pair(one, two), Pair(two, one)), (Pair(one, one),))
    found = FEWSHOT.shown(task)
    assert found == {
        "title": "t",
        "context": "[[1 2]] -> [[3]\n [4]]\n\n[[3]\n [4]] -> [[1 2]]",
        "questions": [{"question": "[[1 2]]", "answer": "[[1 2]]", "heldout": False}],
        "grids": {"train": [[[[1, 2]], [[3], [4]]], [[[3], [4]], [[1, 2]]]], "test": [[[[1, 2]], [[1, 2]]]]},
    }
    assert json.loads(json.dumps(found)) == found


def test_words_grader_and_the_end_of_an_answer():
    assert (FEWSHOT.words, FEWSHOT.grader, FEWSHOT.answer_stops) == (Words("task", "tasks"), "exact match", ("#",))
