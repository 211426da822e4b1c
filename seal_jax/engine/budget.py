"""The memory budget: how many candidates train together, by what the compiled steps say they take on a device.

Which candidates share a chunk changes their results by rounding alone, so a run may choose again when it is continued.
"""

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
    best = largest(lambda lanes: needs(lanes) <= budget, -(-together // groups))
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


def largest(fits: Callable[[int], bool], limit: int = 1024) -> int:
    """The greatest number of lanes on a device that `fits`, among the bucketed counts up to that of `limit`; 0 if none
    does."""
    sizes = packing.count_buckets(limit)
    top = 0
    while top < len(sizes) and fits(sizes[top]):
        top = top * 2 + 1
    low, high = (top - 1) // 2 if top else -1, min(top, len(sizes))  # sizes[low] fits, sizes[high] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(sizes[middle]) else (low, middle)
    return sizes[low] if low >= 0 else 0


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
