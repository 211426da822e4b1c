"""The head where it counts: training steps with logits for the tokens that have a loss, against logits for all of them.

    python benchmarks/head.py [--candidates 8] [--rows 6] [--prompt 0.4] [--repeats 5] [--rank 16]

SmolLM2-135M, adapters on all seven projections, random rows of 40 to 130 tokens of which the first `--prompt` have no
loss. Three ways train the same candidates in turn, in one process: the head on all positions, 64 of each sequence at a
time; on all positions, config.engine.loss_chunk of all sequences at a time; and on those that count. The ratio is the
median over the repeats of seconds of the first way to seconds of each.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from unittest import mock

import jax
import numpy as np

from seal_jax.config import ALL_PROJECTIONS, EngineConfig
from seal_jax.engine import packing
from seal_jax.engine.engine import Engine
from seal_jax.engine.packing import Candidate, Row
from seal_jax.engine.recipe import Recipe
from seal_jax.inner.sft import Optimizer
from seal_jax.model.lora import LoraConfig
from seal_jax.model.pretrained import load

LENGTHS = 40, 130


def candidates_of(count: int, rows: int, prompt: float, vocab: int) -> list[Candidate]:
    rng = np.random.default_rng(0)

    def row() -> Row:
        length = int(rng.integers(*LENGTHS))
        head = round(prompt * length)
        return Row(tuple(rng.integers(3, vocab, length).tolist()), (0.0,) * head + (1.0,) * (length - head))

    return [Candidate(tuple(row() for _ in range(rows)), 1e-3, 1, 0, (0, c), (0,)) for c in range(count)]


def seconds(engine: Engine, base: dict, chunk: Sequence[Candidate], recipe: Recipe, everywhere: bool) -> float:
    """Of one pass over the candidates' rows."""
    with mock.patch.object(packing, "counted_places", (lambda weights: None) if everywhere else packing.counted_places):
        began = time.perf_counter()
        jax.block_until_ready(engine.finetune(base, chunk, recipe)[0])
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=8, help="trained together")
    parser.add_argument("--rows", type=int, default=6, help="of each candidate")
    parser.add_argument("--prompt", type=float, default=0.4, help="share of a row without loss")
    parser.add_argument("--repeats", type=int, default=5, help="passes of each way")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters")
    flags = parser.parse_args()
    loaded = load("smollm2-135m-instruct", "float32")
    recipe = Recipe(LoraConfig(flags.rank, 2.0 * flags.rank, ALL_PROJECTIONS), 1, 1, Optimizer())
    chunk = candidates_of(flags.candidates, flags.rows, flags.prompt, loaded.config.vocab_size)
    usual = EngineConfig().loss_chunk
    ways = {  # (loss_chunk, whether the head is applied everywhere)
        "all positions, 64 of a sequence": (64 * flags.candidates, True),
        f"all positions, {usual} of a step": (usual, True),
        f"those that count, {usual} of a step": (usual, False),
    }
    engines = {name: Engine(loaded.config, EngineConfig(loss_chunk=size)) for name, (size, _) in ways.items()}
    base = engines[next(iter(ways))].put_base(loaded.params)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(flags.repeats + 1):
        for name, (_, everywhere) in ways.items():
            once = seconds(engines[name], base, chunk, recipe, everywhere)
            taken[name] += [once] * (number > 0)  # the first pass compiles
    first = next(iter(taken.values()))
    for name, found in taken.items():
        ratio = statistics.median(old / new for old, new in zip(first, found, strict=True))
        print(f"{name:36} {statistics.median(found):7.2f} s a pass   ratio {ratio:.3f}   "
              f"{engines[name].programs.count} programs")  # fmt: skip


if __name__ == "__main__":
    main()
