"""The inner loop: supervised finetuning of one candidate, with the semantics of Hugging Face's Trainer.

What is trained is a dict of collections: `{'lora': adapter}` beside the frozen `{'params': base}`, or
`{'params': weights}` with nothing frozen (full finetuning). The same step serves both. Nothing here knows of the
candidate axis: callers vmap.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from seal_jax.inner import distill
from seal_jax.inner.distill import Distillation, Targets
from seal_jax.inner.loss import log_likelihood
from seal_jax.model.lora import concatenate, joined
from seal_jax.model.transformer import Transformer

SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class Optimizer:
    """AdamW and its schedule, as HF Trainer runs them; what may differ between candidates is in `Hyper`."""

    schedule: str = "linear"
    clip_norm: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Program:
    """All that is static in a step: model, optimizer, loss chunk (positions of each sequence per application of the
    head), how a batch with a teacher's targets is distilled, and the type that the model's own weights are computed in
    where they are what is trained."""

    model: Transformer
    optimizer: Optimizer
    loss_chunk: int
    distillation: Distillation | None = None
    dtype: str = "float32"

    def variables(self, frozen: dict, trainable: dict) -> dict:
        """What the model is applied with: an adapter, whose A is frozen as `shared` or trained, beside the frozen one
        `past`, if there is any. Adapters are cast where they are used."""
        if "shared" in frozen:
            trainable = {"lora": joined(frozen["shared"], trainable["lora"])}
        if "past" in frozen:
            return {"params": frozen["params"], "lora": concatenate(frozen["past"], trainable["lora"])}
        if "params" not in trainable:
            return {"params": frozen["params"], **trainable}
        return {**trainable, "params": jax.tree.map(lambda leaf: leaf.astype(self.dtype), trainable["params"])}


class Hyper(NamedTuple):
    """A candidate's own numbers, all scalars: peak learning rate, optimizer steps in all, warm-up steps."""

    learning_rate: jax.Array
    total_steps: jax.Array
    warmup_steps: jax.Array


class Batch(NamedTuple):
    """One optimizer step's data: tokens int32 and loss weights float32 [A, B, T] (A micro-batches); valid [] bool;
    where rows have a teacher its targets [A, B, T, K]; the places of the tokens that count, int32 [A, B, P] as in
    loss.py, where these are not nearly all."""

    tokens: jax.Array
    weights: jax.Array
    valid: jax.Array
    targets: Targets | None = None
    places: jax.Array | None = None


class State(NamedTuple):
    """What a step changes: trainable collections and optimizer state, all in float32, steps done, and whether a loss or
    gradient was not finite, after which nothing else changes."""

    trainable: dict
    optimizer: optax.OptState
    step: jax.Array
    diverged: jax.Array


def transform(config: Optimizer) -> optax.GradientTransformation:
    """Clipping, Adam's direction and decoupled decay; the learning rate is applied by the step."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(config.beta1, config.beta2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=_decays),
    )


def _decays(weights: dict) -> dict:
    """Which leaves decay: all but norms' scales and biases, as HF Trainer has it."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("scale", "bias"), weights)


def init_state(config: Optimizer, trainable: dict) -> State:
    """State before the first step. Small steps would be lost in weights and moments of 16 bits."""
    trainable = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), trainable)
    return State(trainable, transform(config).init(trainable), jnp.zeros((), jnp.int32), jnp.zeros((), bool))


