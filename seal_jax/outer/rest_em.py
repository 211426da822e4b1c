"""ReST^EM (Singh et al. 2023) as SEAL uses it (arXiv 2506.10943, section 3.1), readable from top to bottom:

    sample self-edits -> train a student on each -> reward -> select -> finetune the policy -> merge -> again

Everything computed is in the run's records before the next thing starts; whatever they hold is not computed again.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

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
from seal_jax.tasks.corpus import Passage
from seal_jax.tasks.knowledge import Rules
from seal_jax.tasks.prompts import edit_prompt

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
class Setup:
    """What the loop is given: config, roles, data, judge, and where to write. `student` None: the policy itself."""

    config: Config
    policy: Actor
    student: Actor | None
    train: Sequence[Passage]
    evaluation: Sequence[Passage]
    judge: Callable
    prompt: str
    rules: Rules
    records: Records

    def student_of(self, policy: Actor) -> Actor:
        return self.student or policy


def run(setup: Setup, after_row: Callable[[str], None]) -> Actor:
    """The whole experiment: the rows that need no learning, then every round of every arm, each with its row.

    Calls `after_row` with the name of each row when all of it is in the records; returns the policy of the arm SEAL.
    """
    evaluate(setup, "base", setup.policy, completion=None)
    after_row("base")
    evaluate(setup, "passage only", setup.policy, completion="")
    after_row("passage only")
    evaluate(setup, "self-edits, no RL", setup.policy)
    after_row("self-edits, no RL")
    final = setup.policy
    for arm in ["SEAL"] + ["random"] * setup.config.outer.random_control:
        policy = setup.policy
        for number in range(setup.config.outer.rounds):
            policy = em_round(setup, arm, policy, number)
            evaluate(setup, f"{arm}, round {number + 1}", policy)
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
        (edit_prompt(passage, setup.prompt, policy.chat), texts[passage.id][k])
        for passage in setup.train
        for k in chosen[passage.id]
        if texts[passage.id][k].strip()
    ]
    if not lessons:
        return policy
    with phase(setup, f"{arm}, round {number + 1}: finetune the policy") as facts:
        learned, facts["loss"] = finetune_policy(policy, lessons, training, (setup.config.seed, number))
        facts["lessons"] = len(lessons)
    checkpoint.save(folder, number + 1, learned)
    return apply_lesson(policy, learned, training)


def choose(setup: Setup, arm: str, source: str, policy: Actor, texts, number: int) -> dict[str, list[int]]:
    """Which self-edits of each passage teach the policy, by the arm's rule -> {passage id: samples}; recorded."""
    outer = setup.config.outer
    rule = "random" if arm == "random" else outer.selection
    earned = None if rule == "random" else score(setup, source, policy, texts, number)
    records = []
    for passage in setup.train:
        if earned is None:
            chosen = [select.random_choice(outer.samples, f"{setup.config.seed}/{number}/{passage.id}")]
        elif rule == "best":
            chosen = select.best_of(earned[passage.id].rewards)
        else:
            chosen = select.above_base(earned[passage.id].rewards, earned[passage.id].base)
        shown = {} if earned is None else dataclasses.asdict(earned[passage.id])
        records.append({"arm": arm, "round": number + 1, "passage": passage.id, **shown, "chosen": chosen})
    setup.records.selections.append(records)
    return {record["passage"]: record["chosen"] for record in records}


def score(setup: Setup, source: str, policy: Actor, texts, number: int) -> dict[str, Scores]:
    """Rewards of every passage's self-edits, each the mean over its retrains -> {passage id: scores}."""
    weights = setup.config.reward
    ask = weights.answer_tokens if weights.accuracy_weight else 0
    untrained = [Trial(passage, None, 0, 0) for passage in setup.train]
    trials = [
        Trial(passage, text, k, retrain)
        for passage in setup.train
        for k, text in enumerate(texts[passage.id])
        for retrain in range(weights.retrains)
    ]
    base_plan, plan = (_trial_plan(setup, stage, ask, number) for stage in (f"{source}: base", f"{source}: reward"))
    base = measure(setup, setup.student_of(policy), untrained, base_plan)

    def worth(trial: dict) -> float | None:
        return reward(trial, base[base_plan.stage, trial["passage"], 0, 0], weights)

    found = measure(setup, setup.student_of(policy), trials, plan, worth)
    return {
        passage.id: scores(
            base[base_plan.stage, passage.id, 0, 0],
            [
                [found[plan.stage, passage.id, k, retrain] for retrain in range(weights.retrains)]
                for k in range(len(texts[passage.id]))
            ],
            weights,
        )
        for passage in setup.train
    }


def evaluate(setup: Setup, row: str, policy: Actor, completion: str | None = "self-edit") -> None:
    """Measure one row of the table: on the policy's own self-edits, or on a fixed completion (None: train nothing)."""
    evaluation, passages = setup.config.evaluation, setup.evaluation
    if completion == "self-edit":
        texts = sample(setup, f"evaluation: {row}", policy, passages, evaluation.samples, EVALUATION_ROUND)
    else:
        texts = {passage.id: [completion] for passage in passages}
    retrains = evaluation.retrains if completion is not None else 1
    trials = [
        Trial(passage, text, k, retrain)
        for passage in passages
        for k, text in enumerate(texts[passage.id])
        for retrain in range(retrains)
    ]
    plan = _trial_plan(setup, f"evaluation: {row}", setup.config.reward.answer_tokens, EVALUATION_ROUND)
    measure(setup, setup.student_of(policy), trials, plan)


def sample(setup: Setup, stage: str, policy: Actor, passages, samples: int, number: int) -> dict[str, list[str]]:
    """Self-edits of a stage, from the records where they are there -> {passage id: [text of each sample]}."""
    plan = EditPlan(stage, setup.prompt, samples, setup.config.sampling, (setup.config.seed, number))
    keys = [edit_key(plan, passage, k) for passage in passages for k in range(samples)]
    ledger = setup.records.edits
    _compute(setup, f"{stage}: self-edits", keys, ledger, sample_edits(policy, passages, plan, ledger.has_all))
    return {passage.id: [ledger[edit_key(plan, passage, k)]["text"] for k in range(samples)] for passage in passages}


def measure(setup: Setup, student: Actor, trials: Sequence[Trial], plan: TrialPlan, worth=None) -> dict[tuple, dict]:
    """Records of a stage's trials by key, from the ledger where they are there; `worth` gives the reward to show."""
    keys = [trial_key(plan, trial) for trial in trials]
    ledger = setup.records.trials
    groups = run_trials(student, trials, plan, ledger.has_all)
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
    return TrialPlan(stage, setup.rules, config.inner, answer_tokens, setup.judge, (config.seed, number))
