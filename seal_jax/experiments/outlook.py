"""What is still to come in a run, and about how long it takes: from what the same kind of work took so far in this run.

Nothing is guessed: as long as a kind of work has not run there is no time for it, and the sentence says so.
"""

from collections import Counter
from collections.abc import Iterable

from seal_jax.experiments.rounds import NO_RL, Setup
from seal_jax.runs.keys import ANSWER, EVALUATION, REWARD, SEAL, TEACH, TRAIN, UNTRAINED, WRITE, Stage
from seal_jax.runs.recorder import Recorder

Work = tuple[Stage, int]  # a stage and how many units (self-edits, inner loops, ...) it has
KINDS = {WRITE: "self-edits", UNTRAINED: "answers", REWARD: "inner loops", ANSWER: "inner loops", TEACH: "finetuning"}


def whole(setup: Setup) -> list[Work]:
    """Every stage of the run that takes a model, in order."""
    config, found = setup.config, []
    evaluation, outer, train = config.evaluation, config.outer, len(setup.train)
    asked = len(setup.evaluation)

    def row(arm: str, number: int) -> None:
        texts = asked * evaluation.samples
        found.append((Stage(EVALUATION, arm, number), texts))
        found.append((Stage(EVALUATION, arm, number, ANSWER), texts * evaluation.retrains))

    for control in setup.domain.controls():
        loops = asked * control.samples * evaluation.retrains if control.text else asked
        found.append((Stage(EVALUATION, control.name, 0, ANSWER), loops))
    row(SEAL, 0)
    for arm in setup.arms:
        for number in range(1, outer.rounds + 1):
            source = SEAL if number == 1 else arm.name
            texts = train * outer.samples
            if outer.author != "file":
                found.append((Stage(TRAIN, source, number), texts))
            if arm.improver.needs_rewards:
                found.append((Stage(TRAIN, source, number, UNTRAINED), train))
                found.append((Stage(TRAIN, source, number, REWARD), texts * config.reward.retrains))
            found.append((Stage(TRAIN, arm.name, number, TEACH), 1))
            row(arm.name, number)
    return list(dict(found).items())  # what two arms share is there once


def left(setup: Setup) -> list[Work]:
    """`whole` without what the records hold, and without what they show to be over: rounds that taught (racing may
    have needed fewer inner loops), and rows that are not measured because nothing was chosen."""
    done, over = made(setup.recorder), set()
    over |= {(TRAIN, stage.arm, stage.round) for stage in done if stage.purpose == TEACH}
    over |= {(EVALUATION, row["arm"], row["round"]) for row in setup.recorder.rows.all() if row["same_as"]}
    rest = [(stage, units - done[stage]) for stage, units in whole(setup)]
    return [(stage, units) for stage, units in rest if units > 0 and (stage.split, stage.arm, stage.round) not in over]


def made(recorder: Recorder) -> Counter:
    """How many units of each stage are recorded."""
    edits = [Stage(r["split"], r["arm"], r["round"]) for r in recorder.edits.all()]
    trials = [_stage(record) for record in recorder.trials.all()]
    taught = {Stage(TRAIN, r["arm"], r["round"], TEACH) for r in recorder.rollouts.all()}
    return Counter([*edits, *trials, *taught])


def rates(recorder: Recorder) -> dict[str, float]:
    """Seconds of a unit of each kind of work, compilation aside, in the latest stage of that kind.

    Of inner loops only stages that trained something count.
    """
    seconds: dict[Stage, float] = {}
    for phase in recorder.phases.all():
        spent = phase["seconds"] - phase.get("compile_seconds", 0.0)
        seconds[_stage(phase)] = seconds.get(_stage(phase), 0.0) + spent
    units, trained = made(recorder), {_stage(record) for record in recorder.trials.all() if record["steps"]}
    return {
        KINDS[stage.purpose]: spent / units[stage]
        for stage, spent in seconds.items()
        if units[stage] and (stage in trained or stage.purpose in (WRITE, UNTRAINED, TEACH))
    }


def time_left(setup: Setup) -> str:
    """'about 7 minutes to come', and what is not in it; empty where nothing is left or no time can be told."""
    rest, known = left(setup), rates(setup.recorder)
    told = [(stage, units) for stage, units in rest if KINDS[stage.purpose] in known]
    if not told:
        return ""
    total = sum(known[KINDS[stage.purpose]] * units for stage, units in told)
    unknown = list(dict.fromkeys(KINDS[stage.purpose] for stage, _ in rest if KINDS[stage.purpose] not in known))
    beside = f", besides {' and '.join(unknown)}, of which none has run yet" if unknown else ""
    return f"about {_words(total)} to come{beside}"


def listed(setup: Setup) -> str:
    """What is to come, a line for each row of the table with the work that leads to it; empty where nothing is."""
    rest = left(setup)
    if not rest:
        return ""
    when = time_left(setup) or "how long it takes is told once the first rows are measured"
    places = list(dict.fromkeys((stage.arm, stage.round) for stage, _ in rest))
    lines = [f"  {_name(*place)}: {_sum(work for work in rest if (work[0].arm, work[0].round) == place)}"
             for place in places]  # fmt: skip
    return "\n".join([f"to come ({when}):", *lines])


def _stage(record: dict) -> Stage:
    return Stage(record["split"], record["arm"], record["round"], record["purpose"])


def _name(arm: str, number: int) -> str:
    return f"{arm}, round {number}" if number else NO_RL if arm == SEAL else arm


def _sum(works: Iterable[Work]) -> str:
    """'10 self-edits, 30 inner loops, finetuning; evaluation: 5 self-edits, 5 inner loops'."""
    parts: dict[str, list[str]] = {}
    for stage, units in works:
        kind = KINDS[stage.purpose] if units != 1 else KINDS[stage.purpose].removesuffix("s")
        parts.setdefault(stage.split, []).append(kind if stage.purpose == TEACH else f"{units} {kind}")
    shown = [", ".join(found) if split == TRAIN or len(parts) == 1 else f"evaluation: {', '.join(found)}"
             for split, found in parts.items()]  # fmt: skip
    return "; ".join(shown)


def _words(seconds: float) -> str:
    if seconds < 90:
        return "a minute" if seconds > 30 else "half a minute"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 100 else f"{seconds / 3600:.1f} hours"
