"""What both benchmarks share: the model on both sides, timing, the machine's own speed, and the table."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import torch
import transformers

from seal_jax.config import EngineConfig
from seal_jax.engine.engine import Engine
from seal_jax.model.pretrained import Pretrained, load, save_merged

SIDE = 2048  # of the square matrices whose product is the machine's speed


@dataclass
class Row:
    """One way to do the work: `tokens` and `flops` of a pass, the seconds of each pass, and CPU seconds of them all."""

    name: str
    tokens: int
    flops: float
    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0

    def time(self, run: Callable):
        """Run once, on the clock."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        self.seconds.append(time.perf_counter() - wall)
        self.cpu += time.process_time() - cpu
        return result


def load_both(source: str, folder: Path) -> tuple[Pretrained, dict, Engine, torch.nn.Module]:
    """The model here (as loaded, weights on the device, engine) and, exported to `folder`, in transformers; float32."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    loaded = load(source, "float32")
    save_merged(folder, loaded.params, loaded.config, loaded.tokenizer, loaded.hf_config)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return loaded, jax.tree.map(jnp.asarray, loaded.params), Engine(loaded.config, EngineConfig()), theirs


def weights_used(params: dict) -> tuple[int, int]:
    """Weights that every token is multiplied with: in the layers, and in the head (a table of embeddings only looked
    up does not count)."""
    layers = sum(leaf["kernel"].size for leaf in params["layers"].values() if "kernel" in leaf)
    head = params["lm_head"]["kernel"] if "lm_head" in params else params["embed"]["embedding"]
    return layers, head.size


class MatrixProduct:
    """GFLOP/s of a large float32 matrix product, by JAX and by torch; the best of three each time it is asked."""

    def __init__(self):
        self.jax_rates, self.torch_rates = [], []
        a = jnp.ones((SIDE, SIDE))
        product = jax.jit(jnp.matmul).lower(a, a).compile()
        self._jax = lambda: jax.block_until_ready(product(a, a))
        b = torch.ones(SIDE, SIDE)
        self._torch = lambda: b @ b
        self._jax(), self._torch()

    def measure(self) -> None:
        for run, rates in ((self._jax, self.jax_rates), (self._torch, self.torch_rates)):
            seconds = []
            for _ in range(3):
                began = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - began)
            rates.append(2 * SIDE**3 / min(seconds) / 1e9)


def print_table(rows: list[Row], machine: MatrixProduct) -> None:
    """Medians over the passes; GFLOP/s also as a share of the matrix product's."""
    rate = statistics.median(machine.jax_rates)
    print(f"{'':34}{'tokens':>8}{'seconds':>9}{'tokens/s':>10}{'GFLOP/s':>9}{'of matmul':>11}{'cores busy':>12}")
    for row in rows:
        seconds = statistics.median(row.seconds)
        speed = row.flops / seconds / 1e9
        print(f"{row.name:34}{row.tokens:8d}{seconds:9.2f}{row.tokens / seconds:10.1f}{speed:9.1f}"
              f"{speed / rate:11.0%}{row.cpu / sum(row.seconds):12.1f}")
    print(f"float32 matrix product of {SIDE}: {rate:.0f} GFLOP/s by JAX (the yardstick), "
          f"{statistics.median(machine.torch_rates):.0f} by torch, {torch.get_num_threads()} threads")


def print_ratio(ours: Row, theirs: Row) -> None:
    """How many times faster, by pairs of passes that followed each other."""
    ratios = [b / a * ours.tokens / theirs.tokens for a, b in zip(ours.seconds, theirs.seconds, strict=True)]
    print(f"{ours.name} / {theirs.name}: {statistics.median(ratios):.2f}x tokens/s "
          f"(median of {len(ratios)} pairs, {min(ratios):.2f} to {max(ratios):.2f})")


def print_compiled(engine: Engine) -> None:
    print(f"compiled apart, before the clock ran: {engine.programs.count} programs in {engine.programs.seconds:.1f} s")
