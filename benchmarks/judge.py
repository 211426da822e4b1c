"""Fits the judge `calibrated` to verdicts of a careful grader, and shows how far it and `lexical` can be trusted.

    python benchmarks/judge.py --data verdicts.jsonl [--passages passages.json] [--write]

--data: lines {"question", "gold", "answer", "correct"}, and where it is known "kind", such as "untrained".
--passages: a JSON list of {"title", "context", "questions"}; verdicts are then left out passage by passage instead of
question by question, and without kinds in the data there are two: answers that say little or much of the passage, as
models do that have not and that have learned it (share of the answer's words, those of question and gold answer aside,
that stand in the passage, below the median or not).
--write: put the coefficients, fitted to all verdicts, into the package.

Numbers of `calibrated` are cross-validated: every passage is graded by coefficients that were fitted without it.
Bias is the mean of verdicts, or of probabilities, minus that of the grader, in points. Intervals are 95%, by bootstrap
over passages.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import seal_jax
from seal_jax.domains.domain import Answered
from seal_jax.judges import calibrated, lexical
from seal_jax.judges.agreement import cohens_kappa
from seal_jax.judges.lexical import light_words, telling_words
from seal_jax.judges.words import words
from seal_jax.text import columns

RIDGE = 20.0  # penalty on squared weights of standardised features; the table hardly changes from 5 to 50
DRAWS = 2000
ALL, LITTLE, MUCH = "all", "little of the passage", "much of the passage"


@dataclass(frozen=True)
class Verdicts:
    """Answers with the grader's verdicts: right [N] of 0 and 1, group [N] (passage or question), kinds {name: [N]}."""

    items: Sequence[Answered]
    right: np.ndarray
    group: np.ndarray
    kinds: Mapping[str, np.ndarray]


def load(data: Path, passages: Path | None) -> Verdicts:
    lines = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    items = [Answered(line["question"], line["gold"], line["answer"]) for line in lines]
    usable = [i for i, item in enumerate(items) if words(item.gold) and not item.is_empty]
    lines, items = [lines[i] for i in usable], [items[i] for i in usable]
    texts = json.loads(passages.read_text(encoding="utf-8")) if passages else []
    passage = {asked["question"]: text for text in texts for asked in text["questions"]}
    names = [passage[item.question]["context"] if passage else item.question for item in items]
    kinds = {ALL: np.ones(len(items), bool)} | golds(items)
    if "kind" in lines[0]:
        kinds |= {kind: np.array([line["kind"] == kind for line in lines]) for kind in {line["kind"] for line in lines}}
    elif passage:
        shares = np.array([echo(item, passage[item.question]["context"]) for item in items])
        middle = np.nanmedian(shares)
        kinds |= {LITTLE: shares < middle, MUCH: shares >= middle}  # an answer without other words is in neither
    return Verdicts(items, np.array([float(line["correct"]) for line in lines]), np.array(names), kinds)


def golds(items: Sequence[Answered]) -> dict[str, np.ndarray]:
    """Kinds of gold answers, of which one may be several."""
    numbers, lists, names = "gold has a number", "gold is a list", "gold has a name"
    found = {
        names: [bool(re.search(r"\b[A-Z]", item.gold)) for item in items],
        numbers: [bool(telling_words(item)[0]) for item in items],
        lists: [bool(re.search(r"\w,? (and|or) \w|, [A-Za-z]", item.gold)) for item in items],
    }
    arrays = {kind: np.array(values) for kind, values in found.items()}
    return arrays | {"gold has no name, no number": ~arrays[names] & ~arrays[numbers]}


def echo(item: Answered, passage: str) -> float:
    """Share of the answer's words that stand in the passage; nan without a word beside those of question and gold."""
    known = light_words().union(words(item.question), words(item.gold))
    other = [word for word in words(item.answer) if word not in known]
    return float(np.mean(np.isin(other, words(passage)))) if other else float("nan")


def fit(features: np.ndarray, right: np.ndarray, ridge: float = RIDGE) -> tuple[float, np.ndarray]:
    """Logistic regression by Newton's method: features [N, F], right [N] -> intercept, weights [F]."""
    mean, scale = features.mean(0), features.std(0) + 1e-9
    inputs = np.column_stack([np.ones(len(features)), (features - mean) / scale])
    penalty = ridge * np.diag([0.0] + [1.0] * features.shape[1])
    weights = np.zeros(inputs.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-inputs @ weights))
        hessian = inputs.T @ (inputs * (p * (1 - p))[:, None]) + penalty
        step = np.linalg.solve(hessian, inputs.T @ (right - p) - penalty @ weights)
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    raw = weights[1:] / scale
    return float(weights[0] - raw @ mean), raw


