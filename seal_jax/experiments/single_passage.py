"""Knowledge incorporation, one passage at a time (arXiv 2506.10943, section 4.2): from a config to the table."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from seal_jax.config import Config
from seal_jax.errors import UserError
from seal_jax.experiments import experiment, judging
from seal_jax.outer import rest_em
from seal_jax.runs import table
from seal_jax.runs.directory import RunDirectory
from seal_jax.tasks import corpus, prompts
from seal_jax.tasks.corpus import Passage
from seal_jax.tasks.knowledge import Knowledge, Rules

ROWS = (
    rest_em.Row("base", lambda passage, sample: None, trained=False),
    rest_em.Row("passage only", lambda passage, sample: ""),
)


def run(config: Config, folder: RunDirectory) -> list[table.Line]:
    """Run or continue the experiment in `folder`, print its tables, and return the lines of the evaluation."""
    return experiment.run(config, folder, prepare)


def prepare(config: Config, path: epath.Path) -> rest_em.Setup:
    """Read data, models and records: what can be wrong with the input is found here, before anything is computed."""
    data, task = config.data, config.task
    prompt = prompts.resolve(task.prompt)
    rules = Rules(
        task.form, task.split_newlines, task.max_sequences, task.include_passage, task.closing, task.chain_of_thought
    )
    train = _choose(data.train, data.train_passages, data.shuffle_seed)
    train = corpus.hold_out(train, data.heldout_fraction, config.seed)
    evaluation = _choose(data.evaluation, data.evaluation_passages, data.shuffle_seed)
    policy, student = experiment.load_roles(config)
    if task.form == "chat" and not (student or policy).chat:
        raise UserError("task.form is 'chat' but the student's prompts are not; set task.chat to yes, or form to plain")
    judge = judging.make(config, student or policy)
    knowledge = Knowledge(prompt, rules, config.inner.learning_rate, config.inner.epochs, judge)
    records = experiment.open_records(path, [*_shown("train", train), *_shown("evaluation", evaluation)])
    return rest_em.Setup(config, policy, student, train, evaluation, knowledge, ROWS, records)


def _choose(source: str, count: int, seed: int) -> list[Passage]:
    """`count` passages of a source, shuffled unless the seed is negative."""
    try:
        return corpus.select(corpus.load_passages(source), count, seed if seed >= 0 else None)
    except UserError as error:
        raise UserError(str(error) if source in str(error) else f"{source}: {error}") from error


def _shown(role: str, passages: Sequence[Passage]) -> list[dict]:
    """Passages as they are recorded."""
    return [
        {
            "role": role,
            "passage": passage.id,
            "title": passage.title,
            "context": passage.context,
            "questions": [dataclasses.asdict(question) for question in passage.questions],
        }
        for passage in passages
    ]
