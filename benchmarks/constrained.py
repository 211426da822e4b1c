"""How many self-edits are valid, with the grammar in the sampling loop and without?

    python benchmarks/constrained.py [--config configs/fewshot_smollm2.py] [--samples 1000] [--free 200] [--seed 0]

Samples self-edits of the config's training tasks, equally many of each, under both rules, and prints how many are
valid, how many ended by themselves, and the commonest reasons of those that are not. Ends with status 1 if one under
the grammar is invalid.
"""

import argparse
import dataclasses
import runpy
import tempfile
import time
from collections import Counter

from etils import epath

from seal_jax.config import from_dict
from seal_jax.engine.programs import enable_cache
from seal_jax.experiments import fewshot
from seal_jax.outer.edits import EditPlan, sample_edits


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
    with tempfile.TemporaryDirectory() as folder:
        setup = fewshot.prepare(config, epath.Path(folder))
    wrong = 0
    for name, grammar, wanted in (("constrained", setup.grammar, flags.samples), ("unconstrained", None, flags.free)):
        each = -(-wanted // len(setup.train))
        plan = EditPlan(name, each, config.sampling, (config.seed, 0), grammar=grammar)
        began = time.perf_counter()
        chunks = sample_edits(setup.policy, setup.train, setup.task, plan, lambda keys: False)
        records = [record for chunk in chunks for record in chunk][:wanted]
        seconds = time.perf_counter() - began
        valid = sum(record["problem"] is None for record in records)
        ended = sum(record["finished"] for record in records)
        tokens = sum(record["tokens"] for record in records)
        distinct = len({record["text"] for record in records})
        print(f"{name}: {valid} of {len(records)} valid ({valid / len(records):.1%}), {ended} ended by themselves, "
              f"{distinct} distinct, {tokens / len(records):.0f} tokens each, {seconds:.0f} s", flush=True)  # fmt: skip
        reasons = Counter(record["problem"] for record in records if record["problem"])
        for reason, count in reasons.most_common(5):
            print(f"    {count}: {reason}")
        wrong += name == "constrained" and valid < len(records)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
