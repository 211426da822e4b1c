"""Sampling texts and scoring them: prompts and rows on the host become arrays, and arrays become samples again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from seal_jax.engine import packing
from seal_jax.engine.batches import Place, by_length
from seal_jax.engine.calls import Calls
from seal_jax.engine.packing import Lanes, Row
from seal_jax.engine.programs import Programs
from seal_jax.engine.weights import Weights
from seal_jax.inner.sampling import Constraint, Sampling
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


class _Rows(NamedTuple):
    """Prompts as arrays: tokens [C, Q, T] padded on the left up to slot start [C, Q], seeds [C, Q·K, n].

    padding [C, Q·K]: rows that hold no sample. places: (candidate, prompt, lane, row) of every sample.
    """

    tokens: np.ndarray
    start: np.ndarray
    seeds: np.ndarray
    padding: np.ndarray
    places: list[tuple[int, int, int, int]]


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
    """The same in one batch."""
    layout, rules, max_new = calls.layout, generation.rules, generation.max_new
    constraint = _constraint(generation, layout)
    rows = _fill_rows(weights, prompts, seeds, layout)
    arrays = layout.put_candidates((rows.tokens, rows.start, rows.seeds))
    room = packing.bucket(max_new)
    state, keys = programs.run(calls.prefill(weights, arrays, rules, room, constraint))
    state = state._replace(done=layout.put_candidates(fetch(state.done) | rows.padding))
    ends = np.full(rows.padding.shape, max_new)
    stopped = np.zeros(rows.padding.shape, bool)
    until = 1
    programs.activity.show("token", max_new, lambda: until, even=False)
    while until < max_new and not fetch(state.done).all():
        until = min(until + calls.settings.segment, max_new)
        state = programs.run(calls.decode(weights, state, keys, rules, np.int32(until), constraint))
        if generation.stopped is not None:
            done, written = np.array(fetch(state.done)), fetch(state.tokens)
            for _, _, lane, row in rows.places:
                if not done[lane, row] and generation.stopped(written[lane, row, :until].tolist()):
                    done[lane, row], stopped[lane, row], ends[lane, row] = True, True, until
            state = state._replace(done=layout.put_candidates(done))
    tokens, log_probs = fetch(state.tokens)[:, :, :until], fetch(state.log_probs)[:, :, :until]
    programs.activity.restore()
    out: list[list[list[Sample]]] = [[[] for _ in lane] for lane in prompts]
    for c, q, lane, row in rows.places:
        end = ends[lane, row]
        texts = tokens[lane, row, :end].tolist(), log_probs[lane, row, :end].tolist()
        out[c][q].append(_cut(*texts, rules.stop_ids, bool(stopped[lane, row])))
    return out


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
    rows = []
    for (c, q), (lane, place) in places.items():
        prompt = prompts[c][q]
        tokens[lane, place, length - len(prompt) :] = prompt
        start[lane, place] = length - len(prompt)
        for k in range(samples):
            row = place * samples + k
            seed_array[lane, row], padding[lane, row] = seeds[c][q][k], False
            rows.append((c, q, lane, row))
    return _Rows(tokens, start, seed_array, padding, rows)


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
