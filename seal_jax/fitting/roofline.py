"""The roofline: how long a program, and a round of ReST^EM, takes at least. Of FLOPs, HBM traffic and communication,
each at the chip's peak, the slowest counts."""

from collections.abc import Sequence
from dataclasses import dataclass

from seal_jax.fitting.chips import Chip

HOP = 1e-6  # seconds that a message takes from a chip to the next, at least
TERMS = ("FLOPs", "HBM", "interconnect")


@dataclass(frozen=True)
class Work:
    """What one call asks of one chip: FLOPs, bytes to and from HBM, bytes over one link in one direction, and messages
    between neighbours that wait for each other (hops)."""

    flops: float
    hbm: float
    link: float
    hops: float

    def terms(self, chip: Chip) -> dict[str, float]:
        """Seconds of each term."""
        seconds = self.flops / chip.flops, self.hbm / chip.hbm_bandwidth, self.link / chip.link + self.hops * HOP
        return dict(zip(TERMS, seconds, strict=True))

    def seconds(self, chip: Chip) -> float:
        return max(self.terms(chip).values())

    def limit(self, chip: Chip) -> str:
        """The term that takes longest."""
        terms = self.terms(chip)
        return max(terms, key=terms.get)


@dataclass(frozen=True)
class Part:
    """A part of the round: the work of one call, and the number of calls."""

    name: str
    work: Work
    calls: float


def round_terms(parts: Sequence[Part], chip: Chip) -> dict[str, float]:
    """Seconds of the round by the term that limits each part; their sum is the duration of the round."""
    out = dict.fromkeys(TERMS, 0.0)
    for part in parts:
        out[part.work.limit(chip)] += part.calls * part.work.seconds(chip)
    return out
