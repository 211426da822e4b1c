"""Accuracies in the result files that the paper's authors released, as the records of a run that has them as rows.

    {"articles": [{title, context, prompt, stats: {baseline_accuracy, adapter_mean_accuracy}, completions: [...]}]}
    [{title, prompt, completions: [{accuracy_per_retrain: [...]}]}]

A completion holds the accuracy of each retrain, or `stats.adapter_mean`, the mean over them; where no completion does,
the article's own mean counts. Accuracies are from 0 to 1. The files do not say who judged.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seal_jax.errors import UserError
from seal_jax.report.recorded import Record, Recorded
from seal_jax.runs import keys

JUDGE = "as released"
EXPERIMENT = "released"  # in place of an experiment of ours, in the config of such records
BASE = ("base", 0, "base")


def load_released(path: str, row: tuple[str, int, str]) -> Recorded:
    """The rows of a result file: that of the untrained model, where the file has it, and `row`, (arm, round, name).

    Raises UserError where it holds no accuracies.
    """
    found = {BASE: [], row: []}
    items = []
    for place, article in enumerate(_articles(path)):
        where = f"{path}, article {place}"
        item = _item(article, where)
        items.append({"split": keys.EVALUATION, "item": item, "title": article["title"]})
        stats = _group(article, "stats", where)
        completions = article.get("completions") or []
        if not isinstance(completions, list) or not all(isinstance(one, dict | str) for one in completions):
            raise UserError(f"{where}: 'completions' must be a list of texts or objects")
        each = [_completion(one, where) for one in completions if isinstance(one, dict)]
        base = _number(stats, "baseline_accuracy", where)
        found[BASE] += [] if base is None else [_trial(BASE, item, 0, 0, base)]
        own = [(k, r, value) for k, values in enumerate(each) for r, value in enumerate(values)]
        if not own and (mean := _number(stats, "adapter_mean_accuracy", where)) is not None:
            own = [(0, 0, mean)]
        found[row] += [_trial(row, item, *one) for one in own]
    if not found[row]:
        raise UserError(f"{path} holds no accuracies; name a result file of the authors, or the folder of a run")
    rows = [
        {"arm": arm, "round": number, "name": name, "kind": "untrained" if (arm, number, name) == BASE else "policy",
         "same_as": None}
        for (arm, number, name), trials in found.items() if trials
    ]  # fmt: skip
    config = {"domain": "knowledge", "experiment": EXPERIMENT}
    return Recorded(config, rows, items, trials=[trial for trials in found.values() for trial in trials])


def _articles(path: str) -> list[Record]:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}); name a result file, or the folder of a run") from error
    found = data.get("articles") if isinstance(data, dict) else data
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UserError(f"{path} is no result file: it must be a list of articles, or an object with 'articles'")
    return found


def _item(article: Record, where: str) -> str:
    """What names an article: its title, and its text or the prompt that shows it, because titles come again."""
    parts = [article.get(name, "") for name in ("title", "context", "prompt")]
    if not all(isinstance(part, str) for part in parts) or not parts[0]:
        raise UserError(f"{where}: 'title' must be a text, and so must 'context' and 'prompt' where they are given")
    title, context, prompt = parts
    return f"{title}\n{context or prompt}"


def _completion(completion: Record, where: str) -> list[float]:
    """The accuracy of each retrain, or their mean, or nothing."""
    each = completion.get("accuracy_per_retrain")
    if each is None:
        mean = _number(_group(completion, "stats", where), "adapter_mean", where)
        return [] if mean is None else [mean]
    if not isinstance(each, list):
        raise UserError(f"{where}: 'accuracy_per_retrain' must be a list of numbers from 0 to 1")
    return [_number({"accuracy_per_retrain": value}, "accuracy_per_retrain", where) for value in each]


def _group(holder: Record, name: str, where: str) -> Mapping[str, Any]:
    found = holder.get(name) or {}
    if not isinstance(found, dict):
        raise UserError(f"{where}: {name!r} must be an object")
    return found


def _number(holder: Mapping[str, Any], name: str, where: str) -> float | None:
    value = holder.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{where}: {name!r} is {value!r} and must be a number from 0 to 1")
    return float(value)


def _trial(row: tuple[str, int, str], item: str, sample: int, retrain: int, accuracy: float) -> Record:
    """A trial of which only the share of right answers is known."""
    arm, number, _ = row
    stage = keys.Stage(keys.EVALUATION, arm, number, keys.ANSWER)
    return {**stage.fields, "item": item, "sample": sample, "retrain": retrain, "correct": [accuracy], "judge": JUDGE,
            "failure": None}  # fmt: skip
