"""What was written and answered, arranged for report.html: self-edits by round, and answers beside the gold ones."""

from collections.abc import Sequence

from etils import epath

from seal_jax.report.recorded import Record, Recorded, round_label
from seal_jax.report.sheets import file_name
from seal_jax.runs import keys

MARKS = {True: ("✓", "right"), False: ("✗", "wrong"), None: ("?", "not graded")}


def taught(recorded: Recorded, items: Sequence[Record]) -> list[dict]:
    """Training items with the self-edits of each round, their rewards, and the arms that chose them.

    The self-edits of round 1, which the arm SEAL wrote, are those of every arm.
    """
    rollouts: dict[tuple, list[Record]] = {}
    for record in recorded.rollouts:
        writer = record["arm"] if record["round"] > 1 else keys.SEAL
        rollouts.setdefault((writer, record["round"], record["item"]), []).append(record)
    found = []
    for item in items:
        groups: dict[str, list[dict]] = {}
        for edit in recorded.self_edits:
            if (edit["split"], edit["item"]) != (keys.TRAIN, item["item"]):
                continue
            records = rollouts.get((edit["arm"], edit["round"], edit["item"]), [])
            scored = next((record for record in records if record["rewards"] is not None), None)
            earned = {"reward": scored and scored["rewards"][edit["sample"]], "dropped": _dropped(scored, edit)}
            arms = [record["arm"] for record in records if edit["sample"] in record["chosen"]]
            shown = {**edit, "text": edit["text"] or "", "tokens": len(edit["tokens"]), "arms": arms, **earned}
            groups.setdefault(round_label(edit["arm"], edit["round"]), []).append(shown)
        found.append({**item, "groups": groups})
    return found


def _dropped(scored: Record | None, edit: Record) -> int | None:
    """After how many retrains a self-edit was dropped from a race; None where it was not."""
    retrains = scored and scored["retrains"]
    if not retrains or retrains[edit["sample"]] == max(retrains):
        return None
    return retrains[edit["sample"]]


def asked(recorded: Recorded, items: Sequence[Record], folder: epath.Path) -> list[dict]:
    """Evaluation items with the answers of each row: those to its first self-edit (or in its first sequence), in its
    first retrain."""
    rows = {(row["arm"], row["round"]): row["name"] for row in recorded.rows}
    last_first = sorted(recorded.trials, key=lambda trial: (trial["sample"], trial["retrain"]), reverse=True)
    trials = {tuple(trial[field] for field in keys.TRIAL[:-2]): trial for trial in last_first}
    edits = {tuple(edit[field] for field in keys.EDIT): edit for edit in recorded.self_edits}
    found = []
    for item in items:
        measured: dict[str, Record] = {}
        written: dict[str, str] = {}
        for (arm, number), name in rows.items():
            stage = keys.Stage(keys.EVALUATION, arm, number, keys.ANSWER)
            trial = trials.get(stage.trial(item["item"], 0, 0)[:-2])
            if trial is not None:
                measured[name] = trial
                edit = edits.get(stage.edit(item["item"], trial["sample"]))
                written |= {name: edit["text"] or edit["problem"]} if edit is not None else {}
        questions = [
            {**question, "cells": [_answer(name, trial, place) for name, trial in measured.items()]}
            for place, question in enumerate(item["questions"])
        ]
        sheets = {name: f"sheets/{file_name(item['item'], name)}" for name in measured}
        sheets = {name: file for name, file in sheets.items() if (folder / file).exists()}
        found.append({**item, "rows": list(measured), "questions": questions, "self_edits": written, "sheets": sheets})
    return found


def _answer(row: str, trial: Record, place: int) -> dict:
    mark, word = MARKS[trial["correct"][place] if trial["correct"] else None]
    answer = trial["answers"][place] if trial["answers"] else ""
    cut = trial["cut"] or []
    return {
        "row": row,
        "answer": answer,
        "mark": mark,
        "word": word,
        "log_likelihood": trial["log_likelihood"][place] if trial["log_likelihood"] else None,
        "cut": len(cut) == len(trial["answers"] or []) and bool(cut) and cut[place],
        "failure": trial["failure"],
    }
