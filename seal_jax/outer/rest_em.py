"""ReST^EM (Singh et al. 2023) as SEAL uses it (arXiv 2506.10943, section 3.1), readable from top to bottom:

    sample self-edits -> train a student on each -> reward -> select -> finetune the policy -> merge -> again

Everything computed is in the run's records before the next thing starts; whatever they hold is not computed again.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from seal_jax.config import Config
from seal_jax.outer import select
from seal_jax.outer.actor import Actor
from seal_jax.outer.edits import EditPlan, edit_key, sample_edits
from seal_jax.outer.reward import Scores, mean_reward, reward, scores
from seal_jax.outer.teach import apply_lesson, finetune_policy
from seal_jax.outer.trials import Trial, TrialPlan, run_trials, trial_key
from seal_jax.runs import checkpoint
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.progress import Progress
from seal_jax.runs.table import NO_RL, PREFIX
from seal_jax.tasks.grammar import Grammar
from seal_jax.tasks.task import Task

EVALUATION_ROUND = 1_000_000  # seeds of the evaluation, apart from those of any round and the same for every row


@dataclass(frozen=True)
class Records:
    """The run's ledgers and its folder of checkpoints."""

    edits: Ledger
    trials: Ledger
    selections: Ledger
    phases: Ledger
    checkpoints: str


@dataclass(frozen=True)
class Row:
    """A row of the table that needs no policy: `edit(item, sample)` is what the student learns from, None: nothing."""

    name: str
    edit: Callable[[Any, int], str | None]
    samples: int = 1
    trained: bool = True  # False: no adapter is trained, so that retrains would be equal


@dataclass(frozen=True)
class Setup:
    """What the loop is given: config, roles, items, task, and where to write. `student` None: the policy itself."""

    config: Config
    policy: Actor
    student: Actor | None
    train: Sequence
    evaluation: Sequence
    task: Task
    fixed: Sequence[Row]  # the first is the untrained student
    records: Records
    attempts: int = 1  # at a valid self-edit
    grammar: Grammar | None = None  # that self-edits keep to

    def student_of(self, policy: Actor) -> Actor:
        return self.student or policy


def run(setup: Setup, after_row: Callable[[str], None]) -> Actor:
    """The whole experiment: the rows that need no learning, then every round of every arm, each with its row.

    Calls `after_row` with the name of each row when all of it is in the records; returns the policy of the arm SEAL.
    """
    for row in setup.fixed:
        texts = {item.id: [row.edit(item, k) for k in range(row.samples)] for item in setup.evaluation}
        evaluate(setup, row.name, setup.policy, texts, setup.config.evaluation.retrains if row.trained else 1)
        after_row(row.name)
    evaluate_own(setup, NO_RL, setup.policy)
    after_row(NO_RL)
    final = setup.policy
    for arm in ["SEAL"] + ["random"] * setup.config.outer.random_control:
        policy = setup.policy
        for number in range(setup.config.outer.rounds):
            policy = em_round(setup, arm, policy, number)
            evaluate_own(setup, f"{arm}, round {number + 1}", policy)
            after_row(f"{arm}, round {number + 1}")
        final = policy if arm == "SEAL" else final
    return final


def em_round(setup: Setup, arm: str, policy: Actor, number: int) -> Actor:
    """One E-step and one M-step -> the new policy."""
    folder = f"{setup.records.checkpoints}/{arm}"
    training = setup.config.outer.sft
    if number + 1 in checkpoint.steps(folder):
        return apply_lesson(policy, checkpoint.load(folder, number + 1), training)
    source = "round 1" if number == 0 else f"{arm}, round {number + 1}"  # all arms begin with the same self-edits
    texts = sample(setup, source, policy, setup.train, setup.config.outer.samples, number)
    chosen = choose(setup, arm, source, policy, texts, number)
    lessons = [
        (setup.task.edit_prompt(item, policy.chat), texts[item.id][k])
        for item in setup.train
        for k in chosen[item.id]
        if texts[item.id][k].strip()
    ]
    if not lessons:
        return policy
    with phase(setup, f"{arm}, round {number + 1}: finetune the policy") as facts:
        learned, facts["loss"] = finetune_policy(policy, lessons, training, (setup.config.seed, number))
        facts["lessons"] = len(lessons)
    checkpoint.save(folder, number + 1, learned)
    return apply_lesson(policy, learned, training)


def choose(setup: Setup, arm: str, source: str, policy: Actor, texts, number: int) -> dict[str, list[int]]:
    """Which self-edits of each item teach the policy, by the arm's rule -> {item id: samples}; recorded."""
    outer = setup.config.outer
    rule = "random" if arm == "random" else outer.selection
    earned = None if rule == "random" else score(setup, source, policy, texts, number)
    records = []
    for item in setup.train:
        if earned is None:
            chosen = [select.random_choice(outer.samples, f"{setup.config.seed}/{number}/{item.id}")]
        else:
            chosen = _selected(rule, earned[item.id], [setup.task.problem(text) for text in texts[item.id]])
        shown = {} if earned is None else dataclasses.asdict(earned[item.id])
        records.append({"arm": arm, "round": number + 1, "passage": item.id, **shown, "chosen": chosen})
    setup.records.selections.append(records)
    return {record["passage"]: record["chosen"] for record in records}


def _selected(rule: str, earned: Scores, problems: Sequence[str | None]) -> list[int]:
    """The samples that a rule selects; what cannot be used as a self-edit is never among them."""
    rewards = [None if problem else value for value, problem in zip(earned.rewards, problems, strict=True)]
    if rule == "correct":
        return select.correct(earned.accuracies)
    return select.best_of(rewards) if rule == "best" else select.above_base(rewards, earned.base)


