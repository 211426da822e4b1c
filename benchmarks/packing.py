"""What packing inner loops by cost saves: self-edits of ARC choose their own epochs and data, so that costs differ.

    python benchmarks/packing.py [--config configs/fewshot_smollm2.py] [--edits 4] [--examples 250] [--time]

Random valid self-edits of the config's tasks become candidates; these are put into chunks by cost, as a run does, and
in the order in which they come. Counts what the device computes: optimizer steps dispatched, and token slots of the
steps' arrays, those of idle lanes that are computed included; 'every lane' is a chunk that computes all its lanes until
the last one is done. `--time` also trains all of them under both plans, twice, in alternation.
"""

import argparse
import dataclasses
import runpy
import tempfile
import time
from collections.abc import Sequence

from etils import epath

from seal_jax.config import from_dict
from seal_jax.engine import packing
from seal_jax.engine.packing import Candidate, Lanes
from seal_jax.engine.programs import enable_cache
from seal_jax.experiments import fewshot
from seal_jax.outer import trials
from seal_jax.outer.actor import recipe
from seal_jax.outer.rest_em import Setup


def candidates_of(setup: Setup, edits: int) -> list[Candidate]:
    """The inner loops of `edits` random self-edits of each task, those that train something."""
    plan = trials.TrialPlan("packing", setup.config.inner, 0, (setup.config.seed, 0))
    row = next(row for row in setup.fixed if row.name == fewshot.RANDOM)
    found = []
    for task in setup.train:
        for sample in range(edits):
            trial = trials.Trial(task, row.edit(task, sample), sample, 0)
            lesson = trials.lesson_of(setup.policy, trial, setup.task, plan)
            found.append(trials.candidate_of(setup.policy, trial, lesson, plan))
    return [candidate for candidate in found if candidate.rows]


def cost(chunks: Sequence[Sequence[Candidate]], shape: tuple[int, int], every_lane: bool) -> tuple[int, int]:
    """(steps dispatched, token slots computed) of chunks on one device."""
    steps = slots = 0
    for chunk in chunks:
        lanes = Lanes.holding(len(chunk), 1)
        slotted = [packing.slots_of(candidate) for candidate in chunk]
        for step in packing.schedule_steps(chunk, shape[0] * shape[1]):
            chosen, tokens, *_ = packing.fill_step(slotted, step, shape, lanes)
            steps += 1
            slots += tokens.size // len(chosen) * (lanes.total if every_lane else len(chosen))
    return steps, slots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/fewshot_smollm2.py")
    parser.add_argument("--edits", type=int, default=4, help="random self-edits of each task")
    parser.add_argument("--examples", type=int, help="of an inner loop at most (default: the config's)")
    parser.add_argument("--candidates", type=int, help="of a chunk (default: the config's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time", action="store_true", help="train them too")
    flags = parser.parse_args()
    config = from_dict(runpy.run_path(flags.config)["get_config"]().to_dict())
    most = flags.examples or config.arc.examples
    arc = dataclasses.replace(config.arc, examples=most, most_steps=max(config.arc.most_steps, 2 * most))
    config = dataclasses.replace(config, seed=flags.seed, arc=arc)
    enable_cache(config.engine.cache)
    with tempfile.TemporaryDirectory() as folder:
        setup = fewshot.prepare(config, epath.Path(folder))
    how, limit = recipe(config.inner), flags.candidates or config.engine.candidates
    found = candidates_of(setup, flags.edits)
    steps = sorted(packing.steps_of(candidate, how.batch) for candidate in found)
    print(f"{len(found)} inner loops of {steps[0]} to {steps[-1]} steps (median {steps[len(steps) // 2]}), "
          f"{limit} to a chunk")  # fmt: skip
    plans = {
        "by cost": [[found[i] for i in chunk] for chunk in packing.plan_chunks(found, how.batch, limit)],
        "as they come": [found[i : i + limit] for i in range(0, len(found), limit)],
    }
    real = sum(c.epochs * sum(len(row.tokens) for row in c.rows) for c in found)
    for every_lane in (False, True):
        for name, chunks in plans.items():
            dispatched, slots = cost(chunks, (how.accumulation, how.batch_size), every_lane)
            print(f"{name}{', every lane' * every_lane}: {dispatched} steps dispatched, {slots} token slots, "
                  f"{real / slots:.0%} of them real tokens")  # fmt: skip
    for turn in range(3 if flags.time else 0):
        for name, chunks in plans.items():
            began = time.perf_counter()
            for chunk in chunks:
                setup.policy.engine.finetune(setup.policy.base, chunk, how)
            note = "compiling" if turn == 0 else f"pass {turn}"
            print(f"{name}, {note}: {time.perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
