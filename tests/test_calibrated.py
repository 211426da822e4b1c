"""The judge with probabilities: what it sees, what its coefficients give, and how they are fitted."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from seal_jax.config import Judge
from seal_jax.domains.domain import Answered, Graded, Lesson
from seal_jax.domains.knowledge.corpus import Passage, Question
from seal_jax.domains.knowledge.knowledge import Knowledge
from seal_jax.domains.knowledge.sequences import Rules
from seal_jax.experiments import judging
from seal_jax.judges import calibrated, lexical
from seal_jax.student import trials
from seal_jax.student.ask import Answers

ROOT = Path(__file__).resolve().parent.parent
WEIR, ROPE = ("Who built the weir?", "Torvald Hesk"), ("How long is the rope?", "40 metres")
MOSS = ("What does it feed on?", "moss and lichen")
RIGHT = {"lexical": 1, "recall": 1, "order": 1, "f1": 1}
HALF = {"recall": 1 / 2, "order": 1 / 2, "f1": 1 / 2}

# Question and gold answer, answer, features counted by hand (those left out are 0), and the probability.
EXAMPLES = [
    (WEIR, "The weir was built by Torvald Hesk.", RIGHT | {"length": math.log(3), "name": 1}, 0.9689),
    (WEIR, "Torvald built it.", HALF | {"f1": 2 / 3, "length": math.log(2), "name": 1}, 0.6319),
    (WEIR, "It was the miller Anna Brandt.", {"length": math.log(4), "name": 1, "other_names": math.log(3)}, 0.0536),
    (WEIR, "The weir was not built by Torvald Hesk.",
     RIGHT | {"f1": 4 / 5, "length": math.log(4), "negation": 1, "name": 1}, 0.9),
    (WEIR, "Torvalt Hesk", HALF | {"spelling": 6 / 7 / 2, "length": math.log(3), "name": 1}, 0.7559),
    (ROPE, "It is 40 metres long.", RIGHT | {"length": math.log(3)}, 0.9781),
    (ROPE, "It is 30 metres long.", HALF | {"number_missing": 1, "length": math.log(3)}, 0.3645),
    (MOSS, "It eats lichen from stones.", HALF | {"f1": 2 / 5, "length": math.log(4)}, 0.5484),
    (MOSS, "Lichen and moss", RIGHT | {"order": 1 / 2, "length": math.log(3)}, 0.9585),
    (MOSS, "It eats small fish.", {"length": math.log(4)}, 0.1204),
]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "gold", "denies"),
    [("What is it made of?", "stone", 1), ("What is it not made of?", "stone", 0), ("Of what?", "not stone", 0)],
)
def test_a_denial_counts_where_neither_question_nor_gold_answer_has_one(question, gold, denies):
    found = calibrated.features(Answered(question, gold, "It isn't made of stone."))
    assert found[calibrated.FEATURES.index("negation")] == denies


def shipped():
    return json.loads((ROOT / "seal_jax" / "data" / calibrated.FILE).read_text())


@pytest.mark.parametrize(("asked", "answer", "seen", "probability"), EXAMPLES, ids=lambda value: str(value)[:30])
def test_features_by_hand_give_the_stored_probability(asked, answer, seen, probability):
    item = Answered(*asked, answer)
    found = dict(zip(calibrated.FEATURES, calibrated.features(item), strict=True))
    assert found == pytest.approx(dict.fromkeys(calibrated.FEATURES, 0.0) | seen)
    file = shipped()
    score = file["intercept"] + sum(file["weights"][name] * value for name, value in seen.items())
    assert calibrated.probabilities([item]) == [pytest.approx(1 / (1 + math.exp(-score)))]
    assert calibrated.probabilities([item]) == [pytest.approx(probability, abs=1e-4)]
    assert calibrated.grade([item]) == [probability > 0.5]


def test_the_file_has_a_weight_for_every_feature_and_no_other():
    assert tuple(shipped()["weights"]) == calibrated.FEATURES


def test_empty_answers_are_wrong_and_empty_gold_answers_are_not_graded():
    items = [Answered("Who?", "Ann", " \n"), Answered("Who?", " ", "Ann"), Answered("Who?", "", "")]
    assert calibrated.probabilities(items) == [0.0, None, 0.0]
    assert calibrated.grade(items) == [False, None, False] == lexical.grade(items)
    assert calibrated.grade([]) == calibrated.probabilities([]) == []


def test_signs_are_looked_for_as_they_are():
    items = [Answered("Which sign?", "+", "the + sign"), Answered("Which sign?", "+", "the - sign")]
    assert calibrated.probabilities(items) == [1.0, 0.0]


@pytest.mark.parametrize("text", ["?!…", "፩ ² ½ ①", "9" * 500 + " million", "\x00\ud800", "''s n't", "日本語", "The"])
def test_any_text_has_a_probability(text):
    items = [Answered(*parts) for parts in ((text, text, "else"), ("Which?", text, text), ("Which?", "Ann", text))]
    assert all(0 <= value <= 1 for value in calibrated.probabilities(items))


# ---------------------------------------------------------------- from the judge to the record


def test_the_domain_hands_on_verdicts_and_probabilities():
    passage = Passage("w", "Weir", "Text.", (Question(*WEIR, False), Question(*ROPE, False)))
    other = Passage("m", "Moss", "Text.", (Question(*MOSS, False),))
    answered = [(passage, [EXAMPLES[0][1], ""]), (other, [EXAMPLES[9][1]])]
    first, second = Knowledge("rewrite", Rules(), 1e-3, 1, calibrated.grade).grade(answered)
    assert first.verdicts == [True, False] and second.verdicts == [False]
    assert first.probabilities == [pytest.approx(0.9689, abs=1e-4), 0.0]
    assert second.probabilities == [pytest.approx(0.1204, abs=1e-4)]
    plain = Knowledge("rewrite", Rules(), 1e-3, 1, lexical.grade).grade(answered)
    assert plain == [Graded([EXAMPLES[0][1], ""], [True, False]), Graded([EXAMPLES[9][1]], [False])]
    assert all(graded.probabilities is None for graded in plain)
    assert Knowledge("rewrite", Rules(), 1e-3, 1, calibrated.grade).grade([]) == []


def test_a_record_has_the_probabilities_and_a_failed_self_edit_has_none_but_zero():
    said = Answers(["a", "b"], [False, False], [-1.0, -1.0])
    likely, plain = Graded(["a", "b"], [True, None], [0.9, None]), Graded(["a", "b"], [True, False])
    assert trials._shown(likely, said, Lesson())["probability"] == [0.9, None]
    assert trials._shown(likely, said, Lesson(failure="too long"))["probability"] == [0.0, 0.0]
    assert trials._shown(plain, said, Lesson(failure="too long"))["probability"] is None
    assert trials._shown(None, said, Lesson())["probability"] is None


def test_a_config_chooses_it_and_only_the_first_host_works(monkeypatch):
    judge = judging.make(Judge("calibrated"), None, None)
    item = Answered(*WEIR, EXAMPLES[1][1])
    assert judge.name == "calibrated" and judge([item]) == [True]
    assert judge.probabilities([item]) == calibrated.probabilities([item])
    assert not hasattr(judging.make(Judge("lexical"), None, None), "probabilities")
    monkeypatch.setattr(judging, "from_first", lambda data: b"[0.25, null]")
    monkeypatch.setattr(judging, "is_first", lambda: False)
    assert judge.probabilities(["not an answer"]) == [0.25, None]


# ---------------------------------------------------------------- fitting


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("judge_benchmark", ROOT / "benchmarks" / "judge.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(count):
    """Features, and verdicts drawn from the logistic model with intercept -1 and weights 2, -0.5."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(count, 2)) * [1, 3]
    return inputs, (rng.random(count) < 1 / (1 + np.exp(1 - inputs @ [2, -0.5]))).astype(float)


