"""The memory budget: how many candidates train together, by what the compiled steps say they take on a device.

Which candidates share a chunk changes their results by rounding alone, so a run may choose again when it is continued.
"""

import math
from collections.abc import Callable, Sequence

import jax

from seal_jax.config import Config
from seal_jax.engine import packing
from seal_jax.engine.engine import Engine
from seal_jax.engine.packing import Candidate, Lanes
from seal_jax.engine.recipe import Recipe
from seal_jax.errors import UserError
from seal_jax.parallel import from_first

GIB = 2**30
SHARE = 0.9  # of a device's memory: fragmentation takes some of it
AUTO = "config.engine.candidates is 0 (as many as fit)"


def chunk_limit(engine: Engine, base: dict, candidates: Sequence[Candidate], recipe: Recipe) -> int:
    """How many of `candidates` may train together: `config.engine.candidates`, or for 0 as many as fit the memory.

    For the latter the steps that take most memory are compiled for rising numbers of lanes. Raises UserError where not
    even one lane on each device fits. Decoding with the adapters is bounded by `config.engine.decode_rows` instead.
    """
    if engine.settings.candidates:
        return engine.settings.candidates
    groups, known = engine.layout.devices, len(engine.peaks)
    lengths = sorted({packing.bucket(len(row.tokens)) for candidate in candidates for row in candidate.rows})
    if not lengths:  # nothing is trained
        return groups
    budget = step_budget(engine, base)

    def needs(lanes: int) -> float:
        return max(step_peak(engine, base, recipe, lanes, size) for size in costliest(engine, recipe, lanes, lengths))

    together = max(len(chunk) for chunk in packing.plan_chunks(candidates, recipe.batch, len(candidates)))
    best = largest(lambda lanes: needs(lanes) <= budget, -(-together // groups))
    if not best:
        raise UserError(
            f"{AUTO}, but to train one on {lengths[-1]} tokens takes {needs(1) / GIB:.3g} GiB of a device, where "
            f"{budget / GIB:.3g} are free for it; raise config.engine.memory_gib if the device has more, set "
            "config.engine.remat_above to 0, or split the model with config.parallel.model"
        )
    if len(engine.peaks) > known:
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


def step_budget(engine: Engine, base: dict) -> float:
    """Bytes of a device for a training step and its weights: `config.engine.memory_gib`, or what the device has, less
    the other arrays on it. Raises UserError where neither is known."""
    weights = on_device(base)
    others = engine.other_bases * weights
    if engine.settings.memory_gib:
        return engine.settings.memory_gib * GIB - others
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        raise UserError(
            f"{AUTO}, and this device does not tell how much memory it has; set config.engine.memory_gib, or "
            "config.engine.candidates to a number"
        )
    others = max(others, stats.get("bytes_in_use", 0) - weights)
    return float(from_first(repr(SHARE * stats["bytes_limit"] - others).encode()))


def costliest(engine: Engine, recipe: Recipe, lanes: int, lengths: Sequence[int]) -> set[tuple[int, int]]:
    """The steps that may take most memory, as (lanes computed on a device, sequence length): the longest, and of those
    whose blocks are not recomputed in the backward pass the one with most tokens."""
    widths = {min(2**k, lanes) for k in range(lanes.bit_length() + 1)}
    within = engine.settings.remat_above // recipe.batch_size
    kept = [(width, length) for width in widths for length in lengths if width * length <= within]
    return {(lanes, lengths[-1])} | ({max(kept, key=math.prod)} if kept else set())


def step_peak(engine: Engine, base: dict, recipe: Recipe, lanes: int, size: tuple[int, int]) -> float:
    """Bytes that a step takes on a device with so many lanes, weights included; infinity if the compiler refuses it."""
    key = recipe, lanes, size
    if key not in engine.peaks:
        devices, (computed, length) = engine.layout.devices, size
        call = engine.calls.blank_step(base, recipe, Lanes(lanes * devices, devices), (computed * devices, length))
        try:
            engine.peaks[key] = peak(engine.programs.compiled(call))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            engine.peaks[key] = math.inf
    return engine.peaks[key]


def peak(compiled: jax.stages.Compiled) -> float:
    """Bytes that a program takes on a device while it runs, by the compiler's memory analysis."""
    return peak_of(compiled.memory_analysis())


def peak_of(stats) -> float:
    """The same from the memory analysis of a program."""
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return stats.argument_size_in_bytes + results + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes


def on_device(tree: dict) -> float:
    """Bytes that a tree of arrays, or of structs with shardings, takes on one device."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
