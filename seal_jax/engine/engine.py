"""The engine: from lists of tokens on the host to trained adapters, texts and log-likelihoods, chunk by chunk.

`base` is always an argument (the policy changes every round); `adapters` is a pytree with a leading candidate axis, as
`finetune` returns it, or None for the bare base.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from seal_jax.config import EngineConfig
from seal_jax.engine import packing
from seal_jax.engine.packing import Candidate, Row
from seal_jax.engine.programs import Programs
from seal_jax.inner import loss, sampling, sft
from seal_jax.inner.sampling import DECODING_AXES, Sampling
from seal_jax.model.lora import LoraConfig, init_adapter
from seal_jax.model.transformer import ModelConfig, Transformer
from seal_jax.parallel import map_candidates


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
    programs: Programs = field(default_factory=Programs)
    usage: Usage = field(default_factory=Usage)

    def finetune(self, base: dict, candidates: Sequence[Candidate], recipe: Recipe) -> tuple[dict, np.ndarray]:
        """Train one chunk of candidates together -> (adapters with a leading candidate axis, losses [S, C]).

        The losses of steps at which a candidate idled are nan. With `recipe.lora` None the one candidate trains all
        weights, and they come back in the adapters' place.
        """
        lanes = packing.count_bucket(len(candidates))
        seeds = np.array([c.seed for c in _padded(candidates, lanes)], np.uint32)
        hyper = _hyper(_padded(candidates, lanes), recipe.batch)
        if recipe.lora is None:
            frozen, trainable = {}, {"params": jax.tree.map(lambda w: jnp.array(w[None]), base)}
        else:
            frozen = {"params": base}
            init = _init_adapters(recipe.lora)
            trainable = {"lora": self.programs(f"init {recipe.lora}", init, base, seeds)}
        state = jax.vmap(functools.partial(sft.init_state, recipe.optimizer))(trainable)
        slotted = [packing.slots_of(candidate) for candidate in candidates]
        steps = packing.schedule_steps(candidates, recipe.batch)
        losses, awake = [], []
        for step in steps:
            chosen = packing.lanes_awake(step, lanes)
            arrays = packing.fill_step(slotted, step, (recipe.accumulation, recipe.batch_size), chosen)
            batch = sft.Batch(*arrays)
            self.usage.real += sum(len(slotted[lane][slot].tokens) for lane, slots in enumerate(step) for slot in slots)
            self.usage.slots += batch.tokens.size
            function = self._step(recipe, batch.tokens[:, 0].size > self.settings.remat_above)
            args = frozen, state, np.array(chosen, np.int32), batch, hyper
            state, loss_now = self.programs(f"step {recipe}", function, *args, donate=(1,))
            losses.append(loss_now)
            awake.append((chosen, batch.valid))
        trained = state.trainable["params" if recipe.lora is None else "lora"]
        table = np.full((len(steps), lanes), np.nan, np.float32)
        for row, (chosen, valid), values in zip(table, awake, losses, strict=True):
            row[chosen] = np.where(valid, np.asarray(values), np.nan)
        return trained, table[:, : len(candidates)]

    def _step(self, recipe: Recipe, remat: bool):
        model = Transformer(self.config, recipe.lora.scale if recipe.lora else 1.0, remat)
        program = sft.Program(model, recipe.optimizer, self.settings.loss_chunk)
        return _on_lanes(map_candidates(functools.partial(sft.sft_step, program), (False, True, True, True)))

    def generate(self, base, adapters, lora, prompts, seeds, rules: Sampling, max_new: int, stopped=None):
        """Continue prompts[c][q] (token lists) -> tokens [c][q][k], cut before the first stop token.

        `seeds[c][q]` is a list of tuples of equal length, one for each of the K samples of that prompt; K and Q are the
        same for all. `stopped(tokens)` may end a row early, by a stop string say; it is asked after every segment.
        """
        lanes = 1 if adapters is None else jax.tree.leaves(adapters)[0].shape[0]
        queries = packing.count_bucket(max(len(p) for p in prompts))
        samples = len(seeds[0][0])
        length = packing.bucket(max(len(p) for lane in prompts for p in lane))
        padded = [packing.pad_left(lane, queries, length) for lane in _padded(prompts, lanes)]
        tokens, start = (np.stack(part) for part in zip(*padded, strict=True))
        blank = np.zeros(len(seeds[0][0][0]), np.uint32)
        seed_array = np.stack(
            [
                np.stack([s for q in range(queries) for s in (lane[q] if q < len(lane) else [blank] * samples)])
                for lane in _padded(seeds, lanes)
            ]
        ).astype(np.uint32)
        model = Transformer(self.config, lora.scale if lora else 1.0)
        room = packing.bucket(max_new)
        name = f"{model.lora_scale} {rules} {room}"
        extra = {} if adapters is None else {"lora": adapters}
        begin = _begin(model, rules, room)
        state, keys = self.programs(f"prefill {name}", begin, base, extra, tokens, start, seed_array)

        def loop(variables, state, keys, until):
            return sampling.decode(model, variables, state, keys, rules, until)

        asked = [(c, q) for c, lane in enumerate(prompts) for q in range(len(lane))]
        rows = [(c, q, q * samples + k) for c, q in asked for k in range(samples)]
        idle = np.ones((lanes, queries * samples), bool)
        idle[tuple(np.array([(c, r) for c, _, r in rows]).T)] = False
        state = state._replace(done=state.done | idle)
        ends = np.full(idle.shape, max_new)
        until = 1
        while until < max_new and not np.asarray(state.done).all():
            until = min(until + self.settings.segment, max_new)
            args = {"params": base, **extra}, state, keys, np.int32(until)
            state = self.programs(f"decode {name}", loop, *args, donate=(1,))
            if stopped is not None:
                done, written = np.array(state.done), np.asarray(state.tokens)
                for c, _, r in rows:
                    if not done[c, r] and stopped(written[c, r, : int(state.count)].tolist()):
                        done[c, r], ends[c, r] = True, int(state.count)
                state = state._replace(done=jnp.asarray(done))
        written = np.asarray(state.tokens)[:, :, : int(state.count)]
        out: list[list[list[list[int]]]] = [[[] for _ in lane] for lane in prompts]
        for c, q, r in rows:
            out[c][q].append(_until_stop(written[c, r, : ends[c, r]].tolist(), rules.stop_ids))
            self.usage.generated += len(out[c][q][-1])
        return out

    def log_likelihood(self, base, adapters, lora, rows: Sequence[Sequence[Row]]) -> list[list[float]]:
        """Log-likelihood in nats of the weighted tokens of rows[c][q], given those before them -> [c][q]."""
        lanes = 1 if adapters is None else jax.tree.leaves(adapters)[0].shape[0]
        queries = packing.count_bucket(max(len(lane) for lane in rows))
        length = packing.bucket(max(len(row.tokens) for lane in rows for row in lane))
        tokens = np.zeros((lanes, queries, length), np.int32)
        mask = np.zeros(tokens.shape, np.float32)
        for c, lane in enumerate(rows):
            for q, row in enumerate(lane):
                tokens[c, q, : len(row.tokens)] = row.tokens
                mask[c, q, : len(row.tokens)] = row.weights
        model = Transformer(self.config, lora.scale if lora else 1.0)
        chunk = self.settings.loss_chunk
        extra = {} if adapters is None else {"lora": adapters}

        def score(base, extra, tokens, mask):
            return loss.log_likelihood(model, {"params": base, **extra}, tokens, mask, chunk)

        mapped = map_candidates(score, (False, True, True, True))
        out = np.asarray(self.programs(f"score {model.lora_scale}", mapped, base, extra, tokens, mask))
        return [[float(out[c, q]) for q in range(len(lane))] for c, lane in enumerate(rows)]


def join_adapters(parts: Sequence[tuple[dict, int]]) -> dict:
    """The adapters of several chunks, (adapters, candidates in use) each, as those of one: idle lanes go to the end."""
    used = [jax.tree.map(lambda leaf, count=count: leaf[:count], adapters) for adapters, count in parts]
    total = sum(count for _, count in parts)
    spare = packing.count_bucket(total) - total
    used += [jax.tree.map(lambda leaf: leaf[:1], parts[0][0])] * spare
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *used)


def first_adapter(adapters: dict) -> dict:
    """The adapter of the first candidate, without the candidate axis."""
    return jax.tree.map(lambda leaf: leaf[0], adapters)


def _padded(items: Sequence, count: int) -> list:
    """`items`, the last one repeated up to `count`: lanes that idle need some numbers to idle with."""
    return list(items) + [items[-1]] * (count - len(items))


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


def _init_adapters(lora: LoraConfig):
    return lambda base, seeds: jax.vmap(lambda seed: init_adapter(_key(seed), base, lora))(seeds)


def _begin(model: Transformer, rules: Sampling, room: int):
    def run(base, extra, tokens, start, seeds):
        keys = jax.vmap(jax.vmap(_key))(seeds)

        def one(extra, tokens, start, keys):
            cache, logits = sampling.prefill(model, {"params": base, **extra}, tokens, start)
            return sampling.begin(cache, logits, keys, room, rules)

        return jax.vmap(one, out_axes=DECODING_AXES)(extra, tokens, start, keys), keys

    return run


def _until_stop(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in stop_ids:
            return tokens[:place]
    return tokens
