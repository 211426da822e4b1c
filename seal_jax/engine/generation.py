"""Sampling texts and scoring them: prompts and rows on the host become arrays, and arrays become samples again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from seal_jax.engine import packing, room
from seal_jax.engine.batches import Place, by_length
from seal_jax.engine.calls import Calls
from seal_jax.engine.packing import Lanes, Row
from seal_jax.engine.programs import Call, Programs
from seal_jax.engine.weights import Weights
from seal_jax.inner.sampling import Constraint, Decoding, Sampling
from seal_jax.model.transformer import Prompts
from seal_jax.parallel import Layout, fetch

# What one more batch costs, in token slots of prompts that could be read meanwhile: each decoding step of its own, for
# which all weights are read again; in scoring, most of the time that it takes to compile one more program.
STEP = 64
SCORING = 1024


@dataclass(frozen=True)
class Generation:
    """How texts are generated: the sampling rules, the greatest number of new tokens, and what else may end a text.

    stopped: is given the tokens of a row after every segment of `config.engine.segment` tokens; True ends the row.
    grammar: a domains.arc.grammar.Grammar, whose stop tokens are among those of the rules; every text is then a whole
    text of the grammar, and a `max_new` too small for one raises UserError.
    """

    rules: Sampling
    max_new: int
    stopped: Callable[[list[int]], bool] | None = None
    grammar: Any = None


@dataclass(frozen=True)
class Sample:
    """One generated text.

    tokens: those before the stop token. stop: the stop token that ended it, if one did. stopped: whether
    `Generation.stopped` ended it. log_probs: of each sampled token, the stop token included, the natural
    log-probability under the model's full next-token distribution at temperature 1, before top-k, top-p and grammar.
    """

    tokens: list[int]
    log_probs: list[float]
    stop: int | None
    stopped: bool

    @property
    def finished(self) -> bool:
        """Whether the text came to an end, and was not cut off at `max_new` tokens."""
        return self.stop is not None or self.stopped


Spot = tuple[int, int, int]  # (candidate, prompt, number among the samples of the prompt)


class _Rows(NamedTuple):
    """Prompts as arrays: tokens [C, Q, T] padded on the left up to slot start [C, Q], seeds [C, Q·K, n].

    padding [C, Q·K]: rows that hold no sample. spots: the sample of each row that does, by (lane, row).
    """

    tokens: np.ndarray
    start: np.ndarray
    seeds: np.ndarray
    padding: np.ndarray
    spots: dict[tuple[int, int], Spot]


def generate(
    calls: Calls,
    programs: Programs,
    weights: Weights,
    prompts: Sequence[Sequence[list[int]]],
    seeds: Sequence[Sequence[Sequence[tuple[int, ...]]]],
    generation: Generation,
) -> list[list[list[Sample]]]:
    """Samples [c][q][k] that continue the prompts [c][q]; see `Engine.generate`.

    Prompts of very different lengths are decoded in several batches, whose decoding steps cannot be shared.
    """

    def run(weights: Weights, places: list[list[Place]]) -> list[list[list[Sample]]]:
        asked = [[prompts[c][q] for c, q in lane] for lane in places]
        numbers = [[seeds[c][q] for c, q in lane] for lane in places]
        return _together(calls, programs, weights, asked, numbers, generation)

    lengths = [[len(prompt) for prompt in lane] for lane in prompts]
    return by_length(calls, programs, weights, lengths, STEP * generation.max_new, run)


def _together(
    calls: Calls, programs: Programs, weights: Weights, prompts: Sequence, seeds: Sequence, generation: Generation
) -> list[list[list[Sample]]]:
    """The same in one batch. Rows leave it when so many are done that it can be made smaller (see room.py)."""
    layout, rules, max_new = calls.layout, generation.rules, generation.max_new
    constraint = _constraint(generation, layout)
    filled = _fill_rows(weights, prompts, seeds, layout)
    spots, samples = filled.spots, filled.seeds.shape[1] // filled.tokens.shape[1]
    slots = room.first_slots(filled.padding.size // layout.devices, max_new)
    arrays = layout.put_candidates((filled.tokens, filled.start, filled.seeds))
    state, keys = programs.run(calls.prefill(weights, arrays, rules, slots, constraint))
    done = fetch(state.done) | filled.padding
    state = state._replace(done=layout.put_candidates(done))
    found: dict[Spot, Sample] = {}
    stopped: dict[Spot, int] = {}  # after how many tokens
    until = 1
    programs.activity.show("token", max_new, lambda: until, even=False)
    while until < max_new and not done.all():
        fewer = room.remaining(~done, samples, (filled.tokens.shape[2], slots), room.ahead(until, max_new))
        if fewer is not None:
            gone = {place: spot for place, spot in spots.items() if done[place]}
            found |= _samples(state, gone, until, stopped, rules.stop_ids)
            state, keys = _leave(calls, programs, state, keys, fewer)
            old = {place: fewer.rows[place] for place in zip(*np.nonzero(~fewer.padding), strict=True)}
            spots, samples = {(lane, row): spots[lane, own] for (lane, row), own in old.items()}, fewer.samples
        until = min(until + calls.settings.segment, max_new)
        if until > slots:
            slots = room.enough(slots, until)
            state = _extend(calls, programs, state, slots)
        state = programs.run(calls.decode(weights, state, keys, rules, np.int32(until), constraint))
        done = np.array(fetch(state.done))
        if generation.stopped is not None:
            written = fetch(state.tokens)
            for place, spot in spots.items():
                if not done[place] and generation.stopped(written[place][:until].tolist()):
                    done[place], stopped[spot] = True, until
            state = state._replace(done=layout.put_candidates(done))
    found |= _samples(state, spots, until, stopped, rules.stop_ids)
    programs.activity.restore()
    return [
        [[found[c, q, k] for k in range(len(seeds[c][q]))] for q in range(len(lane))] for c, lane in enumerate(prompts)
    ]


def _leave(
    calls: Calls, programs: Programs, state: Decoding, keys: jax.Array, fewer: room.Remaining
) -> tuple[Decoding, jax.Array]:
    """State and keys of those rows alone that go on."""
    order = calls.layout.put_candidates((fewer.copies.astype(np.int32), fewer.rows.astype(np.int32)))
    copies, rows = order
    cache, prompts = state.cache, state.cache.prompts

    def choose(tree, order, axis, heads=0):
        return _in_place(programs, calls.choose(tree, order, axis, heads))

    prompts = Prompts(
        choose(prompts.k, copies, 2, 3), choose(prompts.v, copies, 2, 3), choose(prompts.start, copies, 1)
    )
    cache = cache._replace(prompts=prompts, k=choose(cache.k, rows, 3, 4), v=choose(cache.v, rows, 3, 4))
    tokens, log_probs, states, keys = choose((state.tokens, state.log_probs, state.states, keys), rows, 1)
    done = calls.layout.put_candidates(fewer.padding)
    return Decoding(cache, tokens, log_probs, state.count, done, states), keys


def _extend(calls: Calls, programs: Programs, state: Decoding, slots: int) -> Decoding:
    """The state with so many slots."""

    def extend(tree, axis, heads=0):
        return _in_place(programs, calls.extend(tree, slots, axis, heads))

    cache = state.cache._replace(k=extend(state.cache.k, 2, 4), v=extend(state.cache.v, 2, 4))
    tokens, log_probs = extend((state.tokens, state.log_probs), 2)
    return state._replace(cache=cache, tokens=tokens, log_probs=log_probs)


def _in_place(programs: Programs, call: Call):
    """The result of a call, whose first argument is given up: of large arrays, one at a time is there twice."""
    result = programs.run(call)
    jax.tree.map(lambda leaf: leaf.delete(), call.args[0])
    return result


def _samples(
    state: Decoding, spots: dict[tuple[int, int], Spot], until: int, stopped: dict[Spot, int], stop_ids: Sequence[int]
) -> dict[Spot, Sample]:
    """The samples of these rows, of which `until` tokens are written, or as many as there were when it was stopped."""
    tokens, log_probs = fetch(state.tokens), fetch(state.log_probs)
    found = {}
    for place, spot in spots.items():
        end = stopped.get(spot, until)
        texts = tokens[place][:end].tolist(), log_probs[place][:end].tolist()
        found[spot] = _cut(*texts, stop_ids, spot in stopped)
    return found


def log_likelihood(
    calls: Calls, programs: Programs, weights: Weights, rows: Sequence[Sequence[Row]]
) -> list[list[float]]:
    """Log-likelihoods [c][q] of the weighted tokens of rows[c][q]; see `Engine.log_likelihood`."""

    def run(weights: Weights, places: list[list[Place]]) -> list[list[float]]:
        return _score(calls, programs, weights, [[rows[c][q] for c, q in lane] for lane in places])

    return by_length(calls, programs, weights, [[len(row.tokens) for row in lane] for lane in rows], SCORING, run)


def _score(calls: Calls, programs: Programs, weights: Weights, rows: Sequence[Sequence[Row]]) -> list[list[float]]:
    """The same in one batch."""
    lanes, places, queries = _place(weights, rows, calls.layout.devices)
    length = packing.bucket(max(len(row.tokens) for lane in rows for row in lane))
    tokens = np.zeros((lanes.total, queries, length), np.int32)
    mask = np.zeros(tokens.shape, np.float32)
    for (c, q), (lane, place) in places.items():
        row = rows[c][q]
        tokens[lane, place, : len(row.tokens)] = row.tokens
        mask[lane, place, : len(row.tokens)] = row.weights
    arrays = calls.layout.put_candidates((tokens, mask, packing.counted_places(mask)))
    out = fetch(programs.run(calls.score(weights, *arrays)))
    return [[float(out[places[c, q]]) for q in range(len(lane))] for c, lane in enumerate(rows)]


def token_log_probs(calls: Calls, programs: Programs, weights: Weights, rows: Sequence[Row]) -> list[np.ndarray]:
    """Log-probabilities of the weighted tokens of each row; see `Engine.token_log_probs`."""
    lanes, places, queries = _place(weights, [rows], calls.layout.devices)
    length = packing.bucket(max(len(row.tokens) for row in rows))
    tokens = np.zeros((lanes.total, queries, length), np.int32)
    for (_, q), (lane, place) in places.items():
        tokens[lane, place, : len(rows[q].tokens)] = rows[q].tokens
    out = fetch(programs.run(calls.score_tokens(weights, calls.layout.put_candidates(tokens))))
    found = []
    for q, row in enumerate(rows):
        counts = np.flatnonzero(row.weights)
        found.append(out[places[0, q]][counts - 1])
    return found


def _constraint(generation: Generation, layout: Layout) -> Constraint | None:
    """The grammar's tables on the devices; None without a grammar."""
    grammar = generation.grammar
    if grammar is None:
        return None
    table = Constraint(grammar.next_state, grammar.deadlines(generation.max_new), np.int32(grammar.start))
    return layout.put(table)


