"""What was learned goes into a model's weights."""

import jax

from seal_jax.config import Training
from seal_jax.engine.recipe import recipe
from seal_jax.student.actor import Actor


def merge(actor: Actor, learned: dict, training: Training) -> Actor:
    """The model with `learned` in its weights: an adapter merged, or for rank 0 the weights themselves."""
    lora = recipe(training).lora
    if lora is not None:
        return actor.with_adapter(learned, lora)
    return actor.with_base(actor.engine.put_base(as_stored(learned, actor.base)))


def as_stored(learned: dict, base: dict) -> dict:
    """All weights, which are trained in float32, in the types that the base's have."""
    return jax.tree.map(lambda new, old: new.astype(old.dtype), learned, base)
