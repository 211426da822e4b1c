"""Few-shot learning on ARC (arXiv 2506.10943, few-shot learning): from a config to tasks and their domain."""

from collections.abc import Callable, Sequence

from seal_jax.config import Config
from seal_jax.domains.arc import grammar, grids, text
from seal_jax.domains.arc.fewshot import ControlSettings, Fewshot
from seal_jax.domains.arc.grids import ArcTask
from seal_jax.domains.arc.training_set import Limits
from seal_jax.errors import UserError
from seal_jax.experiments.world import World
from seal_jax.student.actor import Actor


def world(config: Config) -> World:
    """Reads the tasks. Raises UserError for whatever is wrong with them."""
    arc, data = config.arc, config.data
    form = text.Form(" " if arc.blanks else "", closing=True)
    settings = ControlSettings(
        (arc.least_rate, arc.most_rate), (1, arc.most_epochs), arc.oracle_rate, arc.oracle_epochs,
        config.evaluation.samples,
    )  # fmt: skip
    limits = Limits(arc.examples, arc.example_tokens, arc.most_steps)
    batch = config.inner.batch_size * config.inner.accumulation

    def domain(judge: Callable | None) -> Fewshot:
        return Fewshot(form, limits, batch, config.seed, arc.vote, settings)

    return World(
        _choose("train", data.train, arc.train_ids, data.train_items, arc.largest_side),
        _choose("evaluation", data.evaluation, arc.evaluation_ids, data.evaluation_items, arc.largest_side),
        domain,
        attempts=arc.attempts,
        grammar=lambda policy: _grammar(policy, config) if arc.constrained else None,
        chat_only=True,
    )


def _choose(role: str, source: str, ids: Sequence[str], count: int, largest: int) -> list[ArcTask]:
    try:
        tasks = grids.load_tasks(source)
    except UserError as error:
        raise UserError(f"config.data.{role}: {error}") from error
    return grids.select(tasks, grids.config_flags(role), ids, largest, count)


def _grammar(policy: Actor, config: Config) -> grammar.Grammar:
    """Of valid self-edits. Raises UserError where max_new_tokens are too few for one."""
    tokens = grammar.token_bytes(policy.tokenizer, policy.source.config.vocab_size)
    automaton = grammar.self_edit_automaton(config.arc.most_epochs)
    found = grammar.token_table(automaton, tokens, sorted(policy.tokenizer.stop_ids))
    found.deadlines(config.sampling.max_new_tokens)
    return found
