"""Token F1, exact match, BLEU and coverage, against numbers by hand, and the table that holds them."""

import html
from dataclasses import replace

import made_up_run
import pytest

from seal_jax.report import answers, cells, tables, terminal
from seal_jax.report import html as page
from seal_jax.report.estimates import estimate
from seal_jax.report.recorded import Recorded, load

KNOWLEDGE = {"domain": "knowledge"}


@pytest.mark.parametrize(
    ("answer", "gold", "f1", "exact"),
    [
        ("The Harrow Mill.", "a harrow mill", 1, 1),  # case, punctuation and articles do not count
        ("It was the Harrow mill", "Harrow mill", 2 * (2 / 4) * 1 / (2 / 4 + 1), 0),
        ("mill mill", "the mill", 2 * (1 / 2) * 1 / (1 / 2 + 1), 0),  # a word counts as often as both have it
        ("mill mill mill", "mill mill", 2 * (2 / 3) * 1 / (2 / 3 + 1), 0),
        ("well-known", "well known", 0, 0),  # punctuation goes without leaving a blank
        ("Carter", "Woolley", 0, 0), ("", "Woolley", 0, 0), ("the", "a", 1, 1), ("theatre", "atre", 0, 0),
    ],
)  # fmt: skip
def test_f1_and_exact_match_as_in_squad(answer, gold, f1, exact):
    assert answers.token_f1(answer, gold) == pytest.approx(f1)
    assert answers.exact_match(answer, gold) == exact


def test_bleu_of_all_answers_together():
    # n-grams in common of 6 + 4 words: 5 + 4 of 10, 3 + 3 of 8, 2 + 2 of 6, 1 + 1 of 4; as long as the references
    said, gold = ["the cat sat on the mat", "a b c d"], ["the cat sat on a mat", "a b c d"]
    wanted = 100 * (9 / 10 * 6 / 8 * 4 / 6 * 2 / 4) ** (1 / 4)
    assert answers.bleu(said, gold) == pytest.approx(wanted)
    assert answers.bleu(["", ""], gold) == 0


@pytest.mark.parametrize(
    ("gold", "text", "stands"),
    [
        ("the copper roofs", "1. They built a new roof. The copper roof leaked.", True),
        ("copper roof", "The roof is copper.", False),  # not one after another
        ("1,300 sheep", "There were thirteen hundred sheep.", True),
        ("sheep", "1,300 sheep", True), ("sheep", "", False), ("+", "a + b", True), ("+", "a - b", False),
    ],
)  # fmt: skip
def test_a_gold_answer_stands_in_a_text(gold, text, stands):
    assert answers.stands_in(gold, text) is stands


def item(name, *gold, split="evaluation"):
    return {"split": split, "item": name, "questions": [{"question": "?", "answer": answer} for answer in gold]}


def trial(row, name, said, **others):
    return {"split": "evaluation", "arm": row[0], "round": row[1], "purpose": "answers", "item": name, "sample": 0,
            "retrain": 0, "loss": None, "failure": None, "log_likelihood": [-1.0], "correct": [True] * len(said or []),
            "cut": None, "answers": said, "judge": "lexical", **others}  # fmt: skip


def edit(row, name, text, **others):
    return {"split": "evaluation", "arm": row[0], "round": row[1], "item": name, "sample": 0, "text": text,
            "finished": True, **others}  # fmt: skip


def run():
    base, own, still = ("base", 0), ("SEAL", 0), ("SEAL", 1)
    rows = [made_up_run.row(*base, "base", "untrained"), made_up_run.row(*own, "no RL", "policy"),
            made_up_run.row(*still, "SEAL, round 1", "policy", list(own))]  # fmt: skip
    trials = [
        trial(base, "x", ["red barn", "mill"]), trial(base, "y", ["nothing"]),
        trial(own, "x", ["red barn", "old mill"]), trial(own, "x", ["red barn", "old mill"], sample=1, failure="bad"),
        trial(own, "y", ["weir"]), trial(own, "x", ["all wrong"], split="train"),
        trial(own, "y", None, sample=1),
    ]  # fmt: skip
    edits = [edit(own, "x", "The red barn."), edit(own, "x", "A red barn, an old mill.", sample=1),
             edit(own, "y", "A weir."), edit(own, "x", "", split="train")]  # fmt: skip
    items = [item("x", "red barn", "old mill"), item("y", "weir"), item("x", "no", split="train")]
    return Recorded(KNOWLEDGE, rows=rows, items=items, trials=trials, self_edits=edits)


