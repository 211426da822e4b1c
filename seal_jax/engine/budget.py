"""The memory budget: how many candidates train together, by what the compiled steps say they take on a device.

Which candidates share a chunk changes their results by rounding alone, so a run may choose again when it is continued.
"""

import bisect
import math
from collections.abc import Callable, Sequence

from seal_jax.config import Config
from seal_jax.engine import packing
from seal_jax.engine.engine import Engine
from seal_jax.engine.memory import GIB
from seal_jax.engine.packing import Candidate, Lanes
from seal_jax.engine.recipe import Recipe
from seal_jax.errors import UserError

AUTO = "config.engine.candidates is 0 (as many as fit)"


def chunk_limit(engine: Engine, base: dict, candidates: Sequence[Candidate], recipe: Recipe) -> int:
    """How many of `candidates` may train together: `config.engine.candidates`, or for 0 as many as fit the memory.

    For the latter the longest step is compiled for rising numbers of lanes. Raises UserError where not even one lane on
    each device fits. Decoding with the adapters is bounded by `config.engine.decode_rows` instead.
    """
    if engine.settings.candidates:
        return engine.settings.candidates
    groups, known = engine.layout.devices, engine.programs.count
    lengths = sorted({packing.bucket(len(row.tokens)) for candidate in candidates for row in candidate.rows})
    if not lengths:  # nothing is trained
        return groups
    budget = engine.step_budget(base)
    if budget is None:
        raise UserError(
            f"{AUTO}, and this device does not tell how much memory it has; set config.engine.memory_gib, or "
            "config.engine.candidates to a number"
        )

    def needs(lanes: int) -> float:
        return step_peak(engine, base, recipe, lanes, lengths[-1])

    together = max(len(chunk) for chunk in packing.plan_chunks(candidates, recipe.batch, len(candidates)))
    best = most(needs, budget, -(-together // groups))
    if not best:
        raise UserError(
            f"{AUTO}, but to train one on {lengths[-1]} tokens takes {needs(1) / GIB:.3g} GiB of a device, where "
            f"{budget / GIB:.3g} are free for it; raise config.engine.memory_gib if the device has more, leave "
            "config.engine.remat at auto, or split the model with config.parallel.model"
        )
    if engine.programs.count > known:
        print(
            f"{best * groups} candidates train together: with sequences of up to {lengths[-1]} tokens they take "
            f"{needs(best) / GIB:.3g} of {budget / GIB:.3g} GiB on each device",
            flush=True,
        )
    return best * groups


def most(needs: Callable[[int], float], room: float, limit: int = 512) -> int:
    """The greatest number of lanes on a device whose `needs` are within `room`, among the bucketed counts up to that of
    `limit`; 0 if there is none.

    Needs grow about linearly, so the next size to try is interpolated: each try compiles programs.
    """
    sizes = packing.count_buckets(limit)
    if needs(1) > room:
        return 0
    before, low, high, place = 0, 0, len(sizes), min(3, len(sizes) - 1)  # sizes[low] fits, sizes[high] does not
    while high - low > 1:
        if needs(sizes[place]) <= room:
            before, low = low, place
        else:
            high = place
        bounded = high < len(sizes)
        other = high if bounded else before
        each = (needs(sizes[other]) - needs(sizes[low])) / (sizes[other] - sizes[low]) if other != low else 0.0
        if 0 < each < math.inf:
            place = bisect.bisect(sizes, sizes[low] + (room - needs(sizes[low])) / each) - 1
        else:
            place = (low + high) // 2 if bounded else 2 * low + 1
        place = min(max(place, low + 1), high - 1)
    return sizes[low]


def other_bases(config: Config) -> int:
    """Whole sets of weights on the devices beside those in use: the first policy's, and the random control's."""
    if config.experiment in ("pretraining", "continual"):
        return 1  # those of a model that has learned
    if config.experiment == "grid":
        return 0
    return 0 if config.outer.rounds == 0 else 1 + config.outer.random_control


def step_peak(engine: Engine, base: dict, recipe: Recipe, lanes: int, length: int) -> float:
    """Bytes that a step of so many lanes on a device and of this length takes there, weights included, where as much is
    computed again as may be; infinity if the compiler refuses it."""
    devices, total = engine.layout.devices, lanes * engine.layout.devices
    calls = engine.calls.recomputing("full") if engine.settings.remat == "auto" else engine.calls
    return engine.programs.needs(calls.blank_step(base, recipe, Lanes(total, devices), (total, length)))
