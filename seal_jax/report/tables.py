"""The numbers of a run, from its records alone: the rows of its table, paired differences between them, rounds."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from seal_jax.report.estimates import Estimate, estimate
from seal_jax.report.recorded import Record, Recorded, label
from seal_jax.runs import keys

Key = tuple[str, int]  # (arm, round)

EXPECTED = "expected"  # accuracy as the judge's probabilities have it
FIELDS = {"accuracy": "correct", EXPECTED: "probability", "log_likelihood": "log_likelihood"}  # of a trial's record
MEASURES = tuple(FIELDS)
OPTIONAL = (EXPECTED, "log_likelihood")  # of judges that give probabilities, and where config.evaluation asks for it
BOUNDS = {"accuracy": (0.0, 1.0), EXPECTED: (0.0, 1.0), "log_likelihood": None}
DIFFERENCE_BOUNDS = {"accuracy": (-1.0, 1.0), EXPECTED: (-1.0, 1.0), "log_likelihood": None}
OVER_UNTRAINED, OVER_NO_RL, OVER_RANDOM = "over untrained", "over no RL", "over random"
OVER_PASSAGE = "over passage only"  # in continued pretraining
COMPARISONS = (OVER_UNTRAINED, OVER_NO_RL, OVER_RANDOM, OVER_PASSAGE)
USED = ("programs", "compile_seconds", "real_tokens", "token_slots", "generated")  # what a phase's record counts


@dataclass(frozen=True)
class Counts:
    """How often what happened in the trials of a row."""

    trials: int = 0
    solved: int = 0  # trials in which every answer is right
    answers: int = 0  # that were to be graded
    ungraded: int = 0  # of these, the judge could not grade: in no mean, and never counted as wrong
    texts: int = 0  # generated as answers
    cut: int = 0  # of these, ended by answer_tokens
    self_edits: int = 0
    failed: int = 0  # self-edits that could not be carried out, or whose training diverged


@dataclass(frozen=True)
class Line:
    """One row of the table: each measure, and its paired differences from other rows (absent without such a row).

    measures: without those of OPTIONAL that no trial has.
    same_as: the name of the row whose policy this one still has, because its round selected nothing. It was not
    measured again, and its numbers are those of that row.
    """

    arm: str
    round: int
    name: str
    kind: str
    items: int  # measured so far
    measures: Mapping[str, Estimate]
    over: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)  # by comparison, then by measure
    counts: Counts = Counts()
    same_as: str | None = None


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
    on_itself: bool  # `chosen` were selected by these very rewards, which biases their mean upwards


def compared_with(config: Mapping, key: Key, untrained: Key | None) -> dict[str, Key | None]:
    """The rows that a row is compared with, by the name of the comparison; whether they are measured or not."""
    others = {OVER_UNTRAINED: untrained, OVER_NO_RL: (keys.SEAL, 0), OVER_RANDOM: (keys.RANDOM, key[1])}
    if config.get("experiment") == "pretraining":
        others[OVER_PASSAGE] = ("passage only", 0)
    return others


def lines(recorded: Recorded) -> list[Line]:
    """The rows of the table that have been measured, at least in part, in the order in which the run declared them."""
    declared, trials = declared_rows(recorded), evaluation_trials(recorded)
    source = {key: source_of(key, declared) for key in declared}
    measured = [key for key in declared if source[key] in trials]
    shown = {name for found in trials.values() for trial in found for name in OPTIONAL if trial.get(FIELDS[name])}
    measures = [name for name in MEASURES if name in shown or name not in OPTIONAL]
    values = {key: {name: per_item(trials[source[key]], name) for name in measures} for key in measured}
    untrained = next((key for key in measured if declared[key]["kind"] == "untrained"), None)

    def over(key: Key) -> dict[str, dict[str, Estimate]]:
        if key == untrained:
            return {}
        return {
            comparison: {name: _paired(values[key][name], values[other][name], name) for name in measures}
            for comparison, other in compared_with(recorded.config, key, untrained).items()
            if other in values and source[other] != source[key]
        }

    return [
        Line(
            arm=key[0],
            round=key[1],
            name=declared[key]["name"],
            kind=declared[key]["kind"],
            items=len({trial["item"] for trial in trials[source[key]]}),
            measures={name: estimate(values[key][name].values(), BOUNDS[name]) for name in measures},
            over=over(key),
            counts=count(trials[source[key]]),
            same_as=declared[source[key]]["name"] if source[key] != key else None,
        )
        for key in measured
    ]


def declared_rows(recorded: Recorded) -> dict[Key, Record]:
    """The rows that the run declared, in their order."""
    return {(row["arm"], row["round"]): row for row in recorded.rows}


def evaluation_trials(recorded: Recorded) -> dict[Key, list[Record]]:
    """The trials that the rows of the table are made of."""
    found: dict[Key, list[Record]] = {}
    for trial in recorded.trials:
        if (trial["split"], trial["purpose"]) == (keys.EVALUATION, keys.ANSWER):
            found.setdefault((trial["arm"], trial["round"]), []).append(trial)
    return found


def per_item(trials: Iterable[Record], measure: str) -> dict[str, float]:
    """Mean over questions, then over an item's trials -> {item: value}; items without a known value are left out."""
    return item_means((trial["item"], trial.get(FIELDS[measure])) for trial in trials)