def learning_rate(schedule: str, hyper: Hyper, step: jax.Array) -> jax.Array:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then the schedule down to 0 at `total_steps`."""
    step, total, warmup = (jnp.asarray(v, jnp.float32) for v in (step, hyper.total_steps, hyper.warmup_steps))
    rise = step / jnp.maximum(warmup, 1.0)
    progress = jnp.clip((step - warmup) / jnp.maximum(total - warmup, 1.0), 0.0, 1.0)
    falls = {"linear": 1 - progress, "cosine": 0.5 * (1 + jnp.cos(jnp.pi * progress)), "constant": jnp.ones(())}
    return hyper.learning_rate * jnp.where(step < warmup, rise, falls[schedule])


def sft_step(program: Program, frozen: dict, state: State, batch: Batch, hyper: Hyper) -> tuple[State, jax.Array]:
    """One optimizer step of one candidate -> (state, mean loss in nats per token that has a weight).

    The loss is normalised over the whole accumulated batch. Weights other than 1 make a token count for more or less,
    in whatever batch it stands. An invalid step changes nothing, not even Adam's momentum, and has a loss of 0. From
    the step on at which training diverges the weights stay as they were, and the loss is NaN.
    """
    total = jnp.maximum((batch.weights[:, :, 1:] != 0).sum(), 1)

    def micro_loss(trainable, tokens, weights, targets, places):
        variables, chunk = program.variables(frozen, trainable), program.loss_chunk
        if targets is None:
            return -log_likelihood(program.model, variables, tokens, weights, chunk, places).sum() / total
        how = program.distillation, chunk
        return distill.weighted_loss(program.model, variables, (tokens, weights, targets), how, places) / total

    micros = batch.tokens, batch.weights, batch.targets, batch.places
    return descend(program.optimizer, state, micro_loss, micros, batch.valid, hyper)


def descend(
    config: Optimizer, state: State, micro_loss: Callable, micros: tuple, valid: jax.Array, hyper: Hyper
) -> tuple[State, jax.Array]:
    """One AdamW step on the sum of micro_loss(trainable, *micro) over the micro-batches -> (state, that sum).

    micros: a tree of arrays with a leading axis of micro-batches. Where `valid` is False the state stays, the sum is 0;
    where the sum or its gradient is not finite the state stays for good, and this and every later sum is NaN.
    """
    value_and_grad = jax.value_and_grad(micro_loss)
    if jax.tree.leaves(micros)[0].shape[0] == 1:
        loss, grads = value_and_grad(state.trainable, *jax.tree.map(lambda part: part[0], micros))
    else:

        def accumulate(carry, micro):
            return jax.tree.map(jnp.add, carry, value_and_grad(state.trainable, *micro)), None

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.trainable))
        (loss, grads), _ = jax.lax.scan(accumulate, zero, micros)
    updates, optimizer = transform(config).update(grads, state.optimizer, state.trainable)
    rate = learning_rate(config.schedule, hyper, state.step)
    trainable = jax.tree.map(lambda w, u: (w - rate * u).astype(w.dtype), state.trainable, updates)
    fine = ~state.diverged & jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
    new = State(trainable, optimizer, state.step + 1, state.diverged)
    held = jax.tree.map(lambda fresh, old: jnp.where(valid & fine, fresh, old), new, state)
    held = held._replace(diverged=state.diverged | (valid & ~fine))
    return held, jnp.where(valid, jnp.where(fine, loss, jnp.nan), 0.0)


def on_lanes(step: Callable) -> Callable:
    """A step over the chosen lanes of a stacked state: only these are computed, and the others keep their state."""

    def run(frozen, state, lanes, batch, hyper):
        if lanes.shape[0] == batch.valid.shape[0] == state.step.shape[0]:
            return step(frozen, state, batch, hyper)
        own = {name: tree for name, tree in frozen.items() if name == "past"}
        part, part_hyper, own = jax.tree.map(lambda leaf: leaf[lanes], (state, hyper, own))
        part, losses = step(frozen | own, part, batch, part_hyper)
        return jax.tree.map(lambda leaf, new: leaf.at[lanes].set(new), state, part), losses

    return run


def finetune(program: Program, frozen: dict, trainable: dict, batches: Batch, hyper: Hyper) -> tuple[dict, jax.Array]:
    """The plain loop over steps that defines what is right: batches [S, A, B, T] -> (trained, losses [S])."""
    state, losses = init_state(program.optimizer, trainable), []
    for step in range(batches.tokens.shape[0]):
        batch = jax.tree.map(operator.itemgetter(step), batches)
        state, loss = sft_step(program, frozen, state, batch, hyper)
        losses.append(loss)
    return state.trainable, jnp.stack(losses)
