"""Few-shot learning on ARC (arXiv 2506.10943, few-shot learning): from a config to the table and the sheets."""

from collections.abc import Sequence

from etils import epath

from seal_jax.config import Config
from seal_jax.errors import UserError
from seal_jax.experiments import experiment
from seal_jax.outer import rest_em
from seal_jax.outer.actor import Actor
from seal_jax.runs import arc_sheet, table
from seal_jax.runs.directory import RunDirectory
from seal_jax.runs.records import in_bucket
from seal_jax.tasks import grammar
from seal_jax.tasks.arc import edit, grids, text
from seal_jax.tasks.arc.edit import DataGeneration, SelfEdit, Training
from seal_jax.tasks.arc.grids import ArcTask, Pair
from seal_jax.tasks.arc.training_set import Limits
from seal_jax.tasks.fewshot import Fewshot, attempts_of
from seal_jax.tasks.task import item_number

IN_CONTEXT, RANDOM, ORACLE = "in context", "random configuration", "oracle configuration"


def run(config: Config, folder: RunDirectory) -> list[table.Line]:
    """Run or continue the experiment in `folder`, print its tables, and return the lines of the evaluation."""
    return experiment.run(config, folder, prepare, draw_sheets)


def prepare(config: Config, path: epath.Path) -> rest_em.Setup:
    """Read tasks, models and records: what can be wrong with the input is found here, before anything is computed."""
    data, arc = config.data, config.arc
    form = text.Form(" " if arc.blanks else "", closing=True)
    limits = Limits(arc.examples, arc.example_tokens)
    task = Fewshot(form, limits, config.inner.batch_size * config.inner.accumulation, arc.most_steps, config.seed)
    train = _choose("train", data.train, arc.train_ids, data.train_passages, arc.largest_side)
    evaluation = _choose("evaluation", data.evaluation, arc.evaluation_ids, data.evaluation_passages, arc.largest_side)
    policy, student = experiment.load_roles(config)
    for actor in (policy, student or policy):
        if not actor.chat:
            raise UserError("few-shot learning asks in chats, and a model has no chat template; name an instruct model")
    records = experiment.open_records(path, [*_shown("train", train, form), *_shown("evaluation", evaluation, form)])
    return rest_em.Setup(
        config, policy, student, train, evaluation, task, fixed_rows(config), records, arc.attempts,
        _grammar(policy, config) if arc.constrained else None,
    )  # fmt: skip


def fixed_rows(config: Config) -> list[rest_em.Row]:
    """The rows that need no policy: no training, random valid configurations, and one written by hand."""
    arc, seed = config.arc, config.seed
    by_hand = Training(edit.OUTPUT_TOKENS, arc.oracle_rate, arc.oracle_epochs)
    oracle = edit.canonical(SelfEdit(DataGeneration(True, True, True, True), by_hand))

    def drawn(task: ArcTask, sample: int) -> str:
        rates, epochs = (arc.least_rate, arc.most_rate), (1, arc.most_epochs)
        return edit.canonical(edit.random_edit((seed, item_number(task), sample), rates, epochs))

    return [
        rest_em.Row(IN_CONTEXT, lambda task, sample: None, trained=False),
        rest_em.Row(RANDOM, drawn, config.evaluation.samples),
        rest_em.Row(ORACLE, lambda task, sample: oracle),
    ]


def draw_sheets(setup: rest_em.Setup, path: epath.Path, row: str) -> None:
    """A picture of each evaluation task with the attempts of a row's first trial, where there is none yet."""
    if in_bucket(path):
        return  # matplotlib writes to local folders
    folder = path / "sheets"
    folder.mkdir(exist_ok=True)
    first = {
        trial["passage"]: trial
        for trial in setup.records.trials.all()
        if (trial["stage"], trial["sample"], trial["retrain"]) == (table.PREFIX + row, 0, 0)
    }
    for task in setup.evaluation:
        file = folder / arc_sheet.file_name(task.id, row)
        if file.exists():
            continue
        tested = [
            arc_sheet.Answered(pair.input, pair.output, attempts_of(answer))
            for pair, answer in zip(task.test, first[task.id]["answers"], strict=True)
        ]
        demonstrations = [(pair.input, pair.output) for pair in task.train]
        arc_sheet.save(file, arc_sheet.draw(f"{task.id}: {row}", demonstrations, tested))


def _choose(role: str, source: str, ids: Sequence[str], count: int, largest: int) -> list[ArcTask]:
    try:
        return grids.select(grids.load_tasks(source), ids, largest, count)
    except UserError as error:
        raise UserError(f"config.data.{role}: {error}") from error


def _grammar(policy: Actor, config: Config) -> grammar.Grammar:
    """Of valid self-edits. Raises UserError where max_new_tokens are too few for one."""
    tokens = grammar.token_bytes(policy.tokenizer, policy.source.config.vocab_size)
    automaton = grammar.self_edit_automaton(config.arc.most_epochs)
    found = grammar.token_table(automaton, tokens, sorted(policy.tokenizer.stop_ids))
    found.deadlines(config.sampling.max_new_tokens)
    return found


def _shown(role: str, tasks: Sequence[ArcTask], form: text.Form) -> list[dict]:
    """Tasks as they are recorded: a question for each test input."""
    return [
        {
            "role": role,
            "passage": task.id,
            "title": task.title,
            "context": "\n\n".join(text.ARROW.join(_written(pair, form)) for pair in task.train),
            "questions": [
                dict(zip(("question", "answer"), _written(pair, form), strict=True), heldout=False)
                for pair in task.test
            ],
        }
        for task in tasks
    ]


def _written(pair: Pair, form: text.Form) -> tuple[str, str]:
    return text.grid_text(pair.input, form), text.grid_text(pair.output, form)
