"""What a teacher expects at each token of training sequences: read once before training, and kept with the rows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seal_jax.engine import packing
from seal_jax.engine.calls import Calls
from seal_jax.engine.packing import Row
from seal_jax.engine.programs import Programs
from seal_jax.inner.distill import Distillation
from seal_jax.parallel import fetch


def with_targets(
    calls: Calls, programs: Programs, base: dict, rows: Sequence[Row], how: Distillation
) -> dict[Row, Row]:
    """Those of the rows that have a teacher, each with the targets of their texts: {row: the same with targets}.

    The teacher is the base, which reads `row.teacher` and then the row's text. At most `config.engine.decode_rows`
    sequences, of similar length, are in work at once.
    """
    wanted = sorted({row for row in rows if row.teacher}, key=lambda row: (_length(row), row.tokens))
    limit, found = calls.settings.decode_rows, {}
    for begin in range(0, len(wanted), limit):
        part = wanted[begin : begin + limit]
        tokens, places = _fill(part, calls.layout.devices)
        arrays = calls.layout.put_candidates((tokens, places))
        ids, probs = map(fetch, programs.run(calls.expect(base, *arrays, how)))
        for number, row in enumerate(part):
            lane, place, count = *divmod(number, tokens.shape[1]), len(row.text)
            found[row] = replace(row, targets=(ids[lane, place, :count], probs[lane, place, :count]))
    return found


def _fill(rows: Sequence[Row], devices: int) -> tuple[np.ndarray, np.ndarray]:
    """What the teacher reads, tokens [devices, Q, T], and the places of the texts' tokens in it [devices, Q, P].

    Row number n is query n % Q of device n // Q. Places of padding are 1.
    """
    queries = packing.row_bucket(-(-len(rows) // devices))
    tokens = np.zeros((devices * queries, packing.bucket(max(map(_length, rows)))), np.int32)
    places = np.ones((len(tokens), packing.bucket(max(len(row.text) for row in rows))), np.int32)
    for number, row in enumerate(rows):
        text = row.text
        tokens[number, : _length(row)] = row.teacher + text
        places[number, : len(text)] = len(row.teacher) + np.arange(len(text))
    return tokens.reshape(devices, queries, -1), places.reshape(devices, queries, -1)


def _length(row: Row) -> int:
    return len(row.teacher) + len(row.text)
