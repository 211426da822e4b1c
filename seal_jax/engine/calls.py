"""The engine's programs as calls: a function and its arguments, to be compiled, run, or only measured.

Arguments may be arrays or `jax.ShapeDtypeStruct`s; the `blank_*` methods give the latter, so that a program can be
compiled before there is any data.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from seal_jax.config import EngineConfig
from seal_jax.engine.packing import Lanes
from seal_jax.engine.programs import Call
from seal_jax.engine.recipe import Recipe
from seal_jax.engine.sampled import Objective
from seal_jax.engine.weights import Weights
from seal_jax.inner import distill, dpo, loss, policy_gradient, sampling, sft
from seal_jax.inner.distill import Distillation
from seal_jax.inner.sampling import DECODING_AXES, Constraint, Decoder, Decoding, Sampling
from seal_jax.model.attention import Kernel, kernel_for
from seal_jax.model.lora import LoraConfig, factor, init_adapter, joined, merge
from seal_jax.model.precision import masters
from seal_jax.model.transformer import ModelConfig, Transformer
from seal_jax.parallel import Layout, map_candidates, split_candidates

KEPT = 1024  # tokens of a training step up to which nothing is computed again where the memory is not known


@dataclass(frozen=True)
class Calls:
    """Builds the calls of one model on one layout of devices."""

    config: ModelConfig
    settings: EngineConfig
    layout: Layout

    def recomputing(self, remat: str) -> "Calls":
        """The same, with training steps whose backward passes compute that again, a kind of REMAT."""
        return replace(self, settings=replace(self.settings, remat=remat))

    def model(self, scale: float, tokens: int = 0) -> Transformer:
        """The model with adapters of this scale (1 without any), for a training step on so many tokens of a device (0:
        nothing is trained), as devices run it that have candidates of their own."""
        name = kernel_for(self.layout.device) if self.settings.attention == "auto" else None
        kernel = Kernel(name, self.layout.on_heads) if name else None
        return Transformer(self.config, scale, self._remat(tokens), kernel)

    def _remat(self, tokens: int) -> str:
        """What a step on so many tokens of a device computes again; where `settings.remat` leaves it open, blocks above
        KEPT tokens."""
        remat = self.settings.remat
        if remat == "auto" or not tokens:
            return "full" if tokens > KEPT else "none"
        return remat

    def chunk(self, rows: int) -> int:
        """Positions of each of so many sequences on a device to which the head is applied at a time."""
        return max(1, self.settings.loss_chunk // rows)

    # Inner loops: candidates with an adapter each

    def init(self, base: dict, seeds, recipe: Recipe) -> Call:
        """Training state of fresh adapters before the first step, one for each row of seeds [C, n]."""
        layout = self.layout

        def run(base, seeds):
            adapters = jax.vmap(lambda seed: init_adapter(fold_key(seed), base, recipe.lora))(seeds)
            adapters = factor(adapters, "B") if recipe.lora.freeze_a else adapters
            state = jax.vmap(functools.partial(sft.init_state, recipe.optimizer))({"lora": adapters})
            return layout.constrain(state, candidates=True)

        return self._call(("init", recipe), run, (base, seeds))

    def shared(self, base: dict, seed, recipe: Recipe) -> Call:
        """The A that all candidates share where the recipe freezes it, from seed [n]."""

        def run(base, seed):
            return self.layout.constrain(factor(init_adapter(fold_key(seed), base, recipe.lora), "A"))

        return self._call(("shared", recipe.lora), run, (base, seed))

    def complete(self, shared: dict, trained: dict) -> Call:
        """Adapters with a leading axis of lanes from the A that they share and the B of each."""

        def run(shared, trained):
            lanes = jax.tree.leaves(trained)[0].shape[0]
            each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (lanes, *leaf.shape)), shared)
            return self.layout.constrain(joined(each, trained), candidates=True)

        return self._call(("complete",), run, (shared, trained))

    def blank_state(self, base: dict, lanes: int, recipe: Recipe) -> sft.State:
        """The result of `init` for so many lanes, as structs."""
        init = self.init(base, jax.ShapeDtypeStruct((lanes, 1), np.uint32), recipe)
        shapes = jax.eval_shape(init.function, *init.args)
        return self.layout.put_weights(shapes, candidates=True)

    def step(self, frozen: dict, state: sft.State, hyper: sft.Hyper, recipe: Recipe, batch: tuple) -> Call:
        """One optimizer step of the chosen lanes -> (state of all lanes, losses [c] of the chosen).

        `frozen` is {'params': base}, with 'past' where every lane has an adapter that it learned before, and 'shared'
        where all have the A of `shared`; `batch` is (lane indices [c] within each device, their sft.Batch).
        """
        local, data = batch
        on_device = data.tokens.size // data.tokens.shape[1] // self.layout.devices
        model = self.model(recipe.lora.scale, on_device)
        chunk = self.chunk(on_device // data.tokens.shape[-1])
        program = sft.Program(model, recipe.optimizer, chunk, recipe.distillation)
        axes = {name: 0 if name == "past" else None for name in frozen}
        step = jax.vmap(functools.partial(sft.sft_step, program), in_axes=(axes, 0, 0, 0))
        split = split_candidates(sft.on_lanes(step), (axes, 0, 0, 0, 0), 0, self.layout)

        def run(*args):
            state, losses = split(*args)
            return self.layout.constrain(state, candidates=True), losses

        return self._call(("step", self.settings.remat, recipe), run, (frozen, state, local, data, hyper), donate=(1,))

    def blank_batch(
        self, shape: tuple[int, int], size: tuple[int, int], targets: int = 0, counted: int = 0
    ) -> tuple:
        """The `batch` of `step` as structs: `shape` is (micro-batches, sequences in each), `size` is (lanes computed,
        sequence length). `targets`: the teacher's at each token, 0 without a teacher; `counted`: room for the
        places of tokens that count; 0, or the length, for all tokens, which takes most memory."""
        count, length = size
        tokens = jax.ShapeDtypeStruct((count, *shape, length), np.int32)
        weights = jax.ShapeDtypeStruct((count, *shape, length), np.float32)
        valid = jax.ShapeDtypeStruct((count,), np.bool_)
        expected = distill.Targets(
            *(jax.ShapeDtypeStruct((*tokens.shape, targets), kind) for kind in (np.int32, np.float32))
        )
        places = jax.ShapeDtypeStruct((count, *shape, counted), np.int32)
        batch = sft.Batch(tokens, weights, valid, expected if targets else None, places if counted % length else None)
        return self.layout.put_candidates((jax.ShapeDtypeStruct((count,), np.int32), batch))

    def blank_step(self, base: dict, recipe: Recipe, lanes: Lanes, size: tuple[int, int]) -> Call:
        """The `step` of a chunk with so many lanes, on structs; `size` as in `blank_batch`."""
        numbers = [jax.ShapeDtypeStruct((lanes.total,), kind) for kind in (np.float32, np.int32, np.int32)]
        hyper = self.layout.put_candidates(sft.Hyper(*numbers))
        targets = recipe.distillation.top_k if recipe.distillation else 0
        batch = self.blank_batch((recipe.accumulation, recipe.batch_size), size, targets)
        frozen = {"params": base}
        if recipe.lora.freeze_a:
            shared = self.shared(base, jax.ShapeDtypeStruct((1,), np.uint32), recipe)
            frozen["shared"] = self.layout.put_weights(jax.eval_shape(shared.function, *shared.args))
        return self.step(frozen, self.blank_state(base, lanes.total, recipe), hyper, recipe, batch)

    # Outer SFT: one model on all devices

    def init_teaching(self, base: dict, seed, recipe: Recipe) -> Call:
        """Training state of one fresh adapter, or of all weights, before the first step."""
        full, layout = recipe.lora is None, self.layout

        def run(base, seed):
            key = fold_key(seed)
            what = {"params": masters(base, key)} if full else {"lora": init_adapter(key, base, recipe.lora)}
            return layout.constrain(sft.init_state(recipe.optimizer, what), spread=full)

        return self._call(("init teaching", recipe), run, (base, seed))

    def blank_teaching(self, base: dict, recipe: Recipe) -> sft.State:
        """The result of `init_teaching`, as structs."""
        init = self.init_teaching(base, jax.ShapeDtypeStruct((1,), np.uint32), recipe)
        shapes = jax.eval_shape(init.function, *init.args)
        return self.layout.put_weights(shapes, spread=recipe.lora is None)

    def teach(self, base: dict, state: sft.State, hyper: sft.Hyper, recipe: Recipe, batch: sft.Batch) -> Call:
        """One optimizer step of one model -> (state, loss); batch.tokens [A, B, T] with B split over the devices."""
        step = functools.partial(sft.sft_step, self._teaching(base, recipe, batch.tokens))
        return self._one_model(("teach", recipe), step, base, state, (batch, hyper))

    def prefer(
        self, base: dict, state: sft.State, hyper: sft.Hyper, recipe: Recipe, batch: dpo.Pairs, beta: float
    ) -> Call:
        """One step of DPO of one model -> (state, loss); batch.tokens [A, B, 2, T], B split over the devices."""
        step = functools.partial(dpo.dpo_step, dpo.Program(self._teaching(base, recipe, batch.tokens), beta))
        return self._one_model(("prefer", beta, recipe), step, base, state, (batch, hyper))

    def reinforce(
        self, base: dict, state: sft.State, hyper: sft.Hyper, recipe: Recipe, batch: policy_gradient.Batch, how:
        Objective
    ) -> Call:
        """One step of policy gradients of one model -> (state, loss); batch.tokens [A, B, T], B over the devices."""
        teaching = self._teaching(base, recipe, batch.tokens)
        program = policy_gradient.Program(teaching, how.clip, how.kl, how.normaliser, how.longest)
        step = functools.partial(policy_gradient.policy_gradient_step, program)
        return self._one_model(("reinforce", how, recipe), step, base, state, (batch, hyper))

    def _teaching(self, base: dict, recipe: Recipe, tokens) -> sft.Program:
        on_device = tokens.size // tokens.shape[0] // self.layout.devices
        model = Transformer(self.config, 1.0 if recipe.lora is None else recipe.lora.scale, self._remat(on_device))
        dtype = base["embed"]["embedding"].dtype.name
        return sft.Program(model, recipe.optimizer, self.chunk(on_device // tokens.shape[-1]), dtype=dtype)

    def _one_model(self, static: tuple, step: Callable, base: dict, state: sft.State, data: tuple) -> Call:
        """step(frozen, state, *data) -> (state, loss) of an adapter, or of all weights, spread over the devices."""
        full = "params" in state.trainable

        def run(frozen, state, *data):
            state, value = step(frozen, state, *data)
            return self.layout.constrain(state, spread=full), value

        frozen = {} if full else {"params": base}
        return self._call((*static, self.settings.remat), run, (frozen, state, *data), donate=(1,))

    # Adapters as a whole

    def merge(self, base: dict, adapter: dict, lora: LoraConfig) -> Call:
        """The base with the effect of one adapter (without an axis of lanes) added to its weights."""

        def run(base, adapter):
            return self.layout.constrain(merge(base, adapter, lora))

        return self._call(("merge", lora), run, (base, adapter))

    def join(self, order, parts: Sequence[dict]) -> Call:
        """Adapters whose lane i is lane order[i] of all parts' lanes, counted through."""

        def run(order, *parts):
            joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts)
            return self.layout.constrain(joined, candidates=True)

        return self._call(("join",), run, (order, *parts))

    # Generation and scoring

    def prefill(
        self, weights: Weights, prompts: tuple, rules: Sampling, slots: int, constraint: Constraint | None = None
    ) -> Call:
        """Read prompts, (tokens [C, Q, T], start [C, Q], seeds [C, Q·K, n]), and choose the first tokens.

        Gives (Decoding with room for so many new tokens, a PRNG key for each row [C, Q·K]).
        """
        model = self.model(weights.scale)

        def one(base, extra, tokens, start, seeds, constraint):
            keys = jax.vmap(fold_key)(seeds)
            read, logits = sampling.prefill(model, {"params": base, **extra}, tokens, start)
            return sampling.begin(read, logits, keys, slots, rules, constraint), keys

        mapped = map_candidates(one, (None, 0, 0, 0, 0, None), (DECODING_AXES, 0), self.layout)

        def run(*args):
            state, keys = mapped(*args)
            keep, cache = self.layout.constrain_heads, state.cache
            prompts = cache.prompts._replace(k=keep(cache.prompts.k, 3), v=keep(cache.prompts.v, 3))
            return state._replace(cache=cache._replace(prompts=prompts, k=keep(cache.k, 4), v=keep(cache.v, 4))), keys

        args = weights.base, weights.extra, *prompts, constraint
        return self._call(("prefill", weights.scale, rules, slots), run, args)

    def decode(
        self, weights: Weights, state: Decoding, keys, rules: Sampling, until, constraint: Constraint | None = None
    ) -> Call:
        """Decode all rows until `until` tokens are written -> Decoding."""
        early = self.layout.model == 1  # devices that share a model must all take the same number of steps
        decoder = Decoder(self.model(weights.scale), rules, early)

        def loop(base, extra, state, keys, until, constraint):
            return sampling.decode(decoder, {"params": base, **extra}, state, keys, until, constraint)

        split = split_candidates(loop, (None, 0, DECODING_AXES, 0, None, None), DECODING_AXES, self.layout)
        args = weights.base, weights.extra, state, keys, self.layout.put(until), constraint
        return self._call(("decode", weights.scale, rules), split, args, donate=(2,))

    def choose(self, tree, order, axis: int, heads: int = 0) -> Call:
        """What stands at the places order [C, n] along an axis of leaves [C, ...]; `heads` is the axis that is split
        along 'model', where one is."""

        def one(tree, order):
            return jax.tree.map(lambda leaf: jnp.take(leaf, order, axis - 1), tree)

        mapped = map_candidates(one, (0, 0), 0, self.layout)

        def run(tree, order):
            return jax.tree.map(lambda leaf: self.layout.constrain_heads(leaf, heads), mapped(tree, order))

        return self._call(("choose", axis, heads), run, (tree, order))

    def extend(self, tree, size: int, axis: int, heads: int = 0) -> Call:
        """Leaves [C, ...] with zeros behind them, so that this axis has that size; `heads` as in `choose`."""

        def one(leaf):
            more = [(0, size - length if place == axis else 0) for place, length in enumerate(leaf.shape)]
            return self.layout.constrain_heads(jnp.pad(leaf, more), heads)

        return self._call(("extend", size, axis, heads), functools.partial(jax.tree.map, one), (tree,))

    def score(self, weights: Weights, tokens, mask, places=None) -> Call:
        """Log-likelihood [C, Q] of the masked tokens of rows [C, Q, T]; their places [C, Q, P], as in inner/loss.py."""
        model, chunk = self.model(weights.scale), self._chunk_of(tokens)

        def score(base, extra, tokens, mask, places):
            return loss.log_likelihood(model, {"params": base, **extra}, tokens, mask, chunk, places)

        mapped = map_candidates(score, (None, 0, 0, 0, None if places is None else 0), 0, self.layout)
        return self._call(("score", weights.scale), mapped, (weights.base, weights.extra, tokens, mask, places))

    def score_tokens(self, weights: Weights, tokens) -> Call:
        """Log-probability [C, Q, T-1] of every token but the first of rows [C, Q, T]."""
        model, chunk = self.model(weights.scale), self._chunk_of(tokens)

        def score(base, extra, tokens):
            return loss.token_log_probs(model, {"params": base, **extra}, tokens, chunk)

        mapped = map_candidates(score, (None, 0, 0), 0, self.layout)
        return self._call(("score tokens", weights.scale), mapped, (weights.base, weights.extra, tokens))

    def expect(self, base: dict, tokens, places, how: Distillation) -> Call:
        """What the base expects at places [C, Q, P] of tokens [C, Q, T] -> distill.Targets [C, Q, P, K]."""
        model, chunk = self.model(1.0), self._chunk_of(tokens)

        def expect(base, tokens, places):
            return distill.teacher_targets(model, base, tokens, places, (how, chunk))

        mapped = map_candidates(expect, (None, 0, 0), 0, self.layout)
        return self._call(("expect", how), mapped, (base, tokens, places))

    def _call(self, static: tuple, function: Callable, args: tuple, donate: tuple[int, ...] = ()) -> Call:
        """A call whose program depends on these values, and on what all programs of the engine may depend on."""
        of_all = self.config, self.layout, self.settings.attention, self.settings.loss_chunk
        return Call((*static, *of_all), function, args, donate)

    def _chunk_of(self, tokens) -> int:
        """`chunk` for rows [C, Q, T] that the devices share."""
        return self.chunk(tokens.shape[0] * tokens.shape[1] // self.layout.devices)


def fold_key(seed: jax.Array) -> jax.Array:
    """A PRNG key from a vector of integers [n]."""
    key = jax.random.key(0)
    for place in range(seed.shape[0]):
        key = jax.random.fold_in(key, seed[place])
    return key
