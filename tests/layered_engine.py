"""The engine in plain Python over weights with layers, for what joins, scales, chooses and merges adapters; and things
whose rules write self-edits.

A model is still one number: the sum over its two layers of (layer + 1) × kernel, of one projection of width one.
Numbers have two decimals at most, so that float32 keeps them.
"""

from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
from plain_engine import TOKENIZER, PlainEngine, Things, losses_of, number

from seal_jax.domains.domain import Control
from seal_jax.student.actor import Actor

PROJECTION = "q_proj"
SHARES = np.array([1.0, 2.0])  # of the layers in a model's number


def expectations(weight: float, row) -> tuple:
    """What a teacher that reads a row leaves in its targets."""
    return number(round(weight, 2), row.tokens, row.teacher), len(row.text)


def learned(candidate, start: float, layer: int) -> float:
    """What a training leaves in one layer of an adapter."""
    rows = [(row.tokens, row.weights, row.targets) for row in candidate.rows]
    hyper = candidate.learning_rate, candidate.epochs, candidate.seed, candidate.order
    return round(number(rows, hyper, round(start, 2), layer) - 5, 1)


def number_of(base: dict, adapters: dict | None = None, scale: float | None = None) -> np.ndarray:
    """The number of a model, or with adapters those of its lanes, as many as the adapters have."""
    layers = np.asarray(base["layers"][PROJECTION]["kernel"], float)[:, 0, 0]
    if adapters is not None:
        layers = layers + scale * effect(adapters)
    return np.round(layers @ SHARES, 2)


def effect(adapter: dict) -> np.ndarray:
    """A @ B in each layer, [layers]; with an axis of lanes [lanes, layers]."""
    factors = adapter["layers"][PROJECTION]
    return np.einsum("...lir,...lro->...l", np.asarray(factors["A"], float), np.asarray(factors["B"], float))


class LayeredEngine(PlainEngine):
    """`calls` as in PlainEngine; of "finetune" the rest is (candidates, recipe, the numbers that they start from)."""

    def __init__(self, *rest, **settings):
        super().__init__(*rest, **settings)
        self.layout = SimpleNamespace(devices=1, put_weights=lambda tree, candidates=False: tree)

    def numbers(self, weights):
        return np.atleast_1d(number_of(weights.base, weights.adapters, weights.lora and weights.lora.scale)).tolist()

    def finetune(self, base, candidates, recipe, past=None):
        rank, count = recipe.lora.rank, len(candidates)
        starts = [number_of(base)] * count if past is None else number_of(base, past, recipe.lora.scale)[:count]
        self.calls.append(("finetune", count, (list(candidates), recipe, [float(start) for start in starts])))
        a = np.zeros((count, len(SHARES), 1, rank), np.float32)
        b = np.zeros((count, len(SHARES), rank, 1), np.float32)
        for lane, (candidate, start) in enumerate(zip(candidates, starts, strict=True)):
            for layer in recipe.lora.layers or range(len(SHARES)):
                a[lane, layer], b[lane, layer, 0] = 1.0, learned(candidate, float(start), layer)
        tree = {"layers": {PROJECTION: {"A": jnp.array(a), "B": jnp.array(b)}}}
        return tree, [losses_of(one, recipe.batch) for one in candidates]

    def join(self, parts):
        def joined(factor):
            return jnp.concatenate([tree["layers"][PROJECTION][factor][:count] for tree, count in parts])

        return {"layers": {PROJECTION: {"A": joined("A"), "B": joined("B")}}}

    def merge(self, base, adapter, lora):
        kernel = base["layers"][PROJECTION]["kernel"] + lora.scale * effect(adapter)[:, None, None]
        return {"layers": {PROJECTION: {"kernel": kernel}}}

    def with_targets(self, base, rows, how):
        self.calls.append(("with_targets", len(rows), how))
        weight = float(number_of(base))
        return {row: replace(row, targets=expectations(weight, row)) for row in rows if row.teacher}


def layered_actor(engine: LayeredEngine, kernels=(1.0, 0.5)) -> Actor:
    base = {"layers": {PROJECTION: {"kernel": np.array(kernels).reshape(-1, 1, 1)}}}
    source = SimpleNamespace(config=SimpleNamespace(max_position=512, num_layers=len(SHARES)), params=base)
    return Actor(engine, base, TOKENIZER, False, source)


class Twice(Things):
    def lesson(self, item, text, seed, length):
        return super().lesson(item, f"{text}\n{text}", seed, length)


class Ruled(Things):
    """With the two controls that can write the self-edits; the second one sees another domain."""

    def controls(self):
        return [*super().controls(), Control("sentences", lambda item, k: f"{item.title} is said."),
                Control("passage only", lambda item, k: item.title, domain=Twice())]  # fmt: skip
