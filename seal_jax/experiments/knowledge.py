"""Knowledge incorporation (arXiv 2506.10943, section 4.2): from a config to passages and their domain."""

from collections.abc import Callable

from seal_jax.config import Config
from seal_jax.domains.knowledge import corpus, prompts
from seal_jax.domains.knowledge.knowledge import Knowledge
from seal_jax.domains.knowledge.sequences import Rules
from seal_jax.experiments.world import World


def world(config: Config) -> World:
    """Reads the passages. Raises UserError for whatever is wrong with them."""
    how = config.knowledge
    prompt = prompts.resolve(how.prompt)
    rules = Rules(
        form=how.form,
        split_newlines=how.split_newlines,
        split_sentences=how.split_sentences,
        max_sequences=how.max_sequences,
        include_passage=how.include_passage,
        closing=how.closing,
        chain_of_thought=how.chain_of_thought,
        teacher=config.inner.objective == "distill",
    )
    labelled = config.reward.kind == "answers"
    train, evaluation, note = corpus.splits(config.data, config.seed, labelled)

    def domain(judge: Callable) -> Knowledge:
        return Knowledge(prompt, rules, config.inner.learning_rate, config.inner.epochs, judge)

    return World(train, evaluation, domain, note, chat_only=how.form == "chat")
