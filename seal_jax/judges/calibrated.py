"""The offline judge with probabilities: a logistic regression on what can be seen of a gold answer and an answer.

A judge that says yes or no refuses right answers and accepts wrong ones, and how many of each depends on how a model
speaks, so that a difference between two models is partly the judge's. The mean of calibrated probabilities is free of
that as far as the features below tell the cases apart. Eleven coefficients, fitted to 2,500 verdicts of GPT-4.1 with a
ridge penalty; benchmarks/judge.py refits them, and measures agreement and bias on passages that were left out.
Further features gained nothing there: the gold answer's length, lists, one word of two, a phrase found whole,
further numbers in the answer.

What is calibrated is the mean over answers like those of the fit, a 7B model's: of its answers that share no word with
the gold answer, 7% are right. A model that answers nonsense has the same probabilities without deserving them: to
questions of the shipped corpus sentences of other passages get .10 on average (those that hold the answer .91).

An empty answer is wrong with probability 0, and an empty gold answer cannot be graded. One of signs only ('+') is
looked for as it is, so that its probability is 0 or 1.
"""

import json
import math
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from importlib import resources

import numpy as np

from seal_jax.domains.domain import Answered
from seal_jax.judges import lexical
from seal_jax.judges.lexical import light_words, said_words, telling_words
from seal_jax.judges.words import is_number, words

NAME = "calibrated"
FILE = "judge_calibrated.json"
FEATURES = (
    "lexical", "recall", "spelling", "number_missing", "order", "f1", "length", "negation", "name", "other_names"
)  # fmt: skip
DENIALS = "not no never none neither nor without"
ALIKE = 0.7  # least similarity of two spellings of one word


def grade(items: Sequence[Answered]) -> list[bool | None]:
    """One verdict per item: whether it is more likely right than wrong; None only where the gold answer is empty."""
    return [None if p is None else p > 0.5 for p in probabilities(items)]


def probabilities(items: Sequence[Answered]) -> list[float | None]:
    """How likely each answer is right, from 0 to 1; None only where the gold answer is empty."""
    return [_probability(item) for item in items]


grade.name = NAME
grade.probabilities = probabilities


def _probability(item: Answered) -> float | None:
    if item.is_empty:
        return 0.0
    if not item.gold.strip():
        return None
    if not words(item.gold):
        return float(lexical.grade([item])[0])
    intercept, weights = coefficients()
    return float(1 / (1 + np.exp(-(intercept + np.dot(features(item), weights)))))


@cache
def coefficients() -> tuple[float, tuple[float, ...]]:
    """Intercept, and a weight for each of FEATURES."""
    found = json.loads((resources.files("seal_jax") / "data" / FILE).read_text(encoding="utf-8"))
    return found["intercept"], tuple(found["weights"][name] for name in FEATURES)


def features(item: Answered) -> list[float]:
    """What the judge sees of an answer and a gold answer that both have words, in the order of FEATURES.

    lexical: that judge's verdict. recall: share of the gold answer's telling words that are said. spelling: what words
    spelt alike would add to it. number_missing: whether a gold number is not said. order: share of the gold answer's
    words said in their order. f1: harmonic mean of recall and precision, the share of the answer's new words (those not
    in the question) that are the gold answer's. length: log(1 + new words). negation: whether the answer denies and
    neither question nor gold answer does. name: whether the gold answer has a capitalised word. other_names: if so,
    log(1 + names that are said and stand in neither question nor gold answer).
    """
    gold, answer, asked = words(item.gold), words(item.answer), set(words(item.question))
    numbers, others = telling_words(item)
    telling, said = numbers + others, said_words(item)
    heavy = [word for word in dict.fromkeys(gold) if word not in light_words()] or gold
    new = [word for word in dict.fromkeys(answer) if word not in light_words() and word not in asked]
    known = asked.union(gold)
    recall = sum(word in said for word in telling) / len(telling)
    precision = sum(word in gold for word in new) / max(len(new), 1)
    named = bool(re.search(r"\b[A-Z]", item.gold))
    return [
        float(lexical.grade([item])[0]),
        recall,
        sum(_likeness(word, said) for word in telling if word not in said) / len(telling),
        float(not said.issuperset(numbers)),
        _longest_common(heavy, answer) / len(heavy),
        2 * precision * recall / max(precision + recall, 1e-9),
        math.log1p(len(new)),
        float(bool(_denials() & set(answer)) and not _denials() & known),
        float(named),
        math.log1p(len(_names(item.answer) - known)) if named else 0.0,
    ]


def _names(text: str) -> frozenset[str]:
    """Capitalised words, those that begin a sentence aside."""
    return frozenset(words(" ".join(re.findall(r"(?<!^)(?<![.!?] )\b[A-Z]\w+", text)))) - light_words()


def _likeness(word: str, said: set[str]) -> float:
    """How like the nearest word with the same first letter is spelt; 0 below ALIKE, and for numbers."""
    if is_number(word):
        return 0.0
    others = [other for other in said if other[0] == word[0]]
    best = max((SequenceMatcher(None, word, other).ratio() for other in others), default=0.0)
    return best if best >= ALIKE else 0.0


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest sequence of words that both have in this order, gaps allowed."""
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, against in enumerate(other, 1):
            diagonal, row[place] = row[place], diagonal + 1 if word == against else max(row[place], row[place - 1])
    return row[-1]


@cache
def _denials() -> frozenset[str]:
    return frozenset(words(DENIALS))
