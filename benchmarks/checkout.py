"""Earlier code of this project beside the present: a process for each checkout, which imports that one's seal_jax.

`Side` is for the benchmarks; the process itself answers tasks, a line of JSON each, by a line of JSON each.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SOURCE = "smollm2-135m-instruct"
TOP_P = 0.95
HERE = Path(__file__)
PRESENT = HERE.parent.parent


class Side:
    """A checkout's process, which does what a function of this file makes; `row`, a measure.Row, gets its seconds."""

    def __init__(self, make: str, path: Path, row):
        self.row, self.programs = row, (0, 0.0)
        environment = os.environ | {"PYTHONPATH": str(path)}
        command = [sys.executable, str(HERE), make]
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, task: dict) -> dict:
        """The answer to a task; afterwards `programs` says how many were compiled so far, and in how many seconds."""
        print(json.dumps(task), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.row.name}: the process ended with status {self.process.wait()}")
        answer = json.loads(line)
        self.programs = answer["programs"]
        return answer

    def time(self, task: dict) -> dict:
        """The answer of a pass that counts."""
        answer = self.ask(task)
        self.row.seconds.append(answer["seconds"])
        self.row.cpu += answer["cpu"]
        return answer

    def print_compiled(self) -> None:
        count, seconds = self.programs
        print(f"{self.row.name}: {count} programs compiled in {seconds:.1f} s, before the clock ran")

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def generating(engine, base) -> Callable[[dict], dict]:
    """{prompts, samples, new, ends} -> {tokens}."""
    from seal_jax.engine.generation import Generation
    from seal_jax.engine.weights import Weights
    from seal_jax.inner.sampling import Sampling

    def run(task: dict) -> dict:
        ends = {tuple(tokens) for tokens in task["ends"]}
        rules = Sampling(0.0, 1.0, 0, ()) if task["samples"] == 1 else Sampling(1.0, TOP_P, 0, ())
        stopped = (lambda tokens: tuple(tokens) in ends) if ends else None
        seeds = [[[(q, k) for k in range(task["samples"])] for q in range(len(task["prompts"]))]]
        found = engine.generate(Weights(base), [task["prompts"]], seeds, Generation(rules, task["new"], stopped))
        return {"tokens": [sample.tokens for samples in found[0] for sample in samples]}

    return run


def training(engine, base) -> Callable[[dict], dict]:
    """{candidates: rows of (tokens, weights) of each, rank, rate} -> {loss: mean over one epoch of all, real: share of
    real tokens in what was computed so far}."""
    import jax
    import numpy as np

    from seal_jax.config import ALL_PROJECTIONS
    from seal_jax.engine.packing import Candidate, Row
    from seal_jax.engine.recipe import Recipe
    from seal_jax.inner.sft import Optimizer
    from seal_jax.model.lora import LoraConfig

    def run(task: dict) -> dict:
        recipe = Recipe(LoraConfig(task["rank"], 2.0 * task["rank"], ALL_PROJECTIONS), 1, 1, Optimizer("linear", 1.0))
        lanes = [tuple(Row(tuple(tokens), tuple(weights)) for tokens, weights in rows) for rows in task["candidates"]]
        candidates = [Candidate(rows, task["rate"], 1, 0, (0, number), (0,)) for number, rows in enumerate(lanes)]
        adapters, losses = engine.finetune(base, candidates, recipe)
        jax.block_until_ready(adapters)
        return {"loss": float(np.mean(np.concatenate(losses))), "real": engine.usage.real_fraction}

    return run


def serve(make: Callable) -> None:
    """Answer tasks until there are none; each answer has seconds, cpu and programs, too."""
    from seal_jax.config import EngineConfig
    from seal_jax.engine.engine import Engine
    from seal_jax.model.pretrained import load

    out, sys.stdout = sys.stdout, sys.stderr
    loaded = load(SOURCE, "float32")
    engine = Engine(loaded.config, EngineConfig())
    run = make(engine, engine.put_base(loaded.params))
    for line in sys.stdin:
        task = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        answer = run(task)
        answer |= {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        answer["programs"] = engine.programs.count, engine.programs.seconds
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    serve({"generating": generating, "training": training}[sys.argv[1]])
