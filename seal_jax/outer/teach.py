"""M-step: the policy is finetuned on the self-edits that were selected, and the result is merged into its weights."""

from collections.abc import Sequence

from seal_jax.config import Training
from seal_jax.engine.packing import Candidate
from seal_jax.outer.actor import Actor, recipe
from seal_jax.tasks.task import Example, Prompt


def finetune_policy(
    policy: Actor, lessons: Sequence[tuple[Prompt, str]], training: Training, seed: tuple[int, ...]
) -> tuple[dict, float]:
    """Finetune on (prompt, self-edit) pairs, loss on the self-edit and the closing token only.

    Returns (what was learned: an adapter, or all weights for rank 0; mean loss of the last epoch).
    """
    rows = tuple(policy.row(Example(prompt, text, closing=True)) for prompt, text in lessons)
    candidate = Candidate(rows, training.learning_rate, training.epochs, training.warmup_steps, seed, seed)
    learned, losses = policy.engine.teach(policy.base, candidate, recipe(training))
    return learned, float(losses[-(len(losses) // training.epochs) :].mean())


def apply_lesson(policy: Actor, learned: dict, training: Training) -> Actor:
    """The policy with what it learned in its weights."""
    lora = recipe(training).lora
    return policy.with_base(policy.engine.put_base(learned)) if lora is None else policy.with_adapter(learned, lora)
