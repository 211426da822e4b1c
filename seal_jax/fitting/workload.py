"""The lengths, in tokens, that the estimate of a round assumes: those of 1,000 self-edits that Qwen2.5-7B wrote about
100 passages of SQuAD."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seal_jax.engine import groups
from seal_jax.engine.packing import Candidate, Row
from seal_jax.engine.recipe import Recipe

Quantiles = tuple[tuple[float, int], ...]  # (share of them that have no more, tokens), with a straight line between two
SHARES = (0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 1)


def quantiles(*tokens: int) -> Quantiles:
    """Of SHARES."""
    return tuple(zip(SHARES, tokens, strict=True))


@dataclass(frozen=True)
class Workload:
    """Lengths in tokens, and numbers of sequences.

    Tokens are those of SmolLM2's tokenizer, of self-edits 1.12 times as many, so that they have the mean that is known
    of Qwen's.
    """

    longest: int = 512  # of the longest training sequence, which decides the memory
    passage: int = 192  # steps on sequences of about this length, and of a line's, are what is compiled
    line: int = 32
    passages: Quantiles = quantiles(43, 70, 129, 154, 208, 244, 291, 325, 373)  # of the sequence that is the passage
    lines: Quantiles = quantiles(4, 14, 22, 28, 36, 45, 54, 74, 482)  # of the other training sequences
    edits: Quantiles = quantiles(49, 92, 137, 178, 251, 364, 586, 1361, 2460)  # of a self-edit
    prompt: int = 256  # for a self-edit
    lesson: int = 1024  # prompt and self-edit, in the outer SFT
    questions: int = 5  # of a passage
    question: int = 64  # with its template and, when scored, its answer

    def written(self, count: int) -> np.ndarray:
        """Tokens of so many self-edits, in a random order that is always the same."""
        shares = (np.arange(count) + 0.5) / count
        return np.random.default_rng(0).permutation(at(self.edits, shares)).astype(int)

    def loops(self, count: int, epochs: int, most: int) -> list[Candidate]:
        """Inner loops on so many self-edits: the passage, and lines, at most so many, until there are as many tokens as
        in the self-edit."""
        random, found = np.random.default_rng(1), []
        for tokens in self.written(count):
            lengths = [round(at(self.passages, random.random()))]
            while sum(lengths[1:]) < tokens and len(lengths) <= most:
                lengths.append(round(at(self.lines, random.random())))
            rows = tuple(Row((1,) * length, (1.0,) * length) for length in lengths)
            found.append(Candidate(rows, 1e-3, epochs, 0, seed=(0,), order=(0,)))
        return found


def training_slots(loops: Sequence[Candidate], how: Recipe, together: int, devices: int, limit: int) -> dict[int, int]:
    """{length of the sequences: token slots of all devices} of the calls in which inner loops train, so many at a time
    and in at most `limit` groups of like length, as the engine plans them."""
    slots: dict[int, int] = {}
    for _, parts in groups.plan_all(loops, together, devices, limit, how.batch):
        for part in parts:
            slots[part.length] = slots.get(part.length, 0) + part.width * devices * part.length * how.batch
    return slots


def at(table: Quantiles, shares):
    """The lengths that these shares of all have no more than."""
    return np.interp(shares, *zip(*table, strict=True))


def mean(table: Quantiles) -> float:
    """Of all lengths."""
    return float(np.trapezoid([tokens for _, tokens in table], [share for share, _ in table]))
