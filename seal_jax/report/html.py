"""report.html: one page that needs no other file and no network, made from the records of a run alone."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

import jinja2
from etils import epath

from seal_jax.report import cells, figures, forgetting, grid, reliability, tables, texts
from seal_jax.report.examples import examples
from seal_jax.report.recorded import Recorded, label, load, load_json, round_label
from seal_jax.report.tables import Line, Round
from seal_jax.runs import keys
from seal_jax.text import duration

SHOWN = 8  # items of each split whose texts are on the page; all of them are in the records
STUDENTS = {"": "the policy of the round", "initial": "the policy before round 1"}
EXPERIMENTS = {
    "pretraining": "continued pretraining: all passages at once",
    "continual": "continual self-edits: passages one after another",
    "grid": "the inner loop by rank, learning rate and epochs",
}
AXES = {"accuracy": "accuracy, %", "log_likelihood": "log-likelihood, nats per token"}
UNITS = {"accuracy": "points of accuracy", "log_likelihood": "nats per answer token"}
OTHERS = {
    tables.OVER_UNTRAINED: "the untrained student",
    tables.OVER_NO_RL: "self-edits without RL",
    tables.OVER_RANDOM: "random picks",
    tables.OVER_PASSAGE: "the passages alone",
}


def write(folder: str | os.PathLike) -> epath.Path:
    """Writes `folder`/report.html, whole or not at all, and returns its path. The run may still be going on."""
    folder = epath.Path(folder)
    target, half = folder / "report.html", folder / "report.html.new"
    half.write_text(render(folder))
    half.replace(target)
    return target


def render(folder: epath.Path) -> str:
    """The page as text."""
    recorded, starts = load(folder), load_json(folder / "environment.json", [])
    lines, rounds = tables.lines(recorded), tables.rounds(recorded.rollouts)
    total, words = cells.total_items(recorded, lines), recorded.words
    taught, asked = recorded.items_of(keys.TRAIN), recorded.items_of(keys.EVALUATION)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    template = resources.files("seal_jax.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        name=folder.name,
        words=words,
        facts=_facts(recorded),
        headlines=headlines(lines),
        examples=examples(recorded),
        complete=complete(recorded, lines),
        legend=cells.legend(lines, total, words),
        tables=[*cells.evaluation_tables(recorded, lines), *forgetting.tables(recorded), *grid.tables(recorded, lines)]
        if lines
        else [],
        row_notes=cells.row_notes(recorded, lines),
        rounds=cells.round_table(rounds) if rounds else None,
        round_notes=cells.round_notes(recorded, rounds),
        drift=cells.drift_table(recorded),
        heldout=any(entry.heldout for entry in rounds),
        pictures=list(_pictures(recorded, lines, rounds)),
        taught=texts.taught(recorded, taught[:SHOWN]),
        asked=texts.asked(recorded, asked[:SHOWN], folder),
        likelihood=any("log_likelihood" in line.measures for line in lines),
        counts={keys.TRAIN: len(taught), keys.EVALUATION: len(asked)},
        phases=_phase_table(recorded.phases),
        usage=tables.usage(recorded.phases),
        resampled=tables.resampled(recorded.self_edits) if words.one == "task" else None,
        config_text=json.dumps(recorded.config, indent=2),
        environment_text=json.dumps(starts, indent=2),
        started=starts[0]["started"] if starts else "",
        starts=len(starts),
    )


def headlines(lines: Sequence[Line]) -> list[str]:
    """How much the last round of SEAL gets right and what it gained, with a word where the interval includes zero.

    A difference without an interval, such as that of a single item, is no headline.
    """
    learned = [line for line in lines if line.arm in (keys.SEAL, keys.OWN) and line.round]
    if not learned:
        return []
    last, found, total = learned[-1], [], max(line.items for line in lines)
    first = next(line for line in lines if line.arm == last.arm)
    shown = {line.name + cells.so_far(line, total): line.measures["accuracy"] for line in (last, first, lines[0])}
    right = [f"“{name}” {cells.number(value, 'accuracy')}" for name, value in shown.items() if value.count]
    if right:
        found.append(f"Right answers, in %: {', '.join(right)}.")
    if last.same_as:
        found.append(f"{last.name} has the policy of “{last.same_as}”: no self-edit was selected since.")
    for comparison, other in OTHERS.items():
        parts = []
        for measure, unit in UNITS.items():
            value = last.over.get(comparison, {}).get(measure)
            if value is not None and value.has_interval:
                doubt = " (the interval includes zero)" if value.includes_zero else ""
                parts.append(f"{cells.number(value, measure, '+')} {unit}{doubt}")
        if parts:
            found.append(f"{last.name}, against {other}: {', '.join(parts)}.")
    return found


def complete(recorded: Recorded, lines: Sequence[Line]) -> bool:
    """Whether every row that the run declared or its config asks for is measured, with every item."""
    if not recorded.config:
        return True
    matrices = forgetting.matrices(recorded)
    if recorded.config.get("experiment") == "continual":
        arms = 1 + (recorded.config["continual"]["uncontrolled"] and forgetting.is_controlled(recorded))
        return len(matrices) == arms and all(matrix.complete for matrix in matrices)
    outer = recorded.config.get("outer", {"rounds": 0, "random_control": False})
    rounds = range(1, outer["rounds"] + 1)
    expected = {(row["arm"], row["round"]) for row in recorded.rows}
    expected |= {(keys.OWN, count) for count in recorded.config.get("pretraining", {}).get("samples", ())}
    expected |= {(keys.SEAL, number) for number in (0, *rounds)} if "outer" in recorded.config else set()
    expected |= {(keys.RANDOM, number) for number in rounds if outer["random_control"]}
    total = cells.total_items(recorded, lines)
    return expected <= {(line.arm, line.round) for line in lines if line.items + _unwritten(recorded, line) == total}


def _unwritten(recorded: Recorded, line: Line) -> int:
    """How many items a row can never be measured on, because nobody wrote any self-edit of them."""
    stage = (keys.EVALUATION, *tables.written_under(recorded, (line.arm, line.round), line.kind))
    edits = [edit for edit in recorded.self_edits if (edit["split"], edit["arm"], edit["round"]) == stage]
    written = {edit["item"] for edit in edits if edit["text"] is not None or edit["problem"] is None}
    return len({edit["item"] for edit in edits} - written)


def _facts(recorded: Recorded) -> list[tuple[str, str]]:
    """What the run is, in a few words each."""
    if not recorded.config:
        return []
    model, data, words = recorded.config["model"], recorded.config["data"], recorded.words
    counts = {split: len(recorded.items_of(split)) for split in (keys.TRAIN, keys.EVALUATION)}
    judges = {split: tables.judge_of(recorded.trials_of(split)) for split in (keys.TRAIN, keys.EVALUATION)}
    models = [("policy", model["policy"]), ("student", STUDENTS.get(model["student"], model["student"]))]
    experiment = recorded.config.get("experiment", "rounds")
    if experiment != "rounds":
        how = recorded.config[experiment]
        return [
            ("experiment", EXPERIMENTS[experiment]),
            *models,
            ("passages", f"{sum(counts.values())} of {data['evaluation']}, {counts[keys.EVALUATION]} asked about"),
            ("self-edits", f"by: {how['author']}"),
            ("judge of answers", judges[keys.EVALUATION]),
        ]
    reward, outer = recorded.config["reward"], recorded.config["outer"]
    weights = {"accuracy": reward["accuracy_weight"], "gain in log-likelihood": reward["likelihood_weight"]}
    return [
        *models,
        ("learns from", f"{words.count(counts[keys.TRAIN])} of {data['train']}"),
        ("evaluated on", f"{words.count(counts[keys.EVALUATION])} of {data['evaluation']}"),
        ("reward", _reward(reward, weights)),
        ("self-edits", f"{outer['samples']} per {words.one}"),
        ("outer loop", f"rounds: {outer['rounds']}, selection: {outer['selection']}"),
        ("judge of answers", f"{judges[keys.TRAIN]} in the reward, {judges[keys.EVALUATION]} in the evaluation"),
    ]


def _pictures(recorded: Recorded, lines: Sequence[Line], rounds: Sequence[Round]) -> Iterable[tuple[str, str]]:
    """(caption, data URI) of each picture for which there is something to draw."""
    many = recorded.words.many
    for measure, axis in AXES.items():
        if any(measure in line.measures and line.measures[measure].count for line in lines):
            yield f"{axis.capitalize()}: mean over {many} with 95% interval", figures.rows(lines, measure, axis)
    grids = grid.by_rank(recorded, lines)
    for rank, found in grids.items():
        caption = f"Accuracy, %, by epochs, for each learning rate: mean over {many} with 95% interval"
        yield f"{rank.capitalize()}: {caption}" if rank else caption, figures.by_epochs(found, figures.highest(grids))
    for matrix in forgetting.matrices(recorded):
        caption = f"{matrix.arm.capitalize()}: accuracy, %, on each passage of a sequence after each update"
        yield caption, figures.matrix(matrix.mean)
    if len({entry.number for entry in rounds}) > 1:  # the table of rewards says as much of a single one
        yield f"Reward by round, with 95% intervals over {many}", figures.rewards_by_round(rounds)
    if any(record["rewards"] is not None for record in recorded.rollouts):
        yield "Reward of every self-edit", figures.reward_distribution(recorded.rollouts)
    curve = reliability.curve(recorded.trials_of(keys.TRAIN))
    if curve is not None:
        caption = "How much of the differences in accuracy between self-edits of one item is theirs, and not chance"
        yield caption, figures.reliability(curve)
    curves: dict[str, list[list[float]]] = {}
    for trial in recorded.trials_of(keys.TRAIN):
        if len(trial.get("losses") or []) > 1 and None not in trial["losses"]:
            curves.setdefault(label(recorded, keys.TRAIN, trial["arm"], trial["round"]), []).append(trial["losses"])
    if curves:
        caption = "Loss of the inner loops that give rewards: median, and a band between the quartiles"
        yield caption, figures.loss_curves(curves)
    inner: dict[str, list[float]] = {}
    for trial in recorded.trials:
        if trial["loss"] is not None:
            name = label(recorded, trial["split"], trial["arm"], trial["round"])
            inner.setdefault(name, []).append(trial["loss"])
    outer = {
        (_model(recorded, record), record["arm"]): record["loss"]
        for record in recorded.phases
        if record["purpose"] == keys.TEACH and record.get("loss") is not None
    }
    if inner or outer:
        of_loops = ": inner loops (grey, median in black), and the policy's finetuning (diamonds)"
        of_whom = of_loops if inner else " of each training"
        yield f"Loss in the last epoch{of_whom}", figures.losses(inner, outer)


def _model(recorded: Recorded, phase: Mapping) -> str:
    """Which model a phase finetuned: the policy of a round, or the student of a row."""
    if phase["split"] == keys.TRAIN:
        return f"{round_label(phase['arm'], phase['round'])}, policy"
    return label(recorded, phase["split"], phase["arm"], phase["round"])


def _phase_table(records: Sequence[Mapping]) -> list[dict]:
    seconds = tables.phases(records)
    longest, total = max(seconds.values(), default=0) or 1, sum(seconds.values())
    rows = [{"name": name, "time": duration(value), "share": 100 * value / longest} for name, value in seconds.items()]
    return [*rows, {"name": "all phases", "time": duration(total), "share": 0}] if rows else []


def _reward(reward: Mapping, weights: Mapping[str, float]) -> str:
    if reward.get("kind") == "rubric":
        return "a judge's rubric, 4 to 20"
    own = ", by questions that the policy wrote" if reward.get("kind") == "own_questions" else ""
    return " + ".join(f"{weight:g} × {name}" for name, weight in weights.items() if weight) + own