def score(setup: Setup, source: str, policy: Actor, texts, number: int) -> dict[str, Scores]:
    """Rewards of every item's self-edits, each the mean over its retrains -> {item id: scores}."""
    weights = setup.config.reward
    asks = weights.accuracy_weight > 0 or setup.config.outer.selection == "correct"
    plans = (
        _trial_plan(setup, stage, weights.answer_tokens if asks else 0, number)
        for stage in (f"{source}: base", f"{source}: reward")
    )
    base_plan, plan = plans
    student = setup.student_of(policy)
    base = measure(setup, student, [Trial(item, None, 0, 0) for item in setup.train], base_plan)

    def worth(trial: dict) -> float | None:
        return reward(trial, base[base_plan.stage, trial["passage"], 0, 0], weights)

    found = measure(setup, student, _trials(setup.train, texts, weights.retrains), plan, worth)
    return {
        item.id: scores(
            base[base_plan.stage, item.id, 0, 0],
            [
                [found[plan.stage, item.id, k, retrain] for retrain in range(weights.retrains)]
                for k in range(len(texts[item.id]))
            ],
            weights,
        )
        for item in setup.train
    }


def evaluate_own(setup: Setup, row: str, policy: Actor) -> None:
    """Measure one row of the table on the policy's own self-edits."""
    evaluation = setup.config.evaluation
    stage = f"{PREFIX}{row}"
    texts = sample(setup, stage, policy, setup.evaluation, evaluation.samples, EVALUATION_ROUND)
    evaluate(setup, row, policy, texts, evaluation.retrains)


def evaluate(setup: Setup, row: str, policy: Actor, texts, retrains: int) -> None:
    """Measure one row of the table on self-edits, {item id: [text, or None to train nothing]}."""
    plan = _trial_plan(setup, f"{PREFIX}{row}", setup.config.reward.answer_tokens, EVALUATION_ROUND)
    measure(setup, setup.student_of(policy), _trials(setup.evaluation, texts, retrains), plan)


def sample(setup: Setup, stage: str, policy: Actor, items, samples: int, number: int) -> dict[str, list[str]]:
    """Self-edits of a stage, from the records where they are there -> {item id: [text of each sample]}."""
    sampling, seed = setup.config.sampling, (setup.config.seed, number)
    plan = EditPlan(stage, samples, sampling, seed, setup.attempts, setup.grammar)
    keys = [edit_key(plan, item, k) for item in items for k in range(samples)]
    ledger = setup.records.edits
    _compute(setup, f"{stage}: self-edits", keys, ledger, sample_edits(policy, items, setup.task, plan, ledger.has_all))
    return {item.id: [ledger[edit_key(plan, item, k)]["text"] for k in range(samples)] for item in items}


def _trials(items: Sequence, texts, retrains: int) -> list[Trial]:
    return [
        Trial(item, text, k, retrain)
        for item in items
        for k, text in enumerate(texts[item.id])
        for retrain in range(retrains)
    ]


def measure(setup: Setup, student: Actor, trials: Sequence[Trial], plan: TrialPlan, worth=None) -> dict[tuple, dict]:
    """Records of a stage's trials by key, from the ledger where they are there; `worth` gives the reward to show."""
    keys = [trial_key(plan, trial) for trial in trials]
    ledger = setup.records.trials
    groups = run_trials(student, trials, setup.task, plan, ledger.has_all)
    _compute(setup, f"{plan.stage}: inner loops", keys, ledger, groups, worth)
    return {key: ledger[key] for key in keys}


def _compute(setup: Setup, name: str, keys, ledger: Ledger, groups, worth=None) -> None:
    """Draw groups of records from a generator into a ledger, with progress and wall time."""
    if ledger.has_all(keys):
        return
    done = sum(ledger.has_all([key]) for key in keys)
    earned: list[float | None] = []
    with phase(setup, name), Progress(name, len(keys), done) as progress:
        for group in groups:
            ledger.append(group)
            earned += [worth(record) for record in group] if worth else []
            progress.advance(len(group), mean_reward(earned))


@contextmanager
def phase(setup: Setup, name: str) -> Iterator[dict]:
    """Record wall time and use of the engine for what runs inside, and what it adds to the dict that it is given.

    A phase that was stopped and continued has a record for each part.
    """
    began, before, facts = time.time(), _use(setup), {}
    try:
        yield facts
    finally:
        used = {kind: round(value - before[kind], 2) for kind, value in _use(setup).items()}
        seconds = round(time.time() - began, 2)
        setup.records.phases.append([{"phase": name, "began": began, "seconds": seconds, **used, **facts}])


def _use(setup: Setup) -> dict[str, float]:
    """What the engines of the policy and the student did so far."""
    engines = {id(actor.engine): actor.engine for actor in (setup.policy, setup.student) if actor is not None}.values()
    return {
        "real_tokens": sum(engine.usage.real for engine in engines),
        "token_slots": sum(engine.usage.slots for engine in engines),
        "generated": sum(engine.usage.generated for engine in engines),
        "programs": sum(engine.programs.count for engine in engines),
        "compile_seconds": sum(engine.programs.seconds for engine in engines),
    }


def _trial_plan(setup: Setup, stage: str, answer_tokens: int, number: int) -> TrialPlan:
    config = setup.config
    return TrialPlan(stage, config.inner, answer_tokens, (config.seed, number))
