"""The engine: from lists of tokens on the host to trained adapters, texts and log-likelihoods, chunk by chunk.

`base` is always an argument (the policy changes every round), on the devices as `put_base` leaves it; `adapters` is a
pytree with a leading axis of lanes, as `finetune` returns it, or None for the bare base.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from seal_jax.config import EngineConfig
from seal_jax.engine import packing
from seal_jax.engine.packing import Candidate, Lanes, Row
from seal_jax.engine.programs import Call, Programs
from seal_jax.inner import loss, sampling, sft
from seal_jax.inner.sampling import DECODING_AXES, Constraint, Decoding, Sampling
from seal_jax.model.lora import LoraConfig, init_adapter, merge
from seal_jax.model.transformer import ModelConfig, Transformer
from seal_jax.parallel import CANDIDATE, Layout, fetch, fetch_all, make_layout, map_candidates, split_candidates


@dataclass(frozen=True)
class Recipe:
    """How an inner loop or an outer SFT trains: adapter (None: all weights), batch, accumulation, optimizer."""

    lora: LoraConfig | None
    batch_size: int
    accumulation: int
    optimizer: sft.Optimizer

    @property
    def batch(self) -> int:
        return self.batch_size * self.accumulation


@dataclass
class Usage:
    """What the device was given: tokens that count and token slots in all, for training; tokens generated."""

    real: int = 0
    slots: int = 0
    generated: int = 0

    @property
    def real_fraction(self) -> float:
        return self.real / max(self.slots, 1)


@dataclass
class Engine:
    """Runs one model's programs; holds no weights, only what was compiled and counted."""

    config: ModelConfig
    settings: EngineConfig
    layout: Layout = field(default_factory=make_layout)
    programs: Programs = field(default_factory=Programs)
    usage: Usage = field(default_factory=Usage)
    other_bases: int = 0  # whole sets of weights that lie on the devices beside those in use
    peaks: dict = field(default_factory=dict)  # bytes that steps take, as budget.py found them

    def put_base(self, params: dict) -> dict:
        """Weights from the host, on the devices."""
        return self.layout.put_weights(params)

    def finetune(self, base: dict, candidates: Sequence[Candidate], recipe: Recipe) -> tuple[dict, np.ndarray]:
        """Train one chunk of candidates together -> (adapters with a leading axis of lanes, losses [S, C]).

        The losses of steps at which a candidate idled are nan.
        """
        lanes = Lanes.holding(len(candidates), self.layout.devices)
        seeds = np.array(lanes.spread([c.seed for c in candidates]), np.uint32)
        hyper = self.layout.put_candidates(_hyper(lanes.spread(candidates), recipe.batch))
        state = self.init_adapters(base, self.layout.put_candidates(seeds), recipe)
        slotted = [packing.slots_of(candidate) for candidate in candidates]
        steps = packing.schedule_steps(candidates, recipe.batch)
        shape = recipe.accumulation, recipe.batch_size
        filled = [packing.fill_step(slotted, step, shape, lanes) for step in steps]
        sizes = {(len(chosen), tokens.shape[-1]) for chosen, tokens, _, _ in filled}
        self.programs.prepare(
            [self.step_call(base, state, hyper, recipe, self.blank_step(lanes, shape, size)) for size in sorted(sizes)]
        )
        losses = []
        for step, (chosen, *arrays) in zip(steps, filled, strict=True):
            self.usage.real += _real_tokens(slotted, step)
            self.usage.slots += arrays[0].size
            local = np.array(chosen, np.int32) % lanes.each
            batch = self.layout.put_candidates((local, sft.Batch(*arrays)))
            state, loss_now = self.programs.run(self.step_call(base, state, hyper, recipe, batch))
            losses.append(loss_now)
        table = np.full((len(steps), lanes.total), np.nan, np.float32)
        for row, (chosen, _, _, valid), values in zip(table, filled, fetch_all(losses), strict=True):
            row[chosen] = np.where(valid, values, np.nan)
        return state.trainable["lora"], table[:, [lanes.of(c) for c in range(len(candidates))]]

    def init_adapters(self, base: dict, seeds, recipe: Recipe) -> sft.State:
        """State of fresh adapters before the first step, one for each of the seeds [C, n]."""
        return self.programs.run(self.init_call(base, seeds, recipe))

    def init_call(self, base: dict, seeds, recipe: Recipe) -> Call:
        layout = self.layout

        def init(base, seeds):
            adapters = jax.vmap(lambda seed: init_adapter(_key(seed), base, recipe.lora))(seeds)
            state = jax.vmap(functools.partial(sft.init_state, recipe.optimizer))({"lora": adapters})
            return layout.constrain(state, candidates=True)

        return Call(f"init {recipe}", init, (base, seeds))

    def blank_state(self, base: dict, lanes: int, recipe: Recipe) -> sft.State:
        """What `init_adapters` gives for so many lanes, by its shapes alone."""
        init = self.init_call(base, jax.ShapeDtypeStruct((lanes, 1), np.uint32), recipe)
        shapes = jax.eval_shape(init.function, *init.args)
        return self.layout.put_weights(shapes, candidates=True)

    def step_call(self, base: dict, state, hyper, recipe: Recipe, batch) -> Call:
        """One optimizer step of some lanes; `batch` is (lanes [c] counted on each device, their sft.Batch)."""
        local, data = batch
        on_device = data.tokens.size // data.tokens.shape[1] // self.layout.devices
        model = self._model(recipe.lora, on_device)
        program = sft.Program(model, recipe.optimizer, self.settings.loss_chunk)
        step = jax.vmap(functools.partial(sft.sft_step, program), in_axes=(None, 0, 0, 0))
        split = split_candidates(_on_lanes(step), (None, 0, 0, 0, 0), 0, self.layout)

        def run(*args):
            state, losses = split(*args)
            return self.layout.constrain(state, candidates=True), losses

        return Call(f"step {recipe}", run, ({"params": base}, state, local, data, hyper), donate=(1,))

    def blank_step(self, lanes: Lanes, shape: tuple[int, int], size: tuple[int, int]):
        """What `step_call` takes as a batch, by its shapes alone; `size` is (lanes computed, sequence length)."""
        count, length = size

        def struct(*dims, dtype):
            return jax.ShapeDtypeStruct(dims, dtype)

        tokens = struct(count, *shape, length, dtype=np.int32)
        weights = struct(count, *shape, length, dtype=np.float32)
        batch = sft.Batch(tokens, weights, struct(count, dtype=np.bool_))
        return self.layout.put_candidates((struct(count, dtype=np.int32), batch))

    def blank_step_call(self, base: dict, recipe: Recipe, lanes: Lanes, size: tuple[int, int]) -> Call:
        """The `step_call` of a chunk with so many lanes, by its shapes alone; `size` as in `blank_step`."""
        numbers = [jax.ShapeDtypeStruct((lanes.total,), kind) for kind in (np.float32, np.int32, np.int32)]
        hyper = self.layout.put_candidates(sft.Hyper(*numbers))
        batch = self.blank_step(lanes, (recipe.accumulation, recipe.batch_size), size)
        return self.step_call(base, self.blank_state(base, lanes.total, recipe), hyper, recipe, batch)

    def teach(self, base: dict, candidate: Candidate, recipe: Recipe) -> tuple[dict, np.ndarray]:
        """Train one model on all devices, each on its share of a batch -> (adapter, or all weights; losses [S]).

        With `recipe.lora` None all weights are trained, spread over all devices with their optimizer state (FSDP).
        """
        full = recipe.lora is None
        state = self.init_teaching(base, self.layout.put(np.array(candidate.seed, np.uint32)), recipe)
        hyper = self.layout.put(jax.tree.map(lambda value: value[0], _hyper([candidate], recipe.batch)))
        slotted, steps = [packing.slots_of(candidate)], packing.schedule_steps([candidate], recipe.batch)
        size = recipe.batch_size * self.layout.devices
        shape = -(-recipe.batch // size), size
        losses = []
        for step in steps:
            _, *arrays = packing.fill_step(slotted, step, shape, Lanes(1, 1))
            self.usage.real += _real_tokens(slotted, step)
            self.usage.slots += arrays[0].size
            tokens, weights, valid = (array[0] for array in arrays)
            tokens, weights = self.layout.put((tokens, weights), None, CANDIDATE)
            batch = sft.Batch(tokens, weights, self.layout.put(valid))
            state, loss_now = self.programs.run(self.teach_call(base, state, hyper, recipe, batch))
            losses.append(loss_now)
        return state.trainable["params" if full else "lora"], np.array([float(fetch(value)) for value in losses])

    def init_teaching(self, base: dict, seed, recipe: Recipe) -> sft.State:
        """State of one fresh adapter, or of all weights, before the first step."""
        return self.programs.run(self.init_teaching_call(base, seed, recipe))

    def init_teaching_call(self, base: dict, seed, recipe: Recipe) -> Call:
        full, layout = recipe.lora is None, self.layout

        def init(base, seed):
            what = {"params": base} if full else {"lora": init_adapter(_key(seed), base, recipe.lora)}
            return layout.constrain(sft.init_state(recipe.optimizer, what), spread=full)

        return Call(f"init teaching {recipe}", init, (base, seed))

    def blank_teaching(self, base: dict, recipe: Recipe) -> sft.State:
        """What `init_teaching` gives, by its shapes alone."""
        init = self.init_teaching_call(base, jax.ShapeDtypeStruct((1,), np.uint32), recipe)
        shapes = jax.eval_shape(init.function, *init.args)
        return self.layout.put_weights(shapes, spread=recipe.lora is None)

    def teach_call(self, base: dict, state, hyper, recipe: Recipe, batch: sft.Batch) -> Call:
        """One optimizer step of one model; batch.tokens [A, B, T] with B split over the devices."""
        full = recipe.lora is None
        on_device = batch.tokens.size // batch.tokens.shape[0] // self.layout.devices
        model = self._model(recipe.lora, on_device)
        program = sft.Program(model, recipe.optimizer, self.settings.loss_chunk)

        def run(frozen, state, batch, hyper):
            state, value = sft.sft_step(program, frozen, state, batch, hyper)
            return self.layout.constrain(state, spread=full), value

        frozen = {} if full else {"params": base}
        return Call(f"teach {recipe}", run, (frozen, state, batch, hyper), donate=(1,))

    def merge(self, base: dict, adapter: dict, lora: LoraConfig) -> dict:
        """The base with one adapter's effect in its weights."""

        def run(base, adapter):
            return self.layout.constrain(merge(base, adapter, lora))

        return self.programs(f"merge {lora}", run, base, jax.tree.map(self.layout.put, adapter))

    def join(self, parts: Sequence[tuple[dict, int]]) -> dict:
        """The adapters of several chunks, (adapters, candidates in use) each, as those of one chunk."""
        if len(parts) == 1:
            return parts[0][0]
        devices, sources, offset = self.layout.devices, [], 0
        for adapters, count in parts:
            total = jax.tree.leaves(adapters)[0].shape[0]
            sources += [offset + Lanes(total, devices).of(candidate) for candidate in range(count)]
            offset += total
        order = np.array(Lanes.holding(len(sources), devices).spread(sources), np.int32)

        def run(order, *parts):
            joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts)
            return self.layout.constrain(joined, candidates=True)

        return self.programs("join", run, self.layout.put(order), *(adapters for adapters, _ in parts))

    def generate(self, base, adapters, lora, prompts, seeds, rules: Sampling, max_new: int, stopped=None, grammar=None):
        """Continue prompts[c][q] (token lists) -> tokens [c][q][k], cut before the first stop token.

        `seeds[c][q]` is a list of tuples of equal length, one for each of the K samples of that prompt; K and Q are the
        same for all. `stopped(tokens)` may end a row early, by a stop string say; it is asked after every segment.
        With a `grammar` (tasks.grammar.Grammar, its stop tokens among those of the rules) all texts are whole texts of
        it. UserError if max_new is too few for one.
        """
        constraint = None
        if grammar is not None:
            table = Constraint(grammar.next_state, grammar.deadlines(max_new), np.int32(grammar.start))
            constraint = self.layout.put(table)
        lanes, places, queries = self._places(adapters, prompts)
        samples = len(seeds[0][0])
        length = packing.bucket(max(len(p) for lane in prompts for p in lane))
        tokens = np.zeros((lanes.total, queries, length), np.int32)
        start = np.full((lanes.total, queries), length - 1, np.int32)
        seed_array = np.zeros((lanes.total, queries * samples, len(seeds[0][0][0])), np.uint32)
        idle = np.ones(seed_array.shape[:2], bool)
        rows = []  # (candidate, prompt, lane, row) of every sample
        for (c, q), (lane, place) in places.items():
            prompt = prompts[c][q]
            tokens[lane, place, length - len(prompt) :] = prompt
            start[lane, place] = length - len(prompt)
            for k in range(samples):
                row = place * samples + k
                seed_array[lane, row], idle[lane, row] = seeds[c][q][k], False
                rows.append((c, q, lane, row))
        variables = {"params": base} if adapters is None else {"params": base, "lora": adapters}
        keys = self.layout.put_candidates((tokens, start, seed_array))
        room = packing.bucket(max_new)
        state, keys = self.programs.run(self.prefill_call(variables, lora, keys, rules, room, constraint))
        state = state._replace(done=self.layout.put_candidates(fetch(state.done) | idle))
        ends = np.full(idle.shape, max_new)
        until = 1
        while until < max_new and not fetch(state.done).all():
            until = min(until + self.settings.segment, max_new)
            call = self.decode_call(variables, lora, state, keys, rules, np.int32(until), constraint)
            state = self.programs.run(call)
            if stopped is not None:
                done, written = np.array(fetch(state.done)), fetch(state.tokens)
                for _, _, lane, row in rows:
                    if not done[lane, row] and stopped(written[lane, row, :until].tolist()):
                        done[lane, row], ends[lane, row] = True, until
                state = state._replace(done=self.layout.put_candidates(done))
        written = fetch(state.tokens)[:, :, :until]
        out: list[list[list[list[int]]]] = [[[] for _ in lane] for lane in prompts]
        for c, q, lane, row in rows:
            out[c][q].append(_until_stop(written[lane, row, : ends[lane, row]].tolist(), rules.stop_ids))
            self.usage.generated += len(out[c][q][-1])
        return out

    def prefill_call(self, variables: dict, lora, prompts: tuple, rules: Sampling, room: int, constraint=None) -> Call:
        """Read prompts, (tokens [C, Q, T], start [C, Q], seeds [C, Q·K, n]), and choose the first tokens."""
        model = self._model(lora)

        def one(base, extra, tokens, start, seeds, constraint):
            keys = jax.vmap(_key)(seeds)
            read, logits = sampling.prefill(model, {"params": base, **extra}, tokens, start)
            return sampling.begin(read, logits, keys, room, rules, constraint), keys

        mapped = map_candidates(one, (None, 0, 0, 0, 0, None), (DECODING_AXES, 0), self.layout)

        def run(*args):
            return self.layout.constrain_heads(mapped(*args))

        base, extra = _split(variables)
        return Call(f"prefill {model.lora_scale} {rules} {room}", run, (base, extra, *prompts, constraint))

    def decode_call(self, variables, lora, state: Decoding, keys, rules: Sampling, until, constraint=None) -> Call:
        """Decode all rows until `until` tokens are written."""
        model = self._model(lora)

        early = self.layout.model == 1  # groups that exchange parts of a model keep step with each other

        def loop(base, extra, state, keys, until, constraint):
            return sampling.decode(model, {"params": base, **extra}, state, keys, rules, until, early, constraint)

        split = split_candidates(loop, (None, 0, DECODING_AXES, 0, None, None), DECODING_AXES, self.layout)
        base, extra = _split(variables)
        args = base, extra, state, keys, self.layout.put(until), constraint
        return Call(f"decode {model.lora_scale} {rules}", split, args, donate=(2,))

    def log_likelihood(self, base, adapters, lora, rows: Sequence[Sequence[Row]]) -> list[list[float]]:
        """Log-likelihood in nats of the weighted tokens of rows[c][q], given those before them -> [c][q]."""
        lanes, places, queries = self._places(adapters, rows)
        length = packing.bucket(max(len(row.tokens) for lane in rows for row in lane))
        tokens = np.zeros((lanes.total, queries, length), np.int32)
        mask = np.zeros(tokens.shape, np.float32)
        for (c, q), (lane, place) in places.items():
            row = rows[c][q]
            tokens[lane, place, : len(row.tokens)] = row.tokens
            mask[lane, place, : len(row.tokens)] = row.weights
        variables = {"params": base} if adapters is None else {"params": base, "lora": adapters}
        out = fetch(self.programs.run(self.score_call(variables, lora, *self.layout.put_candidates((tokens, mask)))))
        return [[float(out[places[c, q]]) for q in range(len(lane))] for c, lane in enumerate(rows)]

    def score_call(self, variables: dict, lora, tokens, mask) -> Call:
        """Log-likelihood [C, Q] of the masked tokens of rows [C, Q, T]."""
        model = self._model(lora)

        def score(base, extra, tokens, mask):
            return loss.log_likelihood(model, {"params": base, **extra}, tokens, mask, self.settings.loss_chunk)

        mapped = map_candidates(score, (None, 0, 0, 0), 0, self.layout)
        return Call(f"score {model.lora_scale}", mapped, (*_split(variables), tokens, mask))

    def _model(self, lora: LoraConfig | None, tokens: int = 0) -> Transformer:
        """The model with adapters or without; blocks are recomputed where it is trained on many tokens at once."""
        return Transformer(self.config, lora.scale if lora else 1.0, tokens > self.settings.remat_above)

    def _places(self, adapters, queries: Sequence[Sequence]) -> tuple[Lanes, dict, int]:
        """(lanes, {(candidate, query): (lane, row)}, rows of a lane); all devices share the bare base's queries."""
        devices = self.layout.devices
        if adapters is None:
            rows = packing.count_bucket(-(-len(queries[0]) // devices))
            places = {(0, q): (q % devices, q // devices) for q in range(len(queries[0]))}
            return Lanes(devices, devices), places, rows
        lanes = Lanes(jax.tree.leaves(adapters)[0].shape[0], devices)
        places = {(c, q): (lanes.of(c), q) for c, lane in enumerate(queries) for q in range(len(lane))}
        return lanes, places, packing.count_bucket(max(len(lane) for lane in queries))


def first_adapter(adapters: dict) -> dict:
    """The adapter of the first candidate, without the axis of lanes."""
    return jax.tree.map(lambda leaf: leaf[0], adapters)


def _split(variables: dict) -> tuple[dict, dict]:
    """(base, what else there is, by collection)."""
    return variables["params"], {name: tree for name, tree in variables.items() if name != "params"}


def _real_tokens(slotted: Sequence[Sequence[Row]], step: Sequence[tuple[int, ...]]) -> int:
    return sum(len(slotted[candidate][slot].tokens) for candidate, slots in enumerate(step) for slot in slots)


def _hyper(candidates: Sequence[Candidate], batch: int) -> sft.Hyper:
    return sft.Hyper(
        np.array([c.learning_rate for c in candidates], np.float32),
        np.array([packing.steps_of(c, batch) for c in candidates], np.int32),
        np.array([c.warmup_steps for c in candidates], np.int32),
    )


def _on_lanes(step):
    """A step for some of the lanes of a stacked state: those that idle cost nothing and change in nothing."""

    def run(frozen, state, lanes, batch, hyper):
        if lanes.shape[0] == batch.valid.shape[0] == state.step.shape[0]:
            return step(frozen, state, batch, hyper)
        part, part_hyper = jax.tree.map(lambda leaf: leaf[lanes], (state, hyper))
        part, losses = step(frozen, part, batch, part_hyper)
        return jax.tree.map(lambda leaf, new: leaf.at[lanes].set(new), state, part), losses

    return run


def _key(seed: jax.Array) -> jax.Array:
    """A PRNG key from a vector of integers [n]."""
    key = jax.random.key(0)
    for place in range(seed.shape[0]):
        key = jax.random.fold_in(key, seed[place])
    return key


def _until_stop(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in stop_ids:
            return tokens[:place]
    return tokens
