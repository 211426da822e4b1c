"""Room for rows that are decoded together: how many slots they have, and which of them go on when others are done.
Host code, numpy only.

A decoding step takes as long for a row that is done, and for slots that are not in use, as for others. To have fewer of
them costs programs, since each number of rows and slots needs one of its own. So both change by factors of two, which
batches of one size share, and only where that is worth a program. The choice depends on the rows alone, not on what was
compiled before.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seal_jax.engine.packing import bucket

# In steps of one row, of SmolLM2-135M on a CPU, where a step takes 6 to 9 ms of a core for each row:
PROGRAM = 512  # what a program costs; to compile one takes 3 to 5 s
SLOTS = 1024  # so many slots that are not in use take as long to read as all else that a step does for a row


class Remaining(NamedTuple):
    """Which rows go on. copies [C, P]: the prompts that they share, `samples` rows to each, side by side; rows
    [C, P·samples]; padding: those of them that hold no row."""

    copies: np.ndarray
    rows: np.ndarray
    padding: np.ndarray
    samples: int


def first_slots(rows: int, limit: int) -> int:
    """Slots of a device's rows at first, where a text has at most `limit` tokens: all that may be needed, or half, a
    quarter, ... of it, as long as those left out would cost more than a program."""
    slots = bucket(limit)
    while slots % 16 == 0 and rows * (slots // 2) ** 2 >= PROGRAM * SLOTS:
        slots //= 2
    return slots


def enough(slots: int, needed: int) -> int:
    """Slots for so many tokens, where there are `slots` now: as many, or double, four times, ... as many."""
    while slots < needed:
        slots *= 2
    return slots


def ahead(until: int, limit: int) -> int:
    """Steps to be expected of rows with so many tokens: texts that are long already may well become longer."""
    return min(until, limit - until)


def course(
    lengths: np.ndarray, samples: int, prompt: int, limit: int, segment: int
) -> Iterator[tuple[int, int, int]]:
    """How a batch is decoded whose texts [C, B] turn out to have so many tokens, 0 where there is none: (steps, rows of
    each lane, slots of each row) between two looks of the host. `samples` and `prompt` as in `remaining`."""
    slots, until = first_slots(lengths.shape[1], limit), 1
    while until < limit and (lengths > until).any():
        fewer = remaining(lengths > until, samples, (prompt, slots), ahead(until, limit))
        if fewer is not None:
            lengths, samples = np.where(fewer.padding, 0, np.take_along_axis(lengths, fewer.rows, 1)), fewer.samples
        begin, until = until, min(until + segment, limit)
        slots = enough(slots, until)
        yield until - begin, lengths.shape[1], slots


def remaining(alive: np.ndarray, samples: int, lengths: tuple[int, int], steps: int) -> Remaining | None:
    """The rows alive [C, B] in a half, a quarter, ... of B where that holds them and is worth a program.

    `samples`: rows that share a prompt, side by side; `lengths`: slots of a prompt, and of what a row has written;
    `steps`: how many steps are still to be expected. Fewer rows to a prompt leave fewer gaps and take more copies of
    prompts; there are never more slots in all than before.
    """
    lanes, before = alive.shape
    counts = alive.reshape(lanes, -1, samples).sum(-1)
    prompt, own = lengths
    most = counts.shape[1] * prompt + before * own
    found = []
    for each in range(1, samples + 1):
        copies, needed = -(-before // each), max(1, int((-(-counts // each)).sum(-1).max()))
        while copies >= 2 * needed:
            copies = -(-copies // 2)
        if copies * (prompt + each * own) <= most:
            found.append((copies * each, copies, each))
    count, copies, each = min(found)
    if (before - count) * steps < max(PROGRAM, 1):
        return None
    out = Remaining(*(np.zeros((lanes, size), int) for size in (copies, count)), np.ones((lanes, count), bool), each)
    for lane, flags in enumerate(alive):
        place = 0
        for prompt, own in enumerate(flags.reshape(-1, samples)):
            rows = np.flatnonzero(own) + prompt * samples
            for begin in range(0, len(rows), each):
                some = rows[begin : begin + each]
                out.copies[lane, place] = prompt
                at = slice(place * each, place * each + len(some))
                out.rows[lane, at], out.padding[lane, at] = some, False
                place += 1
    return out