def left_out(features: np.ndarray, right: np.ndarray, group: np.ndarray) -> np.ndarray:
    """[N] probabilities, each by coefficients that were fitted without the answer's group."""
    found = np.zeros(len(right))
    for name in np.unique(group):
        out = group == name
        intercept, weights = fit(features[~out], right[~out])
        found[out] = 1 / (1 + np.exp(-(intercept + features[out] @ weights)))
    return found


def with_interval(measure: Callable[[np.ndarray], float], group: np.ndarray, scale: float = 1, digits: int = 2) -> str:
    """'0.72 (0.68 to 0.76)': measure(indices of answers), its interval from groups drawn with replacement."""
    members = [np.flatnonzero(group == name) for name in np.unique(group)]
    rng = np.random.default_rng(0)
    draws = [np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))]) for _ in range(DRAWS)]
    low, high = np.nanquantile([measure(draw) for draw in draws], [0.025, 0.975]) * scale
    shape = f"{'+' if scale == 100 else ''}.{digits}f"
    return f"{measure(np.arange(len(group))) * scale:{shape}} ({low:{shape}} to {high:{shape}})"


def kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's, from arrays of 0 and 1; judges/agreement.py for many draws."""
    same, p, q = np.mean(one == other), one.mean(), other.mean()
    chance = p * q + (1 - p) * (1 - q)
    return float((same - chance) / (1 - chance))


def table(verdicts: Verdicts, judges: Mapping[str, np.ndarray]) -> str:
    """A row for each judge and kind of answer; judges: name -> verdicts or probabilities [N]."""
    rows = []
    for kind, chosen in verdicts.kinds.items():
        right, group = verdicts.right[chosen], verdicts.group[chosen]
        for name, values in judges.items():
            rows.append([f"{name}, {kind}", str(len(right)), *cells(values[chosen], right, group)])
    return columns(["judge, answers", "n", "kappa", "accuracy", "right ones refused", "bias, points"], rows)


def cells(values: np.ndarray, right: np.ndarray, group: np.ndarray) -> list[str]:
    """Agreement of verdicts (none for probabilities) and the bias of their mean."""
    bias = with_interval(lambda i: values[i].mean() - right[i].mean(), group, 100, 1)
    if set(np.unique(values)) - {0.0, 1.0}:
        return ["–", "–", "–", bias]
    return [
        with_interval(lambda i: kappa(values[i], right[i]), group),
        with_interval(lambda i: float(np.mean(values[i] == right[i])), group),
        with_interval(lambda i: 1 - values[i][right[i] == 1].mean(), group),
        bias,
    ]


def reliability(probabilities: np.ndarray, right: np.ndarray, bins: int = 8) -> str:
    """Mean probability and share of right answers in bins of equal size, from the least likely up."""
    parts = np.array_split(np.argsort(probabilities, kind="stable"), bins)
    rows = [[f"{probabilities[part].mean():.2f}", f"{right[part].mean():.2f}", str(len(part))] for part in parts]
    return columns(["probability", "right", "n"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--passages", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    verdicts = load(given.data, given.passages)
    features = np.array([calibrated.features(item) for item in verdicts.items])
    intercept, weights = fit(features, verdicts.right)
    probabilities = left_out(features, verdicts.right, verdicts.group)
    plain = np.array([float(verdict) for verdict in lexical.grade(verdicts.items)])
    yes = (probabilities > 0.5).astype(float)
    judges = {"lexical": plain, "calibrated": yes, "calibrated, probability": probabilities}
    print(f"{len(verdicts.items)} verdicts, {len(np.unique(verdicts.group))} groups left out in turn")
    print(table(verdicts, judges))
    print(f"\n{reliability(probabilities, verdicts.right)}\n")
    gain = with_interval(
        lambda i: kappa(yes[i], verdicts.right[i]) - kappa(plain[i], verdicts.right[i]), verdicts.group, digits=3
    )
    print(f"kappa of calibrated over lexical: {gain}")
    shown = fit_to_all(verdicts, features, intercept, weights)
    print(f"not cross-validated, kappa of calibrated: {shown:.3f}")
    named = dict(zip(calibrated.FEATURES, (round(float(weight), 4) for weight in weights), strict=True))
    text = json.dumps({"intercept": round(intercept, 4), "weights": named}, indent=1) + "\n"
    print(text, end="")
    if given.write:
        (Path(seal_jax.__file__).parent / "data" / calibrated.FILE).write_text(text, encoding="utf-8")


def fit_to_all(verdicts: Verdicts, features: np.ndarray, intercept: float, weights: np.ndarray) -> float:
    """Agreement on the very verdicts that the coefficients are fitted to."""
    right = [bool(value) for value in verdicts.right]
    return cohens_kappa([bool(value > 0) for value in intercept + features @ weights], right)


if __name__ == "__main__":
    main()