def item_means(trials: Iterable[tuple[str, Sequence[float | None] | None]]) -> dict[str, float]:
    """(item, a value for each question) of each trial -> {item: mean}, as in `per_item`."""
    values: dict[str, list[float]] = {}
    for item, answers in trials:
        known = [float(value) for value in answers or [] if value is not None]
        if known:
            values.setdefault(item, []).append(float(np.mean(known)))
    return {item: float(np.mean(found)) for item, found in values.items()}


def count(trials: Sequence[Record]) -> Counts:
    """Counts over trials of one row or round."""
    return Counts(
        trials=len(trials),
        solved=sum(bool(trial["correct"]) and all(trial["correct"]) for trial in trials),
        answers=sum(len(trial["correct"] or []) for trial in trials),
        ungraded=ungraded(trials),
        texts=sum(len(trial["cut"] or []) for trial in trials),
        cut=sum(sum(trial["cut"] or []) for trial in trials),
        self_edits=len({(trial["item"], trial["sample"]) for trial in trials}),
        failed=len({(trial["item"], trial["sample"]) for trial in trials if trial["failure"] is not None}),
    )


def ungraded(trials: Iterable[Record]) -> int:
    """How many answers the judge could not grade."""
    return sum(verdict is None for trial in trials for verdict in trial["correct"] or [])


def rounds(rollouts: Sequence[Record]) -> list[Round]:
    """Rewards by round, arm and set of questions: means over items, each of the mean over the item's self-edits.

    All arms share the self-edits of round 1, which the arm SEAL wrote and whose rewards are known. Later self-edits of
    an arm that picks at random earn none, and its rounds are left out.
    """
    first = {record["item"]: record for record in rollouts if (record["arm"], record["round"]) == (keys.SEAL, 1)}
    groups: dict[Key, list[tuple[Record, Record]]] = {}  # (record of the choice, record that holds the rewards)
    for record in rollouts:
        shared = record["rewards"] is None and record["round"] == 1
        source = first.get(record["item"], record) if shared else record
        groups.setdefault((record["arm"], record["round"]), []).append((record, source))
    found = []
    for (arm, number), pairs in groups.items():
        for heldout in (False, True):
            rewards, base = ("heldout_rewards", "heldout_base") if heldout else ("rewards", "base")
            known = [(ours, source) for ours, source in pairs if _known(source[rewards])]
            if not known:
                continue
            found.append(
                Round(
                    arm=arm,
                    number=number,
                    heldout=heldout,
                    untrained=estimate(_known(source[base] for _, source in known)),
                    all=estimate(_means(source[rewards] for _, source in known)),
                    best=estimate(_best(source[rewards], source["retrains"]) for _, source in known),
                    chosen=estimate(_means([source[rewards][k] for k in ours["chosen"]] for ours, source in known)),
                    selected=sum(len(ours["chosen"]) for ours, _ in pairs),
                    on_itself=not heldout and all(ours is source for ours, source in pairs),
                )
            )
    return found


def _best(rewards: Sequence[float | None], retrains: Sequence[int] | None) -> float:
    """The greatest known reward, among those of the self-edits that were trained most often (see rewards/racing.py)."""
    counts = retrains or [0] * len(rewards)
    return max((count, value) for count, value in zip(counts, rewards, strict=True) if value is not None)[1]


def phases(records: Iterable[Record]) -> dict[str, float]:
    """Wall time in seconds of each phase, over all starts of the run, in the order in which they began."""
    found: dict[str, float] = {}
    for record in records:
        name = keys.title(keys.Stage(record["split"], record["arm"], record["round"], record["purpose"]))
        found[name] = found.get(name, 0.0) + record["seconds"]
    return found


def usage(records: Sequence[Record]) -> str:
    """One line: programs compiled, share of real tokens, tokens generated, over all starts of the run."""
    total = {name: sum(record.get(name, 0) for record in records) for name in USED}
    share = total["real_tokens"] / max(total["token_slots"], 1)
    return (
        f"{total['programs']} programs compiled or read from the cache in {total['compile_seconds']:.0f} s, "
        f"{share:.0%} of the trained token slots were real tokens, {total['generated']:,} tokens generated"
    )