def test_measures_by_row_are_means_over_questions_then_trials_then_items():
    found = answers.by_row(run())
    base, own = found["base", 0], found["SEAL", 0]
    assert base.f1 == estimate([(1 + 2 / 3) / 2, 0.0]) and base.exact == estimate([0.5, 0.0])
    assert base.coverage is None  # nothing was written
    assert own.f1 == own.exact == estimate([(1 + 0) / 2, 1.0])  # the trial that failed has nothing right
    assert own.coverage == estimate([(1 / 2 + 1) / 2, 1.0])
    assert own.bleu == answers.bleu(["red barn", "old mill", "", "", "weir"], ["red barn", "old mill"] * 2 + ["weir"])
    assert found["SEAL", 1] == own and list(found) == [("base", 0), ("SEAL", 0), ("SEAL", 1)]


def test_a_row_of_empty_self_edits_covers_nothing_and_says_so():
    recorded = run()
    recorded.self_edits[:] = [edit(("SEAL", 0), name, "") for name in "xy"]
    assert answers.by_row(recorded)["SEAL", 0].coverage is None


def test_the_rows_of_a_grid_share_their_self_edits():
    recorded = replace(run(), config=KNOWLEDGE | {"experiment": "grid"})
    recorded.rows[1:] = [made_up_run.row("rate 1", count, f"{count} epochs", "policy") for count in (2, 4)]
    recorded.trials[:] = [trial(row, "y", ["weir"]) for row in (("base", 0), ("rate 1", 2), ("rate 1", 4))]
    recorded.self_edits[:] = [edit(("grid", 0), "x", "A barn."), edit(("grid", 0), "y", "A weir.")]
    found = answers.by_row(recorded)
    assert found["base", 0].coverage is None
    assert found["rate 1", 2].coverage == found["rate 1", 4].coverage == estimate([0.0, 1.0])


def test_a_row_of_continued_pretraining_learns_its_first_self_edits_together():
    recorded = run()
    recorded.rows[1:] = [made_up_run.row("own", 1, "1 each", "policy"), made_up_run.row("own", 2, "2 each", "policy")]
    recorded.trials[:] = [trial(("own", count), "x", ["a", "b"]) for count in (1, 2)]
    texts = {"x": ("A red barn.", "An old mill.", "Both."), "y": ("Nothing.", "A weir.", "")}
    recorded.self_edits[:] = [
        edit(("own", 0), name, text, sample=k) for name, found in texts.items() for k, text in enumerate(found)
    ]
    found = answers.by_row(recorded)
    assert found["own", 1].coverage == estimate([0.5, 0.0], (0, 1))
    assert found["own", 2].coverage == estimate([1.0, 1.0], (0, 1))


def test_the_table_has_a_line_for_each_row():
    recorded = run()
    (table,) = cells.answer_tables(recorded, tables.lines(recorded))
    base, own, still = table.rows
    assert base[0] == "base" and base[1].startswith("41.7") and base[2].startswith("25.0") and base[4] == "–"
    assert own[0] == "no RL" and own[1].startswith("75.0") and own[4].startswith("87.5") and still[1:] == own[1:]
    assert own[3] == f"{answers.by_row(recorded)['SEAL', 0].bleu:.1f}"
    text = terminal.show_rows(recorded, tables.lines(recorded))
    assert text.index("Difference in log-likelihood") < text.index("More about the answers\n“F1”")


def test_grids_have_no_such_table():
    recorded = run()
    arc = Recorded({"domain": "arc"}, rows=recorded.rows, items=recorded.items, trials=recorded.trials)
    assert cells.answer_tables(arc, tables.lines(arc)) == []


def test_the_page_and_the_terminal_show_the_same(tmp_path):
    folder = made_up_run.write(tmp_path / "run", items=6)
    recorded, shown = load(folder), html.unescape(page.write(folder).read_text())
    (table,) = cells.answer_tables(recorded, tables.lines(recorded))
    assert len(table.rows) == 7 and f"<h3>{table.title}</h3>" in shown and table.note in shown
    lines = terminal.summary(folder).splitlines()
    for row in table.rows:
        assert "".join(f"<td>{cell}</td>" for cell in row[1:]) in shown
        assert any(line.split() == " ".join(row).split() for line in lines)
