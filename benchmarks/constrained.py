"""How many self-edits are valid, with the grammar in the sampling loop and without?

    python benchmarks/constrained.py [--config configs/fewshot_smollm2.py] [--samples 1000] [--free 200] [--seed 0]

Samples self-edits of the config's training tasks, equally many of each, under both rules, and prints how many are
valid, how many ended by themselves, and the commonest reasons of those that are not. Ends with status 1 if one under
the grammar is invalid.
"""

import argparse
import dataclasses
import runpy
import time
from collections import Counter

from seal_jax.authors.policy import Policy
from seal_jax.config import from_dict
from seal_jax.engine.programs import enable_cache
from seal_jax.experiments import arc
from seal_jax.student.actor import load_actor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/fewshot_smollm2.py")
    parser.add_argument("--samples", type=int, default=1000, help="in all, under the grammar")
    parser.add_argument("--free", type=int, default=200, help="in all, without it")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    config = from_dict(runpy.run_path(flags.config)["get_config"]().to_dict())
    config = dataclasses.replace(config, seed=flags.seed, arc=dataclasses.replace(config.arc, constrained=True))
    enable_cache(config.engine.cache)
    world, actor = arc.world(config), load_actor(config.model.policy, config)
    wrong = 0
    rules = (("constrained", world.grammar(actor), flags.samples), ("unconstrained", None, flags.free))
    for name, grammar, wanted in rules:
        each = -(-wanted // len(world.train))
        policy = Policy(actor, world.domain(None), config.sampling, grammar=grammar)
        began = time.perf_counter()
        written = policy.write(world.train, each, (config.seed, 0))
        edits = [edit for chunk in written for lane in chunk.values() for edit in lane][:wanted]
        seconds = time.perf_counter() - began
        valid = sum(edit.problem is None for edit in edits)
        ended = sum(edit.finished for edit in edits)
        tokens = sum(len(edit.tokens) for edit in edits)
        distinct = len({edit.text for edit in edits})
        print(f"{name}: {valid} of {len(edits)} valid ({valid / len(edits):.1%}), {ended} ended by themselves, "
              f"{distinct} distinct, {tokens / len(edits):.0f} tokens each, {seconds:.0f} s", flush=True)  # fmt: skip
        reasons = Counter(edit.problem for edit in edits if edit.problem)
        for reason, count in reasons.most_common(5):
            print(f"    {count}: {reason}")
        wrong += name == "constrained" and valid < len(edits)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
