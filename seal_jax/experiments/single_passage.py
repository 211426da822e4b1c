"""Knowledge incorporation, one passage at a time (arXiv 2506.10943, section 4.2): from a config to the table."""

import contextlib
import dataclasses
from collections.abc import Sequence

import jax
from etils import epath

from seal_jax.config import Config
from seal_jax.engine.programs import enable_cache
from seal_jax.errors import UserError
from seal_jax.experiments import judging
from seal_jax.model.pretrained import save_adapter, save_merged
from seal_jax.outer import rest_em
from seal_jax.outer.actor import Actor, load_actor, recipe
from seal_jax.parallel import is_first
from seal_jax.runs import checkpoint, report, scalars, table, terminal
from seal_jax.runs.directory import RunDirectory
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.metrics import Metrics
from seal_jax.runs.records import in_bucket
from seal_jax.tasks import corpus, prompts
from seal_jax.tasks.corpus import Passage
from seal_jax.tasks.knowledge import Rules


def run(config: Config, folder: RunDirectory) -> list[table.Line]:
    """Run or continue the experiment in `folder`, print its tables, and return the lines of the evaluation."""
    enable_cache(config.engine.cache)
    path = folder.path
    try:
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
                report.write(path)

        policy = rest_em.run(setup, after_row)
    written.close()
    if config.outer.export:
        export(setup, policy, path)
    summary, found = summarize(setup)
    print(f"\n{summary}\n\nReport: {path / 'report.html'}", flush=True)
    return found


def metrics_of(path: epath.Path, config: Config):
    """Where the first host writes metrics; nothing on the others."""
    if not is_first():
        return contextlib.nullcontext()
    wandb = config.metrics.wandb_project or None
    return Metrics(path / "metrics", wandb_project=wandb, config=dataclasses.asdict(config))


def prepare(config: Config, path: epath.Path) -> rest_em.Setup:
    """Read data, models and records: what can be wrong with the input is found here, before anything is computed."""
    data, task = config.data, config.task
    if config.outer.export and in_bucket(path):
        raise UserError("outer.export writes to local folders only; choose a local --workdir, or set it to False")
    prompt = prompts.resolve(task.prompt)
    rules = Rules(
        task.form, task.split_newlines, task.max_sequences, task.include_passage, task.closing, task.chain_of_thought
    )
    train = _choose(data.train, data.train_passages, data.shuffle_seed)
    train = corpus.hold_out(train, data.heldout_fraction, config.seed)
    evaluation = _choose(data.evaluation, data.evaluation_passages, data.shuffle_seed)
    policy = load_actor(config.model.policy, config)
    student = _student(config, policy)
    if task.form == "chat" and not (student or policy).chat:
        raise UserError("task.form is 'chat' but the student's prompts are not; set task.chat to yes, or form to plain")
    judge = judging.make(config, student or policy)
    _record_passages(path, train, evaluation)
    records = rest_em.Records(
        edits=Ledger(path / "self_edits.jsonl", ("stage", "passage", "sample")),
        trials=Ledger(path / "trials.jsonl", ("stage", "passage", "sample", "retrain")),
        selections=Ledger(path / "selections.jsonl", ("arm", "round", "passage")),
        phases=Ledger(path / "phases.jsonl", ("phase", "began")),
        checkpoints=str(path / "checkpoints"),
    )
    return rest_em.Setup(config, policy, student, train, evaluation, judge, prompt, rules, records)


def summarize(setup: rest_em.Setup) -> tuple[str, list[table.Line]]:
    """(the run's tables as text, the lines of the evaluation)."""
    trials, selections, phases = (ledger.all() for ledger in _ledgers(setup))
    found, rounds = table.lines(trials), table.rounds(selections)
    parts = [terminal.show_phases(table.phases(phases)), table.usage(phases)]
    if rounds:
        missing = table.ungraded(trial for trial in trials if not trial["stage"].startswith(table.PREFIX))
        parts.append(terminal.show_rounds(rounds, missing))
    return "\n\n".join([*parts, terminal.show_rows(found, setup.judge.name)]), found


def export(setup: rest_em.Setup, policy: Actor, path: epath.Path) -> None:
    """Write what is not there yet: `policy`, the merged model, and after a single round `adapter`, as PEFT reads it."""
    outer, source = setup.config.outer, setup.policy.source
    folder = f"{setup.records.checkpoints}/SEAL"
    if outer.rounds == 1 and outer.sft.rank and checkpoint.steps(folder) and not (path / "adapter").exists():
        learned = checkpoint.load(folder, 1)
        save_adapter(path / "adapter", learned, recipe(outer.sft).lora, setup.config.model.policy)
    if not (path / "policy").exists():
        params = jax.tree.map(jax.device_get, policy.base)
        save_merged(path / "policy", params, source.config, source.tokenizer, source.hf_config)


def _student(config: Config, policy: Actor) -> Actor | None:
    """Who is trained on the self-edits; None: the policy of the round."""
    if config.model.student == "initial":
        return policy
    return load_actor(config.model.student, config) if config.model.student else None


def _choose(source: str, count: int, seed: int) -> list[Passage]:
    """`count` passages of a source, shuffled unless the seed is negative."""
    try:
        return corpus.select(corpus.load_passages(source), count, seed if seed >= 0 else None)
    except UserError as error:
        raise UserError(str(error) if source in str(error) else f"{source}: {error}") from error


def _record_passages(path: epath.Path, train: Sequence[Passage], evaluation: Sequence[Passage]) -> None:
    """Keep what the run is about, so that its records can be read alone. UserError if the run began with other data."""
    records = [
        {
            "role": role,
            "passage": passage.id,
            "title": passage.title,
            "context": passage.context,
            "questions": [dataclasses.asdict(question) for question in passage.questions],
        }
        for role, passages in (("train", train), ("evaluation", evaluation))
        for passage in passages
    ]
    ledger = Ledger(path / "passages.jsonl", ("role", "passage"))
    if ledger.all() and ledger.all() != records:
        raise UserError(f"the passages are not those in {path / 'passages.jsonl'}, with which this run began; "
                        "restore the data, or choose another --workdir")
    ledger.append(records)
    ledger.close()


def _ledgers(setup: rest_em.Setup) -> tuple[Ledger, Ledger, Ledger]:
    return setup.records.trials, setup.records.selections, setup.records.phases


def _heading(setup: rest_em.Setup, folder: RunDirectory) -> str:
    model = setup.config.model
    student = f", student {model.student}" if model.student else ""
    return (
        f"{folder.path}: {'continuing' if folder.continued else 'a new run'}\n"
        f"policy {model.policy}{student} on {jax.default_backend()}; {len(setup.train)} passages to learn from, "
        f"{len(setup.evaluation)} to evaluate on; judge {setup.judge.name}"
    )
