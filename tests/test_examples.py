"""What a run shows of its answers: the first questions, by every row that matters, chosen without looking at them."""

import dataclasses

import made_up_run
import pytest

from seal_jax.report import terminal
from seal_jax.report.examples import examples
from seal_jax.report.recorded import Recorded, load


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Recorded:
    return load(made_up_run.write(tmp_path_factory.mktemp("run")))


def test_the_first_question_of_the_first_passages_before_and_after(recorded):
    shown = examples(recorded)
    assert [one.passage for one in shown] == [f"The Harbour of e{i}" for i in range(3)]
    assert all("0th thing" in one.question and one.gold == "a lighthouse of 0 storeys" for one in shown)
    assert [answer.row for answer in shown[0].answers] == ["base", "self-edits, no RL", "SEAL, round 2"]
    for one, name in zip(shown, ("e0", "e1", "e2"), strict=True):
        for answer, key in zip(one.answers, (("base", 0), ("SEAL", 0), ("SEAL", 2)), strict=True):
            trial = next(t for t in recorded.trials if (t["arm"], t["round"], t["item"]) == (*key, name))
            assert (answer.text, answer.right) == (trial["answers"][0], trial["correct"][0])


def test_a_row_that_was_not_measured_again_is_shown_by_its_source(recorded):
    rows = [*recorded.rows, made_up_run.row("SEAL", 3, "SEAL, round 3", "policy", ["SEAL", 2])]
    last = examples(dataclasses.replace(recorded, rows=rows))[0].answers[-1]
    assert last == dataclasses.replace(examples(recorded)[0].answers[-1], row="SEAL, round 3")


def test_without_answers_or_questions_nothing_is_shown(recorded):
    silent = [trial | {"answers": None, "correct": None} for trial in recorded.trials]
    assert examples(dataclasses.replace(recorded, trials=silent)) == []
    tasks = [{key: value for key, value in item.items() if key != "questions"} for item in recorded.items]
    assert examples(dataclasses.replace(recorded, items=tasks)) == []


def test_they_are_printed_within_80_columns_and_move_no_cursor(recorded):
    bad = [trial | {"answers": ["\x1b[2J" + "very long " * 20 + "\nend"] * 5} if trial["answers"] else trial
           for trial in recorded.trials]  # fmt: skip
    text = terminal.show_examples(examples(dataclasses.replace(recorded, trials=bad)), recorded.words)
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 80
    plain = terminal.show_examples(examples(recorded), recorded.words)
    shown = examples(recorded)[0].answers[0]
    mark = {True: "+", False: "-", None: "?"}[shown.right]
    assert f"  {mark} base" in plain and shown.text in plain and "gold" in plain


def test_one_item_is_not_many_and_an_empty_answer_says_so(recorded):
    silent = [trial | {"answers": [""] * 5} if trial["answers"] else trial for trial in recorded.trials]
    first = examples(dataclasses.replace(recorded, trials=silent))[:1]
    text = terminal.show_examples(first, recorded.words)
    assert "the first question of the first passage;" in text and f"{first[0].answers[0].row}" in text
    assert text.count("no answer") == len(first[0].answers)
