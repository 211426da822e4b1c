"""What was learned goes into a model's weights."""

from seal_jax.config import Training
from seal_jax.engine.recipe import recipe
from seal_jax.student.actor import Actor


def merge(actor: Actor, learned: dict, training: Training) -> Actor:
    """The model with `learned` in its weights: an adapter merged, or for rank 0 the weights themselves."""
    lora = recipe(training).lora
    return actor.with_base(actor.engine.put_base(learned)) if lora is None else actor.with_adapter(learned, lora)
