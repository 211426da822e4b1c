"""report.html: one page that needs no other file and no network, made from the records of a run alone."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from etils import epath

from seal_jax.runs import figures, table, terminal
from seal_jax.runs.arc_sheet import file_name as sheet_name
from seal_jax.runs.progress import duration
from seal_jax.runs.records import read

FIXED_ROWS = {"passages": 3, "tasks": 4}  # of the table, whatever the number of rounds
SHOWN = 8  # passages of each kind whose texts are on the page; all of them are in the records
STUDENTS = {"": "the policy of the round", "initial": "the policy before round 1"}
MARKS = {True: ("✓", "right"), False: ("✗", "wrong"), None: ("?", "not graded")}
MEASURES = {"accuracy": "accuracy, %", "log_likelihood": "log-likelihood, nats per token"}


def write(folder: str | os.PathLike) -> epath.Path:
    """Writes `folder`/report.html, whole or not at all, and returns its path. The run may still be going on."""
    folder = epath.Path(folder)
    target, half = folder / "report.html", folder / "report.html.new"
    half.write_text(render(folder))
    half.replace(target)
    return target


def render(folder: epath.Path) -> str:
    """The page as text."""
    edits, trials, selections, phases, passages = (
        read(folder / f"{name}.jsonl") for name in ("self_edits", "trials", "selections", "phases", "passages")
    )
    config, starts = _json(folder / "config.json", {}), _json(folder / "environment.json", [])
    lines, rounds = table.lines(trials), table.rounds(selections)
    noun = table.NOUNS[config.get("experiment", "single_passage")]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    template = resources.files("seal_jax.runs").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        name=folder.name,
        noun=noun,
        solved=[list(terminal.SOLVED_HEADER), terminal.solved(lines)] if noun == "tasks" and lines else None,
        config=config,
        facts=_facts(config, passages, table.judge_of(trials), noun),
        headlines=headlines(lines),
        complete=_complete(config, lines, noun),
        tables=[_row_table(lines, measure) for measure in MEASURES] if lines else [],
        ungraded=[line for line in lines if line.ungraded],
        rounds=_round_table(rounds),
        reward_ungraded=table.ungraded(trial for trial in trials if not trial["stage"].startswith(table.PREFIX)),
        pictures=list(_pictures(lines, rounds, selections, trials, phases, noun)),
        taught=_taught([p for p in passages if p["role"] == "train"][:SHOWN], edits, selections),
        asked=_asked([p for p in passages if p["role"] == "evaluation"][:SHOWN], edits, trials, folder),
        counts={role: sum(p["role"] == role for p in passages) for role in ("train", "evaluation")},
        phases=_phase_table(phases),
        usage=table.usage(phases),
        resampled=table.resampled(edits) if noun == "tasks" else None,
        config_text=json.dumps(config, indent=2),
        environment_text=json.dumps(starts, indent=2),
        started=starts[0]["started"] if starts else "",
        starts=len(starts),
    )


def headlines(lines: Sequence[table.Line]) -> list[str]:
    """What the last round of SEAL gained, in sentences that say so where the interval includes zero."""
    seal = [line for line in lines if line.name.startswith("SEAL")]
    if not seal:
        return []
    found = []
    others = (("over_base", "the base model"), ("over_no_rl", "self-edits without RL"), ("over_random", "random picks"))
    for field, other in others:
        parts = []
        for measure, unit in (("log_likelihood", "nats per answer token"), ("accuracy", "points of accuracy")):
            value = getattr(seal[-1], field).get(measure)
            if value is not None and value.count:
                doubt = " (the interval includes zero)" if abs(value.mean) <= value.half else ""
                parts.append(f"{terminal.cell(value, measure, '+')} {unit}{doubt}")
        if parts:
            found.append(f"{seal[-1].name}, against {other}: {', '.join(parts)}.")
    return found


def _facts(config: Mapping, passages: Sequence[Mapping], judge: str, noun: str) -> list[tuple[str, str]]:
    """What the run is, in a few words each."""
    if not config:
        return []
    model, data, reward, outer = config["model"], config["data"], config["reward"], config["outer"]
    weights = {"accuracy": reward["accuracy_weight"], "gain in log-likelihood": reward["likelihood_weight"]}
    counts = {role: sum(passage["role"] == role for passage in passages) for role in ("train", "evaluation")}
    return [
        ("policy", model["policy"]),
        ("student", STUDENTS.get(model["student"], model["student"])),
        ("learns from", f"{counts['train']} {noun} of {data['train']}"),
        ("evaluated on", f"{counts['evaluation']} {noun} of {data['evaluation']}"),
        ("reward", " + ".join(f"{weight:g} × {name}" for name, weight in weights.items() if weight)),
        (
            "self-edits",
            f"{outer['samples']} per {noun[:-1]}, selection: {outer['selection']}, rounds: {outer['rounds']}",
        ),
        ("judge of answers", judge),
    ]


def _complete(config: Mapping, lines: Sequence[table.Line], noun: str) -> bool:
    """Whether every row that the config asks for is there, with every passage or task."""
    if not config:
        return True
    arms = ["SEAL"] + ["random"] * config["outer"]["random_control"]
    rows = FIXED_ROWS[noun] + len(arms) * config["outer"]["rounds"]
    return len(lines) == rows and all(line.passages == config["data"]["evaluation_passages"] for line in lines)


def _row_table(lines: Sequence[table.Line], measure: str) -> dict[str, Any]:
    compared = [(field, title) for field, title in terminal.COMPARED if any(getattr(line, field) for line in lines)]
    total = max(line.passages for line in lines)
    return {
        "title": terminal.TITLES[measure],
        "header": ["row", "mean", *(title for _, title in compared)],
        "rows": [
            [terminal.row_name(line, total), terminal.cell(line.measures[measure], measure)]
            + [terminal.cell(getattr(line, field).get(measure), measure, "+") for field, _ in compared]
            for line in lines
        ],
        "passages": total,
    }


def _round_table(rounds: Sequence[table.Round]) -> dict[str, Any] | None:
    if not rounds:
        return None
    kinds = {"untrained": "untrained", "all": "all self-edits", "best": "best", "chosen": "chosen"}
    return {
        "header": ["round", *kinds.values(), "selected"],
        "rows": [
            [terminal.round_name(entry)]
            + [terminal.cell(getattr(entry, kind), "reward") for kind in kinds]
            + [terminal.ABSENT if entry.heldout else str(entry.selected)]
            for entry in rounds
        ],
        "heldout": any(entry.heldout for entry in rounds),
    }


def _pictures(lines, rounds, selections, trials, phases, noun) -> Iterable[tuple[str, str]]:
    """(caption, data URI) of each picture for which there is something to draw."""
    for measure, label in MEASURES.items():
        if any(line.measures[measure].count for line in lines):
            yield f"{label.capitalize()}: mean over {noun} with 95% interval", figures.rows(lines, measure, label)
    if rounds:
        yield f"Reward by round, with 95% intervals over {noun}", figures.rewards_by_round(rounds)
    if any(record.get("rewards") for record in selections):
        yield "Reward of every self-edit", figures.reward_distribution(selections)
    inner: dict[str, list[float]] = {}
    for trial in trials:
        if trial["loss"] is not None:
            inner.setdefault(trial["stage"].removeprefix(table.PREFIX), []).append(trial["loss"])
    outer = {
        record["phase"].partition(":")[0] + ", policy": record["loss"] for record in phases if "loss" in record
    }
    if inner or outer:
        caption = "Loss in the last epoch: inner loops (grey, median in black), and the policy's finetuning (diamonds)"
        yield caption, figures.losses(inner, outer)


def _taught(passages: Sequence[Mapping], edits: Sequence[Mapping], selections: Sequence[Mapping]) -> list[dict]:
    """Training passages with the self-edits of each round, their rewards, and by whom they were chosen."""
    picks: dict[tuple[str, str], list[Mapping]] = {}
    for record in selections:
        source = "round 1" if record["round"] == 1 else f"{record['arm']}, round {record['round']}"
        picks.setdefault((source, record["passage"]), []).append(record)
    found = []
    for passage in passages:
        groups: dict[str, list[dict]] = {}
        for edit in edits:
            if edit["passage"] != passage["passage"] or edit["stage"].startswith(table.PREFIX):
                continue
            records = picks.get((edit["stage"], edit["passage"]), [])
            rewards = [record["rewards"][edit["sample"]] for record in records if record.get("rewards")]
            arms = [record["arm"] for record in records if edit["sample"] in record["chosen"]]
            groups.setdefault(edit["stage"], []).append({**edit, "reward": next(iter(rewards), None), "arms": arms})
        found.append({**passage, "groups": groups})
    return found


def _asked(passages: Sequence[Mapping], edits: Sequence[Mapping], trials: Sequence[Mapping], folder) -> list[dict]:
    """Evaluation passages with each row's answers beside the gold ones: those to its first self-edit, first retrain."""
    rows = table.rows(trials)
    texts = {(edit["stage"], edit["passage"]): edit["text"] for edit in edits if edit["sample"] == 0}
    first = {
        (row, trial["passage"]): trial
        for row, of_row in rows.items()
        for trial in of_row
        if trial["sample"] == 0 and trial["retrain"] == 0
    }
    found = []
    for passage in passages:
        measured = [row for row in rows if (row, passage["passage"]) in first]
        questions = [
            {**question, "cells": [_answer(first[row, passage["passage"]], place) for row in measured]}
            for place, question in enumerate(passage["questions"])
        ]
        written = {row: texts.get((table.PREFIX + row, passage["passage"])) for row in measured}
        own = {row: text for row, text in written.items() if text is not None}
        sheets = {row: f"sheets/{sheet_name(passage['passage'], row)}" for row in measured}
        sheets = {row: file for row, file in sheets.items() if (folder / file).exists()}
        found.append({**passage, "rows": measured, "questions": questions, "edits": own, "sheets": sheets})
    return found


def _answer(trial: Mapping, place: int) -> dict:
    mark, word = MARKS[trial["correct"][place] if trial["correct"] else None]
    answer = trial["answers"][place] if trial["answers"] else ""
    return {"answer": answer, "mark": mark, "word": word, "log_likelihood": trial["log_likelihood"][place]}


def _phase_table(phases: Sequence[Mapping]) -> list[dict]:
    seconds = table.phases(phases)
    longest, total = max(seconds.values(), default=0) or 1, sum(seconds.values())
    rows = [{"name": name, "time": duration(value), "share": 100 * value / longest} for name, value in seconds.items()]
    return [*rows, {"name": "all phases", "time": duration(total), "share": 0}] if rows else []


def _json(file: epath.Path, default: Any) -> Any:
    return json.loads(file.read_text()) if file.exists() else default
