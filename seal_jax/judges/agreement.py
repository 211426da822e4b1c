"""How well two judges agree."""

from collections.abc import Sequence


def cohens_kappa(a: Sequence[bool | None], b: Sequence[bool | None]) -> float:
    """Agreement beyond chance (Cohen 1960): 1 is perfect, 0 is chance. Items that either judge left out do not count.

    Raises ValueError if the lengths differ or nothing is left; nan if both judges always give the same one verdict.
    """
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if not pairs:
        raise ValueError("no item was graded by both judges")
    n = len(pairs)
    observed = sum(x == y for x, y in pairs) / n
    yes_a, yes_b = sum(x for x, _ in pairs) / n, sum(y for _, y in pairs) / n
    chance = yes_a * yes_b + (1 - yes_a) * (1 - yes_b)
    return (observed - chance) / (1 - chance) if chance < 1 else float("nan")
