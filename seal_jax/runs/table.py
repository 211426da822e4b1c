"""The numbers of a run, from its records alone: rows with 95% intervals over passages, paired differences, rounds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Record = Mapping
PREFIX = "evaluation: "
MEASURES = ("accuracy", "log_likelihood")
NO_RL = "self-edits, no RL"
NOUNS = {"single_passage": "passages", "fewshot": "tasks"}  # what the items of an experiment are
USED = ("programs", "compile_seconds", "real_tokens", "token_slots", "generated")  # what a phase's record counts


@dataclass(frozen=True)
class Estimate:
    """A mean over passages with the half-width of its 95% t-interval (nan for one passage)."""

    mean: float
    half: float
    count: int


@dataclass(frozen=True)
class Line:
    """One row: each measure, and its paired differences from other rows (absent where there is no such row)."""

    name: str
    passages: int
    measures: Mapping[str, Estimate]
    over_base: Mapping[str, Estimate]  # the first row, where nothing is trained
    over_no_rl: Mapping[str, Estimate]
    over_random: Mapping[str, Estimate]  # from the control's row of the same round
    answers: int
    ungraded: int  # answers that the judge could not grade: in no mean, and never counted as wrong
    trials: int = 0
    solved: int = 0  # trials in which every answer is right
    failed: int = 0  # trials whose self-edit could not be carried out


@dataclass(frozen=True)
class Round:
    """What self-edits earned in a round, on the questions in the reward or on those kept out of it."""

    arm: str
    number: int
    heldout: bool
    untrained: Estimate
    all: Estimate
    best: Estimate
    chosen: Estimate
    selected: int  # self-edits that teach the policy


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and 95% interval of independent values."""
    values = np.asarray(list(values), float)
    if len(values) < 2:
        return Estimate(float(values.mean()) if len(values) else float("nan"), float("nan"), len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Estimate(float(values.mean()), float(half), len(values))


def per_passage(trials: Iterable[Record], measure: str) -> dict[str, float]:
    """Mean over questions, then over a passage's trials -> {passage id: value}; passages without any are left out."""
    values: dict[str, list[float]] = {}
    for trial in trials:
        answers = trial["correct"] if measure == "accuracy" else trial["log_likelihood"]
        known = [float(value) for value in answers or [] if value is not None]
        if known:
            values.setdefault(trial["passage"], []).append(float(np.mean(known)))
    return {passage: float(np.mean(found)) for passage, found in values.items()}


def rows(trials: Iterable[Record]) -> dict[str, list[Record]]:
    """The evaluation's trials by row, in the order in which the rows were measured."""
    found: dict[str, list[Record]] = {}
    for trial in trials:
        if trial["stage"].startswith(PREFIX):
            found.setdefault(trial["stage"].removeprefix(PREFIX), []).append(trial)
    return found


def lines(trials: Iterable[Record]) -> list[Line]:
    """The rows of the evaluation."""
    found = rows(trials)
    base = next(iter(found), "")
    values = {name: {measure: per_passage(of_row, measure) for measure in MEASURES} for name, of_row in found.items()}

    def over(name: str, other: str) -> dict[str, Estimate]:
        if other not in values or other == name:
            return {}
        return {measure: _paired(values[name][measure], values[other][measure]) for measure in MEASURES}

    return [
        Line(
            name,
            len(values[name]["log_likelihood"]),
            {measure: estimate(values[name][measure].values()) for measure in MEASURES},
            over(name, base),
            {} if name == base else over(name, NO_RL),
            over(name, name.replace("SEAL", "random")),
            sum(len(trial["correct"] or []) for trial in of_row),
            ungraded(of_row),
            len(of_row),
            sum(bool(trial["correct"]) and all(trial["correct"]) for trial in of_row),
            sum(bool(trial.get("failure")) for trial in of_row),
        )
        for name, of_row in found.items()
    ]


def ungraded(trials: Iterable[Record]) -> int:
    """How many answers the judge could not grade."""
    return sum(verdict is None for trial in trials for verdict in trial["correct"] or [])


def rounds(selections: Sequence[Record]) -> list[Round]:
    """Rewards by round, arm and set of questions: means over passages, each of the mean over the passage's self-edits.

    The control's first self-edits are those of the arm SEAL, whose rewards are known; its later ones earn none.
    """
    first = {record["passage"]: record for record in selections if record["arm"] == "SEAL" and record["round"] == 1}
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in selections:
        source = record if "rewards" in record or record["round"] > 1 else first.get(record["passage"], record)
        groups.setdefault((record["arm"], record["round"]), []).append({**source, "chosen": record["chosen"]})
    found = []
    for (arm, number), records in groups.items():
        for heldout in (False, True):
            name = "heldout_rewards" if heldout else "rewards"
            known = [record for record in records if any(value is not None for value in record.get(name) or [])]
            if not known:
                continue
            base = [record.get("heldout_base" if heldout else "base") for record in known]
            chosen = [[record[name][k] for k in record["chosen"]] for record in known]
            found.append(
                Round(
                    arm,
                    number,
                    heldout,
                    estimate(value for value in base if value is not None),
                    estimate(_means(record[name] for record in known)),
                    estimate(max(value for value in record[name] if value is not None) for record in known),
                    estimate(_means(chosen)),
                    sum(len(record["chosen"]) for record in records),
                )
            )
    return found


def phases(records: Iterable[Record]) -> dict[str, float]:
    """Wall time in seconds of each phase, over all starts of the run, in the order in which they began."""
    found: dict[str, float] = {}
    for record in records:
        found[record["phase"]] = found.get(record["phase"], 0.0) + record["seconds"]
    return found


def usage(records: Sequence[Record]) -> str:
    """One line: programs compiled, share of real tokens, tokens generated, over all starts of the run."""
    total = {name: sum(record.get(name, 0) for record in records) for name in USED}
    share = total["real_tokens"] / max(total["token_slots"], 1)
    return (
        f"{total['programs']} programs compiled or read from the cache in {total['compile_seconds']:.0f} s, "
        f"{share:.0%} of the trained token slots were real tokens, {total['generated']:,} tokens generated"
    )


def resampled(edits: Sequence[Record]) -> str:
    """One line: how many self-edits were sampled again because they were invalid, and how many stayed so."""
    again = sum(record.get("attempts", 1) > 1 for record in edits)
    more = sum(record.get("attempts", 1) - 1 for record in edits)
    invalid = sum(record.get("problem") is not None for record in edits)
    return f"{again} of {len(edits)} self-edits were sampled again, {more} times in all; {invalid} stayed invalid"


def judge_of(trials: Iterable[Record]) -> str:
    """The judge's name; verdicts of different judges never share a run."""
    return next((trial["judge"] for trial in trials if trial["judge"]), "none")


def _means(groups: Iterable[Sequence[float | None]]) -> list[float]:
    """The mean of what is known in each group; groups in which nothing is are left out."""
    known = [[value for value in group if value is not None] for group in groups]
    return [float(np.mean(values)) for values in known if values]


def _paired(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Estimate:
    return estimate(ours[passage] - theirs[passage] for passage in ours if passage in theirs)