def resampled(self_edits: Sequence[Record]) -> str:
    """One line: how many self-edits were sampled again because they could not be read, and how many stayed invalid."""
    again = sum(edit["attempts"] > 1 for edit in self_edits)
    more = sum(max(edit["attempts"] - 1, 0) for edit in self_edits)
    invalid = sum(edit["problem"] is not None for edit in self_edits)
    return f"{again} of {len(self_edits)} self-edits were sampled again, {more} times in all; {invalid} stayed invalid"


def unfinished(recorded: Recorded) -> dict[str, tuple[int, int]]:
    """{row or round: (self-edits that max_new_tokens cut off, all of its self-edits)}, where there are any."""
    found: dict[str, list[bool]] = {}
    for edit in recorded.self_edits:
        name = label(recorded, edit["split"], edit["arm"], edit["round"])
        found.setdefault(name, []).append(not edit["finished"])
    return {name: (sum(cut), len(cut)) for name, cut in found.items() if any(cut)}


def unwritten(recorded: Recorded) -> dict[str, str]:
    """{row or round: how many self-edits were not written, and why}, where there are any."""
    return _missing(recorded, recorded.self_edits, lambda edit: edit["text"] is None and edit["problem"])


def unrated(recorded: Recorded) -> dict[str, str]:
    """{round: how many self-edits the rubric's judge could not rate, and why}, where there are any."""
    return _missing(recorded, recorded.ratings, lambda rating: rating["total"] is None and rating["problem"])


def _missing(recorded: Recorded, records: Sequence[Record], why: Callable[[Record], str | None]) -> dict[str, str]:
    groups: dict[str, list[str]] = {}
    for record in records:
        name = label(recorded, record["split"], record["arm"], record["round"])
        groups.setdefault(name, []).append(why(record) or "")
    counts = {name: Counter(filter(None, found)) for name, found in groups.items()}
    return {
        name: f"{found.total()} of {len(groups[name])} ({', '.join(f'{why}: {n}' for why, n in found.most_common())})"
        for name, found in counts.items()
        if found
    }


def failed(recorded: Recorded) -> dict[str, tuple[int, int]]:
    """{row or round: (self-edits that failed or diverged, all that were tried)}, where there are any."""
    groups: dict[str, list[Record]] = {}
    for trial in recorded.trials:
        name = label(recorded, trial["split"], trial["arm"], trial["round"])
        if trial["purpose"] in (keys.REWARD, keys.ANSWER):
            groups.setdefault(name, []).append(trial)
    counts = {name: count(trials) for name, trials in groups.items()}
    return {name: (found.failed, found.self_edits) for name, found in counts.items() if found.failed}


def judge_of(trials: Iterable[Record]) -> str:
    """The name of the judge of these trials; within the reward, and within the evaluation, there is only one."""
    return next((trial["judge"] for trial in trials if trial["judge"]), "none")


def source_of(key: Key, declared: Mapping[Key, Record]) -> Key:
    """The row whose trials a row's numbers come from: itself, or the last row before its policy stopped changing."""
    seen = set()
    while key in declared and declared[key]["same_as"] and key not in seen:
        seen.add(key)
        key = tuple(declared[key]["same_as"])
    return key


def drift(recorded: Recorded) -> dict[Key, Record]:
    """What policy gradients did to the policy, by (arm, round): the phases that taught it, the last where one was
    repeated."""
    steps = (phase for phase in recorded.phases if phase["purpose"] == keys.TEACH and "entropy" in phase)
    return {(phase["arm"], phase["round"]): phase for phase in steps}


def written_under(recorded: Recorded, row: Key, kind: str) -> Key:
    """The (arm, round) of the self-edits that a row's students learned: its own; all cells of a grid share theirs."""
    shared = recorded.config.get("experiment") == "grid" and kind != "untrained"
    return (keys.GRID, 0) if shared else row


def _known(values: Iterable[float | None] | None) -> list[float]:
    return [value for value in values or [] if value is not None]


def _means(groups: Iterable[Iterable[float | None]]) -> list[float]:
    """The mean of what is known in each group; groups in which nothing is known are left out."""
    return [float(np.mean(values)) for values in map(_known, groups) if values]


def _paired(ours: Mapping[str, float], theirs: Mapping[str, float], measure: str) -> Estimate:
    return estimate((ours[item] - theirs[item] for item in ours if item in theirs), DIFFERENCE_BOUNDS[measure])
