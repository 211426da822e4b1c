"""What experiments around the outer loop share: roles, records, progress, report, export and the printed tables."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import jax
from etils import epath

from seal_jax.config import Config
from seal_jax.engine.programs import enable_cache
from seal_jax.errors import UserError
from seal_jax.model.pretrained import save_adapter, save_merged
from seal_jax.outer import rest_em
from seal_jax.outer.actor import Actor, load_actor, recipe
from seal_jax.parallel import is_first
from seal_jax.runs import checkpoint, report, scalars, table, terminal
from seal_jax.runs.directory import RunDirectory
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.metrics import Metrics
from seal_jax.runs.records import in_bucket


def run(
    config: Config,
    folder: RunDirectory,
    prepare: Callable[[Config, epath.Path], rest_em.Setup],
    illustrate: Callable[[rest_em.Setup, epath.Path, str], None] | None = None,
) -> list[table.Line]:
    """Run or continue an experiment in `folder`, print its tables, and return the lines of the evaluation.

    `prepare` finds whatever is wrong with the input; `illustrate(setup, path, row)` may add pictures of a whole row.
    """
    enable_cache(config.engine.cache)
    path = folder.path
    try:
        if config.outer.export and in_bucket(path):
            raise UserError("outer.export writes to local folders only; choose a local --workdir, or set it to False")
        setup = prepare(config, path)
    except UserError:
        if is_first():
            folder.forget()
        raise
    print(_heading(setup, folder), flush=True)
    written = Ledger(path / "metrics.jsonl", ("name", "step"))
    with metrics_of(path, config) as metrics:
        rows: set[str] = set()

        def after_row(name: str) -> None:
            rows.add(name)
            trials, selections, phases = (ledger.all() for ledger in _ledgers(setup))
            if is_first():
                scalars.publish(metrics, written, scalars.points(trials, selections, phases, rows))
                if illustrate is not None:
                    illustrate(setup, path, name)
                report.write(path)

        policy = rest_em.run(setup, after_row)
    written.close()
    if config.outer.export:
        export(setup, policy, path)
    summary, found = summarize(setup)
    print(f"\n{summary}\n\nReport: {path / 'report.html'}", flush=True)
    return found


def load_roles(config: Config) -> tuple[Actor, Actor | None]:
    """(policy, student); a student of None is the policy of the round."""
    policy = load_actor(config.model.policy, config)
    if config.model.student == "initial":
        return policy, policy
    return policy, load_actor(config.model.student, config) if config.model.student else None


def open_records(path: epath.Path, items: Sequence[dict]) -> rest_em.Records:
    """The run's ledgers; `items` are what it is about, by role, so that the records can be read alone.

    Raises UserError if the run began with other items.
    """
    ledger = Ledger(path / "passages.jsonl", ("role", "passage"))
    if ledger.all() and ledger.all() != items:
        raise UserError(f"the passages are not those in {path / 'passages.jsonl'}, with which this run began; "
                        "restore the data, or choose another --workdir")  # fmt: skip
    ledger.append(items)
    ledger.close()
    return rest_em.Records(
        edits=Ledger(path / "self_edits.jsonl", ("stage", "passage", "sample")),
        trials=Ledger(path / "trials.jsonl", ("stage", "passage", "sample", "retrain")),
        selections=Ledger(path / "selections.jsonl", ("arm", "round", "passage")),
        phases=Ledger(path / "phases.jsonl", ("phase", "began")),
        checkpoints=str(path / "checkpoints"),
    )


def metrics_of(path: epath.Path, config: Config):
    """Where the first host writes metrics; nothing on the others."""
    if not is_first():
        return contextlib.nullcontext()
    wandb = config.metrics.wandb_project or None
    return Metrics(path / "metrics", wandb_project=wandb, config=dataclasses.asdict(config))


def summarize(setup: rest_em.Setup) -> tuple[str, list[table.Line]]:
    """(the run's tables as text, the lines of the evaluation)."""
    trials, selections, phases = (ledger.all() for ledger in _ledgers(setup))
    noun = table.NOUNS[setup.config.experiment]
    found, rounds = table.lines(trials), table.rounds(selections)
    parts = [terminal.show_phases(table.phases(phases)), table.usage(phases)]
    if rounds:
        missing = table.ungraded(trial for trial in trials if not trial["stage"].startswith(table.PREFIX))
        parts.append(terminal.show_rounds(rounds, missing, noun))
    parts.append(terminal.show_rows(found, setup.task.grader, noun))
    if noun == "tasks":
        parts.append(table.resampled(setup.records.edits.all()))
    return "\n\n".join(parts), found


def export(setup: rest_em.Setup, policy: Actor, path: epath.Path) -> None:
    """Write what is not there yet: `policy`, the merged model, and after a single round `adapter`, as PEFT reads it."""
    outer, source = setup.config.outer, setup.policy.source
    folder = f"{setup.records.checkpoints}/SEAL"
    if outer.rounds == 1 and outer.sft.rank and checkpoint.steps(folder) and not (path / "adapter").exists():
        learned = checkpoint.load(folder, 1)
        save_adapter(path / "adapter", learned, recipe(outer.sft).lora, setup.config.model.policy)
    if not (path / "policy").exists():
        save_merged(path / "policy", policy.weights(), source.config, source.tokenizer, source.hf_config)


def _ledgers(setup: rest_em.Setup) -> tuple[Ledger, Ledger, Ledger]:
    return setup.records.trials, setup.records.selections, setup.records.phases


def _heading(setup: rest_em.Setup, folder: RunDirectory) -> str:
    model, noun = setup.config.model, table.NOUNS[setup.config.experiment]
    student = f", student {model.student}" if model.student else ""
    return (
        f"{folder.path}: {'continuing' if folder.continued else 'a new run'}\n"
        f"policy {model.policy}{student} on {jax.default_backend()}; {len(setup.train)} {noun} to learn from, "
        f"{len(setup.evaluation)} to evaluate on; judge {setup.task.grader}"
    )