def _fill_rows(weights: Weights, prompts, seeds, layout: Layout) -> _Rows:
    """Prompts [c][q] and the seeds [c][q][k] of their samples as arrays."""
    lanes, places, queries = _place(weights, prompts, layout.devices)
    first = next(samples for lane in seeds for samples in lane)  # a candidate may have no prompt
    samples = len(first)
    length = packing.bucket(max(len(prompt) for lane in prompts for prompt in lane))
    tokens = np.zeros((lanes.total, queries, length), np.int32)
    start = np.full((lanes.total, queries), length - 1, np.int32)
    seed_array = np.zeros((lanes.total, queries * samples, len(first[0])), np.uint32)
    padding = np.ones(seed_array.shape[:2], bool)
    spots = {}
    for (c, q), (lane, place) in places.items():
        prompt = prompts[c][q]
        tokens[lane, place, length - len(prompt) :] = prompt
        start[lane, place] = length - len(prompt)
        for k in range(samples):
            row = place * samples + k
            seed_array[lane, row], padding[lane, row] = seeds[c][q][k], False
            spots[lane, row] = c, q, k
    return _Rows(tokens, start, seed_array, padding, spots)


def _place(weights: Weights, queries: Sequence[Sequence], devices: int) -> tuple[Lanes, dict, int]:
    """(lanes, {(candidate, query): (lane, row)}, rows of a lane); without adapters the devices share the queries."""
    if weights.adapters is None:
        rows = packing.row_bucket(-(-len(queries[0]) // devices))
        places = {(0, q): (q % devices, q // devices) for q in range(len(queries[0]))}
        return Lanes(devices, devices), places, rows
    lanes = Lanes(jax.tree.leaves(weights.adapters)[0].shape[0], devices)
    places = {(c, q): (lanes.of(c), q) for c, lane in enumerate(queries) for q in range(len(lane))}
    return lanes, places, packing.row_bucket(max(len(lane) for lane in queries))


def _cut(tokens: list[int], log_probs: list[float], stop_ids: Sequence[int], stopped: bool) -> Sample:
    """The sample of a row: what is written behind its first stop token is padding."""
    for place, token in enumerate(tokens):
        if token in stop_ids:
            return Sample(tokens[:place], log_probs[: place + 1], token, stopped)
    return Sample(tokens, log_probs, None, stopped)
