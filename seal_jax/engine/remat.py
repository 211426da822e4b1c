"""What of a training step's blocks is computed again in the backward pass: as little as the memory allows.

The step is compiled without recomputation, and with the next kind of REMAT only where it takes too much by what the
compiler says. The choice changes results by rounding at most, so a run may choose again when it is continued.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from seal_jax.engine.calls import Calls
from seal_jax.engine.programs import Call, Programs
from seal_jax.model.transformer import REMAT


def least(
    calls: Calls, programs: Programs, budget: float | None, makers: Mapping[Any, Callable[[Calls], Call]]
) -> dict[Any, Calls]:
    """For each size of a training step the calls that build it so that it fits the budget (bytes of a device; None: not
    known) and least is computed again; makers[size](calls) is the step. Sizes are tuples of numbers.

    Where `config.engine.remat` is not 'auto', or the budget is None, these are `calls` and nothing is compiled.
    """
    if calls.settings.remat != "auto" or budget is None:
        return dict.fromkeys(makers, calls)
    *kinds, most = REMAT
    chosen: dict[Any, Calls] = {}
    for kind in kinds:
        those = calls.recomputing(kind)
        rest = makers.keys() - chosen.keys()
        fit = fitting(rest, lambda size, those=those: programs.needs(makers[size](those)) <= budget)
        chosen |= dict.fromkeys(fit, those)
    return dict.fromkeys(makers, calls.recomputing(most)) | chosen


def fitting(sizes: Collection[tuple[int, ...]], fits: Callable[[tuple[int, ...]], bool]) -> set[tuple[int, ...]]:
    """Those of the sizes that fit, of which few are asked: first the largest, then about a middle one of those left.

    What is in no number greater than one that fits, fits; what is in none less than one that does not, does not.
    """
    left, found = sorted(sizes, key=lambda size: (math.prod(size[:2]), size)), set()
    asked = len(left) - 1
    while left:
        tried = left[asked]
        if fits(tried):
            decided = {size for size in left if _within(size, tried)}
            found |= decided
        else:
            decided = {size for size in left if _within(tried, size)}
        left = [size for size in left if size not in decided]
        asked = len(left) // 2
    return found


def _within(size: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(one <= two for one, two in zip(size, other, strict=True))