def test_the_fit_is_the_least_penalized_loss_and_finds_the_model(bench):
    inputs, right = drawn(20_000)
    intercept, weights = bench.fit(inputs, right, ridge=1e-6)
    assert [intercept, *weights] == pytest.approx([-1, 2, -0.5], abs=0.08)
    inputs, right = inputs[:200], right[:200]

    def loss(intercept, weights):
        p = 1 / (1 + np.exp(-(intercept + inputs @ weights)))
        return -np.sum(np.log(np.where(right == 1, p, 1 - p))) + 20 / 2 * np.sum((weights * inputs.std(0)) ** 2)

    intercept, weights = bench.fit(inputs, right, ridge=20)
    least = loss(intercept, weights)
    for step in (-1e-3, 1e-3):
        assert loss(intercept + step, weights) > least
        assert all(loss(intercept, weights + step * unit) > least for unit in np.eye(2))


def test_every_group_is_graded_without_its_own_verdicts(bench):
    inputs, right = drawn(120)
    group = np.repeat(["a", "b", "c"], 40)
    found = bench.left_out(inputs, right, group)
    other = np.where(group == "b", 1 - right, right)  # the verdicts of b do not matter to b
    assert bench.left_out(inputs, other, group)[group == "b"] == pytest.approx(found[group == "b"])
    assert np.abs(bench.left_out(inputs, other, group) - found)[group != "b"].min() > 1e-3
    intercept, weights = bench.fit(inputs[group != "b"], right[group != "b"])
    assert found[group == "b"] == pytest.approx(1 / (1 + np.exp(-(intercept + inputs[group == "b"] @ weights))))


