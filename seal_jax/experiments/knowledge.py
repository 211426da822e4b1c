"""Knowledge incorporation (arXiv 2506.10943, section 4.2): from a config to passages and their domain."""

from collections.abc import Callable

from seal_jax.config import Config
from seal_jax.domains.knowledge import corpus, neutral, prompts
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.domains.knowledge.knowledge import Knowledge
from seal_jax.domains.knowledge.sequences import Rules
from seal_jax.errors import UserError
from seal_jax.experiments.world import World


def world(config: Config) -> World:
    """Reads the passages. Raises UserError for whatever is wrong with them."""
    how = config.knowledge
    prompt = prompts.resolve(how.prompt)
    rules = Rules(
        form=how.form,
        split_newlines=how.split_newlines,
        split_sentences=how.split_sentences,
        least_words=how.least_words,
        max_sequences=how.max_sequences,
        include_passage=how.include_passage,
        closing=how.closing,
        chain_of_thought=how.chain_of_thought,
        teacher=config.inner.objective == "distill",
    )
    train, evaluation, note = _passages(config)

    def domain(judge: Callable) -> Knowledge:
        return Knowledge(prompt, rules, config.inner.learning_rate, config.inner.epochs, judge)

    texts = neutral.texts(config.continual.neutral, evaluation) if config.continual.neutral else ()
    return World(train, evaluation, domain, note, chat_only=how.form == "chat", neutral=texts)


def _passages(config: Config) -> tuple[list[Passage], list[Passage], str]:
    """(passages that are learned from only, passages that are asked about, a note for the user or "")."""
    if config.experiment == "rounds":
        return corpus.splits(config.data, config.seed, labelled=config.reward.kind == "answers")
    found, continual = corpus.evaluated(config.data), config.continual
    if config.experiment == "continual":
        if len(found) < continual.passages:
            raise UserError(
                f"config.continual.passages: is {continual.passages}, but config.data.evaluation gives {len(found)}; "
                "lower it, or raise config.data.evaluation_items"
            )
        return [], found, ""
    if config.experiment == "grid":
        return [], found, ""
    found = corpus.some_questions(found, config.pretraining.questions, config.seed)
    return [one for one in found if not one.questions], [one for one in found if one.questions], ""
