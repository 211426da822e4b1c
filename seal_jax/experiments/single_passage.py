"""Knowledge incorporation, one passage at a time (arXiv 2506.10943, section 4.2): from a config to the table."""

import os

import jax
from rich.console import Console

from seal_jax.config import Config
from seal_jax.engine.programs import enable_cache
from seal_jax.errors import UserError
from seal_jax.experiments import judging
from seal_jax.outer import rest_em
from seal_jax.outer.actor import load_actor
from seal_jax.runs import table
from seal_jax.runs.directory import RunDirectory
from seal_jax.runs.ledger import Ledger
from seal_jax.tasks import corpus, prompts
from seal_jax.tasks.knowledge import Rules


def run(config: Config, folder: RunDirectory, console: Console) -> list[table.Line]:
    """Run or continue the experiment in `folder`, print the table, and return its lines."""
    enable_cache(config.engine.cache)
    setup = prepare(config, str(folder.path))
    rest_em.run(setup)
    found = table.lines(setup.records.trials.all())
    console.print(table.show(found, setup.judge.name))
    for role, actor in (("policy", setup.policy), ("student", setup.student)):
        if actor is not None:
            console.print(_usage(role, actor))
    return found


def prepare(config: Config, folder: str) -> rest_em.Setup:
    """Read data, models and records: all that can be wrong with the input is found here, before anything is computed."""
    data, task = config.data, config.task
    prompt = prompts.resolve(task.prompt)
    rules = Rules(
        task.form, task.split_newlines, task.max_sequences, task.include_passage, task.closing, task.chain_of_thought
    )
    seed = data.shuffle_seed if data.shuffle_seed >= 0 else None
    train = corpus.select(corpus.load_passages(data.train), data.train_passages, seed)
    train = corpus.hold_out(train, data.heldout_fraction, config.seed)
    evaluation = corpus.select(corpus.load_passages(data.evaluation), data.evaluation_passages, seed)
    policy = load_actor(config.model.policy, config.model.dtype, task.chat, config.engine)
    student = None
    if config.model.student:
        student = load_actor(config.model.student, config.model.dtype, task.chat, config.engine)
    if task.form == "chat" and not (student or policy).chat:
        raise UserError("task.form is 'chat' but the student's prompts are not: set task.chat to yes, or form to plain.")
    records = rest_em.Records(
        edits=Ledger(os.path.join(folder, "self_edits.jsonl"), ("stage", "passage", "sample")),
        trials=Ledger(os.path.join(folder, "trials.jsonl"), ("stage", "passage", "sample", "retrain")),
        selections=Ledger(os.path.join(folder, "selections.jsonl"), ("arm", "round", "passage")),
        phases=Ledger(os.path.join(folder, "phases.jsonl"), ("phase", "began")),
        checkpoints=os.path.join(folder, "checkpoints"),
    )
    judge = judging.make(config, student or policy)
    return rest_em.Setup(config, policy, student, train, evaluation, judge, prompt, rules, records)


def _usage(role: str, actor) -> str:
    engine = actor.engine
    return (
        f"{role} on {jax.default_backend()}: {engine.programs.count} programs compiled in {engine.programs.seconds:.0f} s, "
        f"{engine.usage.real_fraction:.0%} of the trained token slots were real tokens, "
        f"{engine.usage.generated} tokens generated"
    )