def test_the_table_has_bias_and_agreement(bench):
    right, group = np.array([1.0, 1, 0, 0] * 10), np.repeat(np.arange(10), 4)
    said = np.array([1.0, 0, 0, 0] * 10)
    kappa, accuracy, refused, bias = bench.cells(said, right, group)
    assert (kappa, accuracy) == ("0.50 (0.50 to 0.50)", "0.75 (0.75 to 0.75)")
    assert (refused, bias) == ("0.50 (0.50 to 0.50)", "-25.0 (-25.0 to -25.0)")
    assert bench.cells(said * 0.9 + 0.05, right, group) == ["–"] * 3 + ["-22.5 (-22.5 to -22.5)"]
    low, high = bench.with_interval(lambda i: right[i].mean(), np.arange(40))[6:-1].split(" to ")
    assert float(low) < 0.4 and float(high) > 0.6


def test_reliability_compares_probabilities_with_what_was_right(bench):
    text = bench.reliability(np.array([0.9, 0.1, 0.7, 0.3]), np.array([1.0, 0, 1, 1]), bins=2)
    assert [line.split() for line in text.splitlines()[2:]] == [["0.20", "0.50", "2"], ["0.80", "1.00", "2"]]


def test_files_become_verdicts_by_passage_with_kinds(bench, tmp_path):
    answers = [(WEIR, "Torvald Hesk the miller", True), (WEIR, "Anna, far away", False), (WEIR, "Hesk", False),
               (WEIR, "", False), (ROPE, "40", True)]  # fmt: skip
    lines = [{"question": asked[0], "gold": asked[1], "answer": answer, "correct": right}
             for asked, answer, right in answers]  # fmt: skip
    data, texts = tmp_path / "verdicts.jsonl", tmp_path / "passages.json"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    context = "Torvald Hesk, a miller, built the weir with a rope of 40 metres."
    texts.write_text(json.dumps([{"title": "t", "context": context,
                                  "questions": [{"question": WEIR[0]}, {"question": ROPE[0]}]}]))  # fmt: skip
    found = bench.load(data, texts)
    assert found.right.tolist() == [1, 0, 0, 1] and set(found.group) == {context}  # the empty answer is left out
    assert found.kinds[bench.MUCH].tolist() == [True, False, False, False]
    assert found.kinds["gold has a name"].tolist() == [True, True, True, False]
    assert found.kinds["gold has a number"].tolist() == [False, False, False, True]
    assert set(bench.load(data, None).group) == {WEIR[0], ROPE[0]}
    data.write_text("".join(json.dumps(line | {"kind": "untrained"}) + "\n" for line in lines))
    assert found.kinds.keys() - bench.load(data, texts).kinds.keys() == {bench.LITTLE, bench.MUCH}
    assert bench.load(data, texts).kinds["untrained"].all()
