"""What is still to come in a run, and about how long it takes: from the FLOPs of each stage (see forecast.py) and what
the same kind of work took so far in this run.

Before a kind of work has run, its time is that of a matrix product's rate on this CPU; elsewhere it is not guessed, and
the sentence says so.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from seal_jax.experiments.forecast import SHARE, costs, product_rate
from seal_jax.experiments.rounds import NO_RL, Setup
from seal_jax.runs.keys import ANSWER, EVALUATION, RATE, REWARD, SEAL, TEACH, TRAIN, UNTRAINED, WRITE, Stage
from seal_jax.runs.recorder import Recorder

Work = tuple[Stage, int]  # a stage and how many units (self-edits, inner loops, ...) it has
KINDS = {WRITE: "self-edits", UNTRAINED: "answers", REWARD: "inner loops", ANSWER: "inner loops", TEACH: "finetuning"}
LATER = "how long it takes is told once the first rows are measured"


def whole(setup: Setup) -> list[Work]:
    """Every stage of the run that takes a model, in order."""
    config, found = setup.config, []
    evaluation, outer, train = config.evaluation, config.outer, len(setup.train)
    asked = len(setup.evaluation)

    def row(arm: str, number: int) -> None:
        texts = asked * evaluation.samples
        if arm != "file":  # whose self-edits are written
            found.append((Stage(EVALUATION, arm, number), texts))
        found.append((Stage(EVALUATION, arm, number, ANSWER), texts * evaluation.retrains))

    for control in setup.domain.controls():
        loops = asked * control.samples * evaluation.retrains if control.text else asked
        found.append((Stage(EVALUATION, control.name, 0, ANSWER), loops))
    for who, _, _ in setup.others:
        row(who, 0)
    row(SEAL, 0)
    for arm in setup.arms:
        for number in range(1, outer.rounds + 1):
            source = SEAL if number == 1 else arm.name
            texts = train * outer.samples
            if outer.author != "file":
                found.append((Stage(TRAIN, source, number), texts))
            if arm.improver.needs_rewards and config.reward.kind == "rubric":
                found.append((Stage(TRAIN, source, number, RATE), texts))
            elif arm.improver.needs_rewards:
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
    rated = [Stage(r["split"], r["arm"], r["round"], RATE) for r in recorder.ratings.all()]
    taught = {Stage(TRAIN, r["arm"], r["round"], TEACH) for r in recorder.rollouts.all()}
    return Counter([*edits, *trials, *rated, *taught])


@dataclass(frozen=True)
class Outlook:
    """What is to come of a run, in words.

    cost(stage): FLOPs of a unit; rate: FLOP/s of a matrix product on this machine, None where it tells nothing.
    """

    setup: Setup
    cost: Callable[[Stage], float]
    rate: float | None

    def paces(self) -> dict[str, float]:
        """Seconds of a FLOP (of a unit, where it is not known how many it has) in the latest stage of each kind of
        work, compilation aside; of kinds that have not run, what this machine's rate lets expect.

        Of inner loops only stages that trained something count.
        """
        recorder, seconds = self.setup.recorder, Counter()
        for phase in recorder.phases.all():
            seconds[_stage(phase)] += phase["seconds"] - phase.get("compile_seconds", 0.0)
        units, trained = made(recorder), {_stage(record) for record in recorder.trials.all() if record["steps"]}
        expected = {} if self.rate is None else {kind: 1 / (SHARE * self.rate) for kind in KINDS.values()}
        return expected | {
            self.kind(stage): spent / (units[stage] * self.size(stage))
            for stage, spent in seconds.items()
            if units[stage] and (stage in trained or stage.purpose not in (REWARD, ANSWER))
        }

    def kind(self, stage: Stage) -> str:
        """The kind of work that a stage is; what others than the policy write is apart."""
        if stage.purpose != WRITE:
            return KINDS.get(stage.purpose, stage.purpose)
        own = stage.arm == SEAL or stage.arm in [arm.name for arm in self.setup.arms]
        who = self.setup.config.outer.author if stage.split == TRAIN else "policy" if own else stage.arm
        return KINDS[WRITE] if who == "policy" else f"{KINDS[WRITE]} by {who}"

    def size(self, stage: Stage) -> float:
        """FLOPs of one unit of a stage, or 1."""
        return self.cost(stage) if self.kind(stage) in KINDS.values() else 1.0

    def time_left(self) -> str:
        """'about 7 minutes', and what is not in it; empty where nothing is left or no time can be told."""
        rest, paces = left(self.setup), self.paces()
        told = [(stage, units) for stage, units in rest if self.kind(stage) in paces]
        if not told:
            return ""
        total = sum(paces[self.kind(stage)] * units * self.size(stage) for stage, units in told)
        unknown = list(dict.fromkeys(self.kind(stage) for stage, _ in rest if self.kind(stage) not in paces))
        beside = f", besides {' and '.join(unknown)}, of which none has run yet" if unknown else ""
        return f"about {_words(total)}{beside}"

    def listed(self) -> str:
        """What is to come, a line for each row of the table with the work that leads to it; empty where nothing is."""
        rest = left(self.setup)
        if not rest:
            return ""
        when = self.time_left()
        if when and not self.setup.recorder.phases.all():
            when += ", by the speed of this machine, without compiling"
        places = list(dict.fromkeys((stage.arm, stage.round) for stage, _ in rest))
        lines = [f"  {_name(*place)}: {_sum(work for work in rest if (work[0].arm, work[0].round) == place)}"
                 for place in places]  # fmt: skip
        return "\n".join([f"to come ({when or LATER}):", *lines])


def outlook(setup: Setup) -> Outlook:
    """Of a run that is about to begin or to go on. Measures the rate of a small matrix product, where that tells."""
    return Outlook(setup, cache(costs(setup)), product_rate())


def _stage(record: dict) -> Stage:
    return Stage(record["split"], record["arm"], record["round"], record["purpose"])


def _name(arm: str, number: int) -> str:
    return f"{arm}, round {number}" if number else NO_RL if arm == SEAL else arm


def _sum(works: Iterable[Work]) -> str:
    """'10 self-edits, 30 inner loops, finetuning; evaluation: 5 self-edits, 5 inner loops'."""
    parts: dict[str, list[str]] = {}
    for stage, units in works:
        kind = KINDS.get(stage.purpose, stage.purpose)
        kind = kind if units != 1 else kind.removesuffix("s")
        parts.setdefault(stage.split, []).append(kind if stage.purpose == TEACH else f"{units} {kind}")
    shown = [", ".join(found) if split == TRAIN or len(parts) == 1 else f"evaluation: {', '.join(found)}"
             for split, found in parts.items()]  # fmt: skip
    return "; ".join(shown)


def _words(seconds: float) -> str:
    if seconds < 90:
        return "a minute" if seconds > 30 else "half a minute"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 100 else f"{seconds / 3600:.1f} hours"
