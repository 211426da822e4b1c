"""Students that have learned before: over one base, each with the adapters of all that it learned, side by side.

Adapters side by side along their rank add up: [A1 A2] [B1; B2] = A1 B1 + A2 B2, which is what merging them one after
another into the weights does, without weights of its own for every student. Free lanes of the rank are zero, so that
the programs are the same however much was learned.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from seal_jax.engine.packing import Row
from seal_jax.engine.weights import Weights
from seal_jax.model.lora import LoraConfig, init_adapter
from seal_jax.student.actor import Actor
from seal_jax.student.ask import parts
from seal_jax.student.train import Adapters, placed


@dataclass(frozen=True)
class Students:
    """Some of many students that can be run together.

    numbers: which ones; actor: the base that they share; past: of each, its adapter on the host; lora: of `past`.
    """

    numbers: tuple[int, ...]
    actor: Actor
    past: list[dict]
    lora: LoraConfig

    def adapters(self) -> Adapters:
        """Their adapters on the devices, to be asked."""
        return placed(self.actor, self.past, self.lora)


def together(actor: Actor, learned: Sequence[Sequence[dict]], lora: LoraConfig, room: int) -> Iterator[Students]:
    """Students by what each has learned, adapters with the config `lora`, oldest first; equally many of each.

    As many as `engine.candidates` (0: all) come together while `room` adapters hold what they have learned. After that
    the older ones are merged, `room` at a time, into weights of each student's own, and the students come one by one.
    """
    whole = LoraConfig(lora.rank * room, lora.scale * lora.rank * room, lora.targets)
    merged = max(0, len(learned[0]) - 1) // room * room
    each = 1 if merged else actor.engine.settings.candidates or len(learned)
    for first in range(0, len(learned), each):
        numbers, base = tuple(range(first, min(first + each, len(learned)))), actor
        for begin in range(0, merged, room):
            base = base.with_adapter(side_by_side(actor, learned[first][begin : begin + room], whole), whole)
        yield Students(numbers, base, [side_by_side(actor, learned[i][merged:], whole) for i in numbers], whole)


def side_by_side(actor: Actor, adapters: Sequence[dict], whole: LoraConfig) -> dict:
    """One adapter on the host of the rank of `whole`, with the effect of all the adapters."""
    joined = nothing(actor, whole)
    for name, factors in joined["layers"].items():
        begin = 0
        for adapter in adapters:
            a, b = adapter["layers"][name]["A"], adapter["layers"][name]["B"]
            end = begin + a.shape[-1]
            factors["A"][..., begin:end], factors["B"][..., begin:end, :] = a, b
            begin = end
    return joined


def nothing(actor: Actor, lora: LoraConfig) -> dict:
    """An adapter on the host without effect: all of it is zero."""
    shapes = jax.eval_shape(lambda base: init_adapter(jax.random.key(0), base, lora), actor.base)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def scaled(adapter: dict, factor: float) -> dict:
    """The adapter with its effect times a factor; where it has none, no part of it counts."""
    return {
        "layers": {
            name: {"A": pair["A"], "B": (pair["B"] * factor).astype(pair["B"].dtype)}
            for name, pair in adapter["layers"].items()
        }
    }


def mean_losses(students: Students, rows: Sequence[Sequence[Row]]) -> list[float]:
    """Of each student on rows of its own, in nats per token that has a weight."""
    adapters = students.adapters()
    weights = Weights(students.actor.base, adapters.tree, adapters.lora)
    totals = np.zeros(len(rows))
    for part in parts(rows, students.actor.engine.settings.decode_rows):
        totals -= [sum(lane) for lane in students.actor.engine.log_likelihood(weights, part)]
    return (totals / [sum(sum(row.weights) for row in lane) for lane in rows]).tolist()

