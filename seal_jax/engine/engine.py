"""The engine: from lists of tokens on the host to trained adapters, samples and log-likelihoods, chunk by chunk.

Weights are always arguments, since the policy changes every round; the engine keeps what was compiled and counted.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from seal_jax.config import EngineConfig
from seal_jax.engine import generation as decoding
from seal_jax.engine import groups, memory, packing, remat, teacher
from seal_jax.engine.calls import Calls
from seal_jax.engine.generation import Generation, Sample
from seal_jax.engine.packing import Candidate, Lanes, Row
from seal_jax.engine.pairs import Pairs, pairs_of
from seal_jax.engine.programs import Call, Programs
from seal_jax.engine.recipe import Recipe
from seal_jax.engine.sampled import Objective, Sampled
from seal_jax.engine.weights import Weights
from seal_jax.inner import dpo, policy_gradient, sft
from seal_jax.inner.distill import Distillation, Targets
from seal_jax.model.lora import LoraConfig
from seal_jax.model.transformer import ModelConfig
from seal_jax.parallel import CANDIDATE, Layout, fetch, fetch_all, make_layout


@dataclass
class Usage:
    """Tokens given to the devices: in training, real ones and token slots with padding; and tokens generated."""

    real: int = 0
    slots: int = 0
    generated: int = 0

    @property
    def real_fraction(self) -> float:
        return self.real / max(self.slots, 1)


@dataclass
class Engine:
    """Runs one model's programs on a layout of devices.

    other_bases: whole sets of weights that lie on the devices beside those in use.
    """

    config: ModelConfig
    settings: EngineConfig
    layout: Layout = field(default_factory=make_layout)
    programs: Programs = field(default_factory=Programs)
    usage: Usage = field(default_factory=Usage)
    other_bases: int = 0

    @property
    def calls(self) -> Calls:
        """Builders of the engine's programs."""
        return Calls(self.config, self.settings, self.layout)

    def put_base(self, params: dict) -> dict:
        """Base weights from the host, on the devices."""
        return self.layout.put_weights(params)

    def step_budget(self, base: dict) -> float | None:
        """Bytes of a device for a training step of these weights and for them; None where that is not known."""
        return memory.step_budget(self.settings, base, self.other_bases)

    def finetune(
        self, base: dict, candidates: Sequence[Candidate], recipe: Recipe, past: dict | None = None
    ) -> tuple[dict, list[np.ndarray]]:
        """Train one chunk of candidates together -> (adapters with a leading axis of lanes, losses of each candidate).

        losses[c] is float32, in nats per weighted token, one for each optimizer step of candidate c in order; NaN
        means that its training diverged. Candidates must have the same data order (see `packing.plan_chunks`). Each
        step is at most `settings.length_groups` calls, of candidates with sequences of like length (see groups.py).
        Rows with a teacher's targets (see `with_targets`) are learned by `recipe.distillation`. past: adapters with an
        axis of lanes, of the recipe's scale and any rank, that the candidates have already and that stay as they are.
        Where the recipe freezes A, all have that of the first candidate's seed, so the seeds should be the same.
        """
        lanes = Lanes.holding(len(candidates), self.layout.devices)
        seeds = np.array(lanes.spread([c.seed for c in candidates]), np.uint32)
        hyper = self.layout.put_candidates(_hyper(lanes.spread(candidates), recipe.batch))
        budget = self.step_budget(base)
        state = self.init_adapters(base, self.layout.put_candidates(seeds), recipe)
        slotted = [packing.slots_of(candidate) for candidate in candidates]
        steps = packing.schedule_steps(candidates, recipe.batch)
        parts = groups.plan_parts(slotted, steps, lanes, self.settings.length_groups, recipe.batch)
        frozen = {"params": base} | ({} if past is None else {"past": past})
        if recipe.lora.freeze_a:
            seed = self.layout.put(np.array(candidates[0].seed, np.uint32))
            frozen["shared"] = self.programs.run(self.calls.shared(base, seed, recipe))
        shape = recipe.accumulation, recipe.batch_size
        filled = [packing.fill_step(slotted, part.slots, shape, lanes, part.size) for part in parts]
        widths = groups.places_widths(parts, [weights for _, _, weights, _ in filled])
        sizes = [
            (len(chosen), part.length, packing.targets_width(slotted, part.slots), widths[part.size])
            for part, (chosen, *_) in zip(parts, filled, strict=True)
        ]

        def blank(calls: Calls, size: tuple[int, ...]) -> Call:
            batch = calls.blank_batch(shape, size[:2], *size[2:])
            return calls.step(frozen, state, hyper, recipe, batch)

        makers = {size: functools.partial(blank, size=size) for size in sorted(set(sizes))}
        calls = remat.least(self.calls, self.programs, budget, makers)
        self.programs.prepare([make(calls[size]) for size, make in makers.items()])
        values = []
        self.programs.activity.show("training step", len(parts), lambda: sum(value.is_ready() for value in values))
        for part, size, (chosen, *arrays) in zip(parts, sizes, filled, strict=True):
            self._count(slotted, part.slots, arrays[0])
            local = np.array(chosen, np.int32) % lanes.each
            expected = packing.fill_targets(slotted, part.slots, arrays[0].shape, lanes)
            places = packing.counted_places(arrays[1], widths[part.size])
            data = sft.Batch(*arrays, expected and Targets(*expected), places)
            batch = self.layout.put_candidates((local, data))
            state, loss_now = self.programs.run(calls[size].step(frozen, state, hyper, recipe, batch))
            values.append(loss_now)
        losses: list[list[float]] = [[] for _ in candidates]
        for part, (chosen, *_), row in zip(parts, filled, fetch_all(values), strict=True):
            loss_of = dict(zip(chosen, row, strict=True))
            for candidate, slots in enumerate(part.slots):
                if slots:
                    losses[candidate].append(loss_of[lanes.of(candidate)])
        self.programs.activity.restore()
        trained = state.trainable["lora"]
        if recipe.lora.freeze_a:
            trained = self.programs.run(self.calls.complete(frozen["shared"], trained))
        return trained, [np.array(lane, np.float32) for lane in losses]

    def with_targets(self, base: dict, rows: Sequence[Row], how: Distillation) -> dict[Row, Row]:
        """Those of the rows that have a teacher, which is the base, each with the targets of their texts."""
        return teacher.with_targets(self.calls, self.programs, base, rows, how)

    def init_adapters(self, base: dict, seeds, recipe: Recipe) -> sft.State:
        """Training state of fresh adapters, one for each of the seeds [C, n] on the devices."""
        return self.programs.run(self.calls.init(base, seeds, recipe))

    def teach(self, base: dict, candidate: Candidate, recipe: Recipe) -> tuple[dict, np.ndarray]:
        """Train one model on all devices, each on its share of a batch -> (adapter, or all weights; losses [S]).

        With `recipe.lora` None all weights are trained, spread over all devices with their optimizer state (FSDP).
        """
        slotted = [packing.slots_of(candidate)]

        def filled(slots: list[tuple[int, ...]]) -> sft.Batch:
            _, *arrays = packing.fill_step(slotted, slots, self._shape(recipe, len(slots[0])), Lanes(1, 1))
            self._count(slotted, slots, arrays[0])
            tokens, weights, valid = (array[0] for array in arrays)
            return sft.Batch(tokens, weights, valid, places=packing.counted_places(weights))

        def made(calls: Calls, state: sft.State, hyper: sft.Hyper, batch: sft.Batch) -> Call:
            return calls.teach(base, state, hyper, recipe, batch)

        return self._learn(base, candidate, recipe, filled, made)

    def prefer(self, base: dict, pairs: Pairs, recipe: Recipe, beta: float) -> tuple[dict, np.ndarray]:
        """Train one model as `teach` does, by DPO on pairs of sequences, `recipe.batch` pairs a step."""
        slotted, reference = pairs.slots()

        def filled(slots: list[tuple[int, ...]]) -> dpo.Pairs:
            shape = self._shape(recipe, len(slots[0]))
            _, *arrays = packing.fill_step(slotted, slots * 2, shape, Lanes(2, 1))
            self._count(slotted, slots * 2, arrays[0])
            tokens, weights = (np.moveaxis(array, 0, 2) for array in arrays[:2])
            return dpo.Pairs(tokens, weights, *pairs_of(slots[0], reference, shape), np.array(True))

        def made(calls: Calls, state: sft.State, hyper: sft.Hyper, batch: dpo.Pairs) -> Call:
            return calls.prefer(base, state, hyper, recipe, batch, beta)

        return self._learn(base, pairs.learner, recipe, filled, made)

    def reinforce(self, base: dict, sampled: Sampled, recipe: Recipe, how: Objective) -> tuple[dict, np.ndarray]:
        """Train one model as `teach` does, by policy gradients on texts that were sampled."""
        ordered = sampled.ordered()
        slotted = [list(ordered.learner.rows)]

        def filled(slots: list[tuple[int, ...]]) -> policy_gradient.Batch:
            _, tokens, weights, _ = packing.fill_step(slotted, slots, self._shape(recipe, len(slots[0])), Lanes(1, 1))
            self._count(slotted, slots, tokens)
            others = ordered.arrays(slots[0], tokens.shape[1:])
            return policy_gradient.Batch(tokens[0], (weights[0] != 0).astype(np.float32), *others, np.array(True))

        def made(calls: Calls, state: sft.State, hyper: sft.Hyper, batch: policy_gradient.Batch) -> Call:
            return calls.reinforce(base, state, hyper, recipe, batch, how)

        return self._learn(base, ordered.learner, recipe, filled, made)

    def _shape(self, recipe: Recipe, count: int) -> tuple[int, int]:
        """(micro-batches, sequences in each) of a step of one model on all devices with so many sequences; what an
        epoch leaves for its last step is not padded to a whole batch."""
        devices = self.layout.devices
        size = recipe.batch_size * devices
        return -(-count // size), min(size, packing.row_bucket(-(-count // devices)) * devices)

    def _count(self, slotted: Sequence[Sequence[Row]], step: Sequence[tuple[int, ...]], tokens: np.ndarray) -> None:
        """Add a step's tokens to `usage`."""
        self.usage.real += sum(
            len(slotted[candidate][slot].tokens) for candidate, slots in enumerate(step) for slot in slots
        )
        self.usage.slots += tokens.size

    def _learn(
        self, base: dict, learner: Candidate, recipe: Recipe, filled: Callable, made: Callable
    ) -> tuple[dict, np.ndarray]:
        """Every step of one model -> (adapter, or all weights; losses [S]); filled(slots) is the batch of a step on the
        host, made(calls, state, hyper, batch) the step."""
        budget = self.step_budget(base)
        if budget is not None and recipe.lora is None:
            budget -= memory.on_device(base)  # which stays where it is, while a copy of it is trained
        state = self.init_teaching(base, self.layout.put(np.array(learner.seed, np.uint32)), recipe)
        hyper = self.layout.put(jax.tree.map(lambda value: value[0], _hyper([learner], recipe.batch)))
        batches = [filled(slots) for slots in packing.schedule_steps([learner], recipe.batch)]
        sizes = [_size(batch) for batch in batches]
        makers = {
            size: functools.partial(made, state=state, hyper=hyper, batch=self._put(batch))
            for size, batch in dict(zip(sizes, batches, strict=True)).items()
        }
        calls = remat.least(self.calls, self.programs, budget, makers)
        self.programs.prepare([make(calls[size]) for size, make in makers.items()])
        losses = []
        self.programs.activity.show("training step", len(sizes), lambda: sum(value.is_ready() for value in losses))
        for size, batch in zip(sizes, batches, strict=True):
            state, loss_now = self.programs.run(made(calls[size], state, hyper, self._put(batch)))
            losses.append(loss_now)
        trained = state.trainable["params" if recipe.lora is None else "lora"]
        found = np.array([float(fetch(value)) for value in losses])
        self.programs.activity.restore()
        return trained, found

    def _put(self, batch: NamedTuple) -> NamedTuple:
        """A batch of one model on the devices, its sequences [A, B, ...] spread over them."""
        return jax.tree.map(lambda leaf: self.layout.put(leaf, *((None, CANDIDATE) if leaf.ndim else ())), batch)

    def init_teaching(self, base: dict, seed, recipe: Recipe) -> sft.State:
        """Training state of one fresh adapter, or of all weights; seed [n] on the devices."""
        return self.programs.run(self.calls.init_teaching(base, seed, recipe))

    def merge(self, base: dict, adapter: dict, lora: LoraConfig) -> dict:
        """The base with the effect of one adapter (without an axis of lanes) added to its weights."""
        return self.programs.run(self.calls.merge(base, jax.tree.map(self.layout.put, adapter), lora))

    def join(self, parts: Sequence[tuple[dict, int]]) -> dict:
        """The adapters of several chunks, each (adapters, number of its candidates), as those of one chunk."""
        if len(parts) == 1:
            return parts[0][0]
        devices, sources, offset = self.layout.devices, [], 0
        for adapters, count in parts:
            total = jax.tree.leaves(adapters)[0].shape[0]
            sources += [offset + Lanes(total, devices).of(candidate) for candidate in range(count)]
            offset += total
        order = np.array(Lanes.holding(len(sources), devices).spread(sources), np.int32)
        return self.programs.run(self.calls.join(self.layout.put(order), [adapters for adapters, _ in parts]))

    def generate(
        self,
        weights: Weights,
        prompts: Sequence[Sequence[list[int]]],
        seeds: Sequence[Sequence[Sequence[tuple[int, ...]]]],
        generation: Generation,
    ) -> list[list[list[Sample]]]:
        """Continue prompts[c][q] (token ids) -> samples [c][q][k].

        Candidate c is the c-th adapter of `weights`; without adapters there is one candidate, and its prompts are
        shared by all devices. seeds[c][q] has a tuple of integers for each of the K samples of that prompt; K and the
        tuples' length are the same for all. A sample depends on its weights, prompt and seed, not on the other rows.
        """
        out = decoding.generate(self.calls, self.programs, weights, prompts, seeds, generation)
        self.usage.generated += sum(len(sample.tokens) for lane in out for samples in lane for sample in samples)
        return out

    def token_log_probs(self, weights: Weights, rows: Sequence[Row]) -> list[np.ndarray]:
        """Log-probabilities in nats of the weighted tokens of each row, under the base or the one adapter of
        `weights`."""
        return decoding.token_log_probs(self.calls, self.programs, weights, rows)

    def log_likelihood(self, weights: Weights, rows: Sequence[Sequence[Row]]) -> list[list[float]]:
        """Log-likelihood in nats of the weighted tokens of rows[c][q], given those before them -> [c][q].

        Candidates are those of `generate`.
        """
        return decoding.log_likelihood(self.calls, self.programs, weights, rows)


def _size(batch: NamedTuple) -> tuple[int, ...]:
    """(sequences, their length, micro-batches, room for the places that count) of a step of one model; it names the
    step's program."""
    micros, sequences, *_, length = batch.tokens.shape
    places = getattr(batch, "places", None)
    return micros * sequences, length, micros, length if places is None else places.shape[-1]


def _hyper(candidates: Sequence[Candidate], batch: int) -> sft.Hyper:
    return sft.Hyper(
        np.array([c.learning_rate for c in candidates], np.float32),
        np.array([packing.steps_of(c, batch) for c in candidates], np.int32),
        np.array([c.warmup_steps for c in candidates], np.int32),
    )
