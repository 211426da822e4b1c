"""SEAL's outer loop (arXiv 2506.10943, section 3.1), readable from top to bottom:

    write self-edits -> train a student on each -> reward -> improve the policy -> again, with a row of the table each

Everything computed is in the run's records before the next thing starts; whatever they hold is not computed again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from seal_jax.authors.author import Author
from seal_jax.authors.fixed import Fixed
from seal_jax.config import Config
from seal_jax.domains.domain import Control, Domain
from seal_jax.outer.improver import Improver, Update
from seal_jax.outer.rollouts import rollouts, write
from seal_jax.rewards.reward import Reward, Scores
from seal_jax.runs import checkpoint
from seal_jax.runs.keys import ANSWER, EVALUATION, SEAL, TEACH, TRAIN, Stage
from seal_jax.runs.recorder import Recorder
from seal_jax.student.actor import Actor
from seal_jax.student.measure import measure
from seal_jax.student.trials import Plan, Trial

NO_RL = "self-edits, no RL"
AfterRows = Callable[[Sequence[tuple[str, int]]], None]  # is told (arm, round) of rows that are all in the records


@dataclass(frozen=True)
class Row:
    """A row of the table: which record it has, who wrote its self-edits, and who learned from them.

    kind: 'untrained' (what the others are compared with), 'control' (a rule wrote them), 'author' (somebody else than
    the policy did) or 'policy'. Without an author nothing is trained. domain: as this row sees it, where it differs.
    """

    arm: str
    round: int
    name: str
    kind: str
    author: Author | None
    student: Actor
    samples: int
    domain: Domain | None = None


@dataclass(frozen=True)
class Arm:
    """A policy that learns: its name and what improves it."""

    name: str
    improver: Improver


@dataclass(frozen=True)
class Setup:
    """What the loop is made of.

    policy: before the first round. student: None for the policy as it learns. domain: with the judge of the evaluation.
    writes(policy): the author of its rows; teaches(policy): of the self-edits that it learns from. others: (arm, name,
    author) of rows whose self-edits somebody else writes. neutral: texts of continual self-edits that are no passages.
    """

    config: Config
    policy: Actor
    student: Actor | None
    train: Sequence[Any]
    evaluation: Sequence[Any]
    domain: Domain
    writes: Callable[[Actor], Author]
    teaches: Callable[[Actor], Author]
    reward: Reward
    arms: Sequence[Arm]
    recorder: Recorder
    others: Sequence[tuple[str, str, Author]] = ()
    neutral: Sequence[str] = ()

    def student_of(self, policy: Actor) -> Actor:
        return self.student or policy


def run(setup: Setup, after_rows: AfterRows) -> Actor:
    """The whole experiment: the rows that need no learning, then every round of every arm, each with its row.

    Returns the last policy of the first arm.
    """
    samples = setup.config.evaluation.samples
    for control in setup.domain.controls():
        row = control_row(setup, control)
        evaluate(setup, row)
        after_rows([(row.arm, row.round)])

    for who, name, author in setup.others:
        evaluate(setup, Row(who, 0, name, "author", author, setup.student_of(setup.policy), samples))
        after_rows([(who, 0)])

    def own(arm: str, number: int, policy: Actor) -> Row:
        name = f"{arm}, round {number}" if number else NO_RL
        return Row(arm, number, name, "policy", setup.writes(policy), setup.student_of(policy), samples)

    evaluate(setup, own(SEAL, 0, setup.policy))
    after_rows([(SEAL, 0)])
    final = {}
    for arm in setup.arms:
        policy, measured = setup.policy, (SEAL, 0)
        for number in range(1, setup.config.outer.rounds + 1):
            improved = one_round(setup, arm, policy, number)
            row = own(arm.name, number, improved or policy)
            if improved is None:
                print(f"{row.name}: nothing was selected, so the policy stays as it was and is not measured again",
                      flush=True)  # fmt: skip
                declare(setup, row, measured)
            else:
                evaluate(setup, row)
                policy, measured = improved, (arm.name, number)
            after_rows([(arm.name, number)])
        final[arm.name] = policy
    return final[setup.arms[0].name]


def control_row(setup: Setup, control: Control) -> Row:
    """The row of a rule that stands for a policy."""
    author = Fixed(control.text) if control.text else None
    student = setup.student_of(setup.policy)
    return Row(control.name, 0, control.name, control.kind, author, student, control.samples, control.domain)


def one_round(setup: Setup, arm: Arm, policy: Actor, number: int) -> Actor | None:
    """One E-step and one M-step of an arm -> the new policy; None where it stays as it is."""
    folder = f"{setup.recorder.checkpoints}/{arm.name}"
    if number in checkpoint.steps(folder):
        return arm.improver.apply(policy, checkpoint.load(folder, number))
    if selected_nothing(setup, arm, number):
        return None
    # All arms begin with the same policy, and so with the same self-edits.
    source = Stage(TRAIN, SEAL if number == 1 else arm.name, number)
    seed = setup.config.seed, number
    edits = write(setup.teaches(policy), setup.train, setup.config.outer.samples, source, seed, setup.recorder)
    scores = None
    if arm.improver.needs_rewards:
        scores = setup.reward.score(setup.student_of(policy), setup.train, edits, source)
    prompts = {item.id: setup.domain.edit_prompt(item, policy.chat) for item in setup.train}
    found = rollouts(setup.train, prompts, edits, scores)
    with setup.recorder.shown(Stage(TRAIN, arm.name, number, TEACH)) as facts:
        update = arm.improver.improve(policy, found, seed)
        facts |= update.facts
    record_rollouts(setup, arm, number, scores, update)
    if update.learned is None:
        return None
    checkpoint.save(folder, number, update.learned)
    return arm.improver.apply(policy, update.learned)


def selected_nothing(setup: Setup, arm: Arm, number: int) -> bool:
    """Whether the records say that the round is over and taught nothing."""
    ledger, names = setup.recorder.rollouts, [(arm.name, number, item.id) for item in setup.train]
    return ledger.has_all(names) and not any(ledger[name]["chosen"] for name in names)


def record_rollouts(
    setup: Setup, arm: Arm, number: int, scores: Mapping[str, Scores] | None, update: Update
) -> None:
    """What the self-edits of a round earned, and which of them taught the policy."""
    unknown = asdict(Scores([])) | {"rewards": None}
    setup.recorder.rollouts.append(
        [
            {"arm": arm.name, "round": number, "item": item.id}
            | (unknown if scores is None else asdict(scores[item.id]))
            | {"chosen": update.chosen.get(item.id, []), "rejected": update.rejected.get(item.id, [])}
            for item in setup.train
        ]
    )


def evaluate(setup: Setup, row: Row) -> None:
    """Measure a row: its author writes about the evaluation items, its student learns from that and is asked."""
    declare(setup, row)
    evaluation, seed = setup.config.evaluation, (setup.config.seed, 0)
    stage = Stage(EVALUATION, row.arm, row.round)
    if row.author is None:
        trials = [Trial(item, None) for item in setup.evaluation]
    else:
        edits = write(row.author, setup.evaluation, row.samples, stage, seed, setup.recorder)
        trials = [
            Trial(item, edit.text, k, retrain)
            for item in setup.evaluation
            for k, edit in enumerate(edits[item.id])
            if not edit.missing
            for retrain in range(evaluation.retrains)
        ]
    asked = replace(stage, purpose=ANSWER)
    plan = Plan(asked, setup.config.inner, evaluation.answer_tokens, seed, evaluation.likelihood)
    measure(row.student, trials, row.domain or setup.domain, plan, setup.recorder)


def declare(setup: Setup, row: Row, same_as: tuple[str, int] | None = None) -> None:
    """Enter a row of the table; same_as: the row whose policy it has, where nothing was learned in between."""
    fields = {"arm": row.arm, "round": row.round, "name": row.name, "kind": row.kind}
    setup.recorder.rows.append([fields | {"same_as": list(same_as) if same_as else None}])
