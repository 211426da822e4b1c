"""What packing inner loops by cost saves: self-edits of ARC choose their own epochs and data, so that costs differ.

    python benchmarks/packing.py [--config configs/fewshot_smollm2.py] [--edits 4] [--examples 250] [--time]

Random valid self-edits of the config's tasks become candidates; these are put into chunks by cost, as a run does, and
in the order in which they come. Counts what the device computes: calls of the step program, and token slots of the
steps' arrays, those of computed lanes without data included; 'every lane' is a chunk that computes all its lanes until
the last one is done. `--time` also trains all of them under both plans, twice, in alternation.
"""

import argparse
import dataclasses
import runpy
import time
from collections.abc import Sequence

from seal_jax import seeds
from seal_jax.config import Config, from_dict
from seal_jax.domains.arc.fewshot import RANDOM
from seal_jax.engine import groups, packing
from seal_jax.engine.packing import Candidate, Lanes
from seal_jax.engine.programs import enable_cache
from seal_jax.engine.recipe import recipe
from seal_jax.experiments import arc
from seal_jax.student.actor import Actor, load_actor
from seal_jax.student.train import Loop, candidate


def candidates_of(config: Config, actor: Actor, edits: int) -> list[Candidate]:
    """The inner loops of `edits` random self-edits of each task, those that train something."""
    world = arc.world(config)
    domain, seed, found = world.domain(None), (config.seed, 0), []
    control = next(control for control in domain.controls() if control.name == RANDOM)

    def length(example) -> int:
        return len(actor.row(example).tokens)

    for task in world.train:
        for sample in range(edits):
            lesson = domain.lesson(task, control.text(task, sample), seeds.lesson(*seed, task, 0), length)
            loop = Loop(lesson, seeds.adapter(*seed, task, 0), seeds.order(*seed, 0))
            found.append(candidate(actor, loop, config.inner))
    return [one for one in found if one.rows]


def cost(chunks: Sequence[Sequence[Candidate]], batch: int, limit: int, every_lane: bool) -> tuple[int, int]:
    """(calls dispatched, token slots computed) of chunks on one device, steps in at most `limit` groups by length."""
    steps = slots = 0
    for chunk in chunks:
        lanes = Lanes.holding(len(chunk), 1)
        slotted = [packing.slots_of(candidate) for candidate in chunk]
        for part in groups.plan_parts(slotted, packing.schedule_steps(chunk, batch), lanes, limit, batch):
            steps += 1
            slots += part.length * batch * (lanes.total if every_lane else part.width)
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
    actor = load_actor(config.model.policy, config)
    how, limit = recipe(config.inner), flags.candidates or config.engine.candidates
    found = candidates_of(config, actor, flags.edits)
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
            dispatched, slots = cost(chunks, how.batch, config.engine.length_groups, every_lane)
            print(f"{name}{', every lane' * every_lane}: {dispatched} calls dispatched, {slots} token slots, "
                  f"{real / slots:.0%} of them real tokens")  # fmt: skip
    for turn in range(3 if flags.time else 0):
        for name, chunks in plans.items():
            began = time.perf_counter()
            for chunk in chunks:
                actor.engine.finetune(actor.base, chunk, how)
            note = "compiling" if turn == 0 else f"pass {turn}"
            print(f"{name}, {note}: {time.perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
