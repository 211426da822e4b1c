"""The programs that a round of a config runs, as calls that can be compiled, and how often each is called."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import numpy as np

from seal_jax.config import Config
from seal_jax.engine import packing
from seal_jax.engine.engine import Engine
from seal_jax.engine.memory import on_device
from seal_jax.engine.packing import Lanes
from seal_jax.engine.programs import Call
from seal_jax.engine.recipe import recipe
from seal_jax.engine.room import course
from seal_jax.engine.weights import Weights
from seal_jax.fitting.roofline import Part, Work
from seal_jax.fitting.workload import Workload, at, mean, training_slots
from seal_jax.inner import dpo, sft
from seal_jax.inner.sampling import Sampling
from seal_jax.model.lora import init_adapter
from seal_jax.model.transformer import REMAT


@dataclass(frozen=True)
class Program:
    """One program. read: bytes of weights that it reads on one chip; trains: whether it writes its donated state;
    written: bytes of the keys and values of tokens that it decoded. remat: what of the blocks a training step computes
    again, a kind of REMAT. busy: of its rows, and of their slots, the shares that its calls have on average."""

    name: str
    call: Call
    read: float
    trains: bool = False
    written: float = 0.0
    remat: str = ""
    busy: tuple[float, float] = (1.0, 1.0)

    @property
    def moved(self) -> float:
        """Bytes that its arguments take more while slots are added, between its calls: the keys, and then the values,
        are there again in half their size."""
        return self.written / 4


LINE, PASSAGE, LONGEST = "inner step, a line", "inner step, a passage", "inner step, longest"
EDIT_PREFILL, EDIT_DECODE = "self-edits, prefill", "self-edits, a token"
ANSWER_PREFILL, ANSWER_DECODE, SCORE = "answers, prefill", "answers, a token", "answers, score"
TEACH, MERGE = "outer SFT step", "merge"
TRAINING = LINE, PASSAGE, LONGEST, TEACH
INNER = {LINE: "line", PASSAGE: "passage"}  # steps of inner loops that are counted, and their fields of the workload


@dataclass(frozen=True)
class Plan:
    """A config, its engine, base weights as structs, and the assumed workload."""

    config: Config
    engine: Engine
    base: dict
    load: Workload = Workload()

    @property
    def candidates(self) -> int:
        return self.config.engine.candidates

    @property
    def asks(self) -> bool:
        """Whether answers are generated for the reward."""
        return self.config.reward.accuracy_weight > 0

    @property
    def asked_chunks(self) -> int:
        """Chunks whose candidates are asked together."""
        each = self.load.questions if self.asks else 1
        return max(1, self.config.engine.question_rows // (self.candidates * each))

    @property
    def asked_rows(self) -> int:
        """Questions that each candidate is asked at a time; `config.engine.answer_rows` bounds those of all."""
        rows = self.config.engine.question_rows // (self.candidates * self.asked_chunks)
        return min(self.load.questions, max(1, rows))

    @property
    def per_sampling(self) -> int:
        """Passages whose self-edits are sampled together."""
        return min(self.config.data.train_items, max(1, self.config.engine.decode_rows // self.config.outer.samples))

    def choices(self, name: str) -> list["Plan"]:
        """The plans of which the first whose program of that name fits is the one that a run goes by: where
        `config.engine.remat` is 'auto', training steps compute again as little as the memory allows."""
        if self.config.engine.remat != "auto" or name not in TRAINING:
            return [self]
        return [self.recomputing(remat) for remat in REMAT]

    def recomputing(self, remat: str) -> "Plan":
        """The same, with training steps that compute that again."""
        settings = replace(self.config.engine, remat=remat)
        return replace(
            self, config=replace(self.config, engine=settings), engine=replace(self.engine, settings=settings)
        )

    def programs(self) -> dict[str, Callable[[dict], Program]]:
        """Functions that make the programs, by name, in the order to compile them.

        Each takes the programs so far, {name: (Program, compiled)}: decoding needs the compiled prefill.
        """
        makers = {
            LONGEST: lambda done: self.inner_step(LONGEST, self.load.longest),
            PASSAGE: lambda done: self.inner_step(PASSAGE, self.load.passage),
            LINE: lambda done: self.inner_step(LINE, self.load.line),
            EDIT_PREFILL: lambda done: self.prefill(EDIT_PREFILL),
            EDIT_DECODE: lambda done: self.decode(EDIT_DECODE, done[EDIT_PREFILL]),
        }
        if self.asks:
            makers[ANSWER_PREFILL] = lambda done: self.prefill(ANSWER_PREFILL)
            makers[ANSWER_DECODE] = lambda done: self.decode(ANSWER_DECODE, done[ANSWER_PREFILL])
        makers[SCORE] = lambda done: self.score()
        makers[TEACH] = lambda done: self.outer_step()
        if self.config.outer.sft.rank:
            makers[MERGE] = lambda done: self.merge()
        return makers

    def inner_step(self, name: str, length: int) -> Program:
        how, lanes = recipe(self.config.inner), Lanes.holding(self.candidates, self.engine.layout.devices)
        length = packing.bucket(length)
        call = self.engine.calls.blank_step(self.base, how, lanes, (lanes.total, length))
        read = self._read_in_training(lanes.each * how.batch_size, length)
        return Program(name, call, read * how.accumulation, trains=True, remat=self.config.engine.remat)

    def outer_step(self) -> Program:
        how, outer = recipe(self.config.outer.sft), self.config.outer
        calls, put = self.engine.calls, self.engine.layout.put
        size, length = how.batch_size * self.engine.layout.devices, packing.bucket(self.load.lesson)
        rows, sides = (-(-how.batch // size), size), (2,) if outer.improver == "dpo" else ()
        shape = *rows, *sides, length
        tokens, weights = put((_struct(np.int32, *shape), _struct(np.float32, *shape)), None, "candidate")
        args = self.base, calls.blank_teaching(self.base, how)
        hyper = put(sft.Hyper(_struct(np.float32), _struct(np.int32), _struct(np.int32)))
        if sides:
            numbers = put((_struct(np.float32, *rows),) * 2, None, "candidate")
            pairs = dpo.Pairs(tokens, weights, *numbers, put(_struct(np.bool_)))
            call = calls.prefer(*args, hyper, how, pairs, outer.dpo.beta)
        else:
            call = calls.teach(*args, hyper, how, sft.Batch(tokens, weights, put(_struct(np.bool_))))
        read = self._read_in_training(how.batch_size * math.prod(sides), length, how.lora is not None)
        return Program(TEACH, call, read * rows[0], trains=True, remat=self.config.engine.remat)

    def prefill(self, name: str) -> Program:
        sampling, load = self.config.sampling, self.load
        if name == EDIT_PREFILL:
            lanes = Lanes(self.engine.layout.devices, self.engine.layout.devices)
            rows, samples = packing.row_bucket(-(-self.per_sampling // lanes.devices)), self.config.outer.samples
            room, length, numbers = sampling.max_new_tokens, load.prompt, 6
        else:
            lanes, rows, samples = self._asked_lanes(), packing.row_bucket(self.asked_rows), 1
            room, length, numbers = self.config.reward.answer_tokens, load.question, 1
        prompts = (
            _struct(np.int32, lanes.total, rows, packing.bucket(length)),
            _struct(np.int32, lanes.total, rows),
            _struct(np.uint32, lanes.total, rows * samples, numbers),
        )
        weights, rules = self._weights(name == ANSWER_PREFILL), self._rules(name == ANSWER_PREFILL)
        prompts = self.engine.layout.put_candidates(prompts)
        call = self.engine.calls.prefill(weights, prompts, rules, packing.bucket(room))
        return Program(name, call, self._read())

    def decode(self, name: str, prefill: tuple[Program, jax.stages.Compiled]) -> Program:
        """One token of every row, from the state that the compiled prefill returns: with all rows and all slots that
        there may be."""
        program, compiled = prefill
        shapes = jax.eval_shape(program.call.function, *program.call.args)
        state, keys = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes, compiled.output_shardings,
        )  # fmt: skip
        weights, rules = self._weights(name == ANSWER_DECODE), self._rules(name == ANSWER_DECODE)
        call = self.engine.calls.decode(weights, state, keys, rules, _struct(np.int32))
        written = on_device({"k": state.cache.k, "v": state.cache.v})
        busy = (1.0, 1.0) if name == ANSWER_DECODE else self.decoding()[1:]
        return Program(name, call, self._read(), written=written, busy=busy)

    def decoding(self) -> tuple[int, float, float]:
        """(steps, share of the rows, share of all their slots) in which self-edits of the assumed lengths are decoded,
        the shares on average over the steps."""
        settings, samples = self.config.engine, self.config.outer.samples
        devices, limit = self.engine.layout.devices, self.config.sampling.max_new_tokens
        prompts = packing.row_bucket(-(-self.per_sampling // devices))
        count = self.per_sampling * samples
        rows = np.pad(np.minimum(self.load.written(count), limit), (0, prompts * devices * samples - count))
        rows = rows.reshape(prompts, devices, samples).swapaxes(0, 1).reshape(devices, -1)
        found = np.array(list(course(rows, samples, self.load.prompt, limit, settings.segment))).reshape(-1, 3)
        steps, most = int(found[:, 0].sum()), rows.shape[1]
        total = max(steps, 1)
        share = (found[:, 0] * found[:, 1]).sum() / (total * most)
        return steps, share, found.prod(axis=1).sum() / (total * most * packing.bucket(limit))

    def training(self) -> tuple[dict[str, float], float]:
        """(calls of INNER in a round, share of real tokens): what the engine's plan for the assumed lengths has of
        token slots, as calls with all candidates of the one whose length is nearer. The step on the longest sequences
        is not counted, since it recomputes more than their few candidates need."""
        how, devices = recipe(self.config.inner), self.engine.layout.devices
        slots, real = self._training_slots
        sizes = {name: packing.bucket(getattr(self.load, field)) for name, field in INNER.items()}
        calls = dict.fromkeys(sizes, 0.0)
        for length, count in slots.items():
            name = min(sizes, key=lambda name, length=length: abs(math.log(sizes[name] / length)))
            each = Lanes.holding(self.candidates, devices).total * sizes[name] * how.batch
            calls[name] += self.config.reward.retrains * count / each
        return calls, real / sum(slots.values())

    @functools.cached_property
    def _training_slots(self) -> tuple[dict[int, int], int]:
        """(`training_slots`, real tokens in them) of one inner loop on every self-edit of a round."""
        config = self.config
        count = config.data.train_items * config.outer.samples
        loops = self.load.loops(count, config.inner.epochs, config.knowledge.max_sequences)
        groups, devices = config.engine.length_groups, self.engine.layout.devices
        slots = training_slots(loops, recipe(config.inner), self.candidates, devices, groups)
        return slots, sum(config.inner.epochs * len(row.tokens) for loop in loops for row in loop.rows)

    def score(self) -> Program:
        lanes, rows = self._asked_lanes(), packing.row_bucket(self.asked_rows)
        shape = lanes.total, rows, packing.bucket(self.load.question)
        arrays = self.engine.layout.put_candidates((_struct(np.int32, *shape), _struct(np.float32, *shape)))
        read = self._read(1, self._head_chunks(lanes.each * rows, shape[2]))
        return Program(SCORE, self.engine.calls.score(self._weights(True), *arrays), read)

    def merge(self) -> Program:
        lora = recipe(self.config.outer.sft).lora
        adapter = jax.eval_shape(lambda base: init_adapter(jax.random.key(0), base, lora), self.base)
        call = self.engine.calls.merge(self.base, self.engine.layout.put(adapter), lora)
        return Program(MERGE, call, on_device(self.base))

    def parts(self, work: dict[str, Work]) -> list[Part]:
        """The round: every program with the number of its calls; `work`: of one call of each program."""
        config, load, passages = self.config, self.load, self.config.data.train_items
        candidates = passages * config.outer.samples
        chunks = config.reward.retrains * math.ceil(candidates / self.candidates)
        samplings = math.ceil(passages / self.per_sampling)
        askings = math.ceil(chunks / self.asked_chunks) * math.ceil(load.questions / self.asked_rows)
        outer, lessons = config.outer.sft, candidates if config.outer.improver == "weighted" else passages
        calls = {
            EDIT_PREFILL: samplings,
            EDIT_DECODE: samplings * self.decoding()[0],
            **self.training()[0],
            ANSWER_PREFILL: askings,
            ANSWER_DECODE: askings * config.reward.answer_tokens,
            SCORE: askings,
            TEACH: outer.epochs * math.ceil(lessons / (outer.batch_size * outer.accumulation)),
            MERGE: 1,
        }
        return [Part(name, work[name], count) for name, count in calls.items() if name in work and count]

    def assumptions(self) -> list[str]:
        """What the estimate of a round assumes, as sentences."""
        load, config = self.load, self.config
        loops = config.data.train_items * config.outer.samples * config.reward.retrains
        return [
            f"{loops} inner loops: {config.data.train_items} passages × {config.outer.samples} self-edits × "
            f"{config.reward.retrains} retrains, each {config.inner.epochs} epochs of a passage of "
            f"{mean(load.passages):.0f} tokens and lines of {mean(load.lines):.0f} on average, in token slots of which "
            f"{self.training()[1]:.0%} are real",
            f"self-edits of {mean(load.edits):.0f} tokens on average, half of which have no more than "
            f"{at(load.edits, 0.5):.0f}; rows that are done leave",
            f"{load.questions} questions to a passage, of {load.question} tokens, each answered with "
            f"{config.reward.answer_tokens}",
            "every resource at the chip's peak, and the slowest of FLOPs, HBM and interconnect counts: runs are slower",
            "HBM: blocks once for each pass over them and the head for each chunk of the loss, other arguments and "
            "results once, temporaries twice",
            "interconnect: the chips of a group form a ring, a pair has one link; 1 µs a hop",
            "not counted: the host, judging, compiling, loading, and the evaluation rows",
        ]

    def _read_in_training(self, rows: int, length: int, adapter: bool = True) -> float:
        """Bytes of weights read for one gradient of so many rows on a device: in the forward and the backward pass, and
        for what is computed again, such as the head where it is trained."""
        passes = 3 if self.config.engine.remat == "full" else 2
        return self._read(passes, (2 if adapter else 3) * self._head_chunks(rows, length))

    def _read(self, passes: int = 1, heads: int = 1) -> float:
        """Bytes of weights in so many passes over the blocks and uses of the head (the embedding table is only looked
        up and not counted)."""
        head = on_device(self.base.get("lm_head", self.base["embed"]))
        return passes * on_device(self.base["layers"]) + heads * head

    def _head_chunks(self, rows: int, length: int) -> int:
        """Chunks of positions in which the head is applied to so many rows of a device, all of whose tokens count."""
        return -(-(length - 1) // self.engine.calls.chunk(rows))

    def _asked_lanes(self) -> Lanes:
        return Lanes.holding(self.candidates * self.asked_chunks, self.engine.layout.devices)

    def _rules(self, answers: bool) -> Sampling:
        stops = (0, 1)
        sampling = self.config.sampling
        return Sampling(0.0, 1.0, 0, stops) if answers else Sampling(
            sampling.temperature, sampling.top_p, sampling.top_k, stops
        )  # fmt: skip

    def _weights(self, adapted: bool) -> Weights:
        """The base alone, or with the adapters of the candidates that are asked together."""
        if not adapted:
            return Weights(self.base)
        how = recipe(self.config.inner)
        how = replace(how, lora=replace(how.lora, freeze_a=False))  # what is asked has both factors
        state = self.engine.calls.blank_state(self.base, self._asked_lanes().total, how)
        return Weights(self.base, state.trainable["lora"], how.lora)


def _struct(dtype, *dims) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)
