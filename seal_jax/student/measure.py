"""Trials that are recorded: what is on disk is not computed again."""

from collections.abc import Callable, Sequence

from seal_jax.domains.domain import Domain
from seal_jax.runs.recorder import Recorder
from seal_jax.student.actor import Actor
from seal_jax.student.trials import Plan, Trial, run_trials


def measure(
    student: Actor,
    trials: Sequence[Trial],
    domain: Domain,
    plan: Plan,
    recorder: Recorder,
    reward: Callable[[dict], float | None] | None = None,
) -> dict[tuple, dict]:
    """The records of a stage's trials by their keys; `reward` gives the one to show while they run."""
    ledger = recorder.trials
    places = [(trial.stage or plan.stage, trial) for trial in trials]
    wanted = [stage.trial(trial.item.id, trial.sample, trial.retrain) for stage, trial in places]
    left = [trial for trial, key in zip(trials, wanted, strict=True) if not ledger.has_all([key])]
    recorder.fill(plan.stage, ledger, wanted, run_trials(student, left, domain, plan), reward)
    return {key: ledger[key] for key in wanted}
