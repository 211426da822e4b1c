"""All weights trained in bfloat16, with masters and moments in float32, against the same training in float32.

    python benchmarks/full_finetuning.py      # 80 steps of each on SmolLM2; minutes

Passages of the shipped corpus as plain text, one a step, epoch by epoch; learning rate and schedule are the paper's of
continued pretraining. Printed: the mean loss of every epoch, in nats per token, and by how much it fell.
"""

import argparse
import dataclasses
import time

import numpy as np

from seal_jax import lab, seeds
from seal_jax.config import defaults, from_dict
from seal_jax.domains.domain import Example
from seal_jax.domains.knowledge.corpus import load_passages
from seal_jax.engine.packing import Candidate
from seal_jax.engine.recipe import recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--passages", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=7e-5)
    arguments = parser.parse_args()
    found = {dtype: losses(dtype, arguments) for dtype in ("float32", "bfloat16")}
    print("| weights | " + " | ".join(f"epoch {number + 1}" for number in range(arguments.epochs)) + " | fell by |")
    print("|---" * (arguments.epochs + 2) + "|")
    for dtype, values in found.items():
        print(f"| {dtype} | " + " | ".join(f"{value:.3f}" for value in values) + f" | {values[0] - values[-1]:.4f} |")
    wide, half = (values[0] - values[-1] for values in found.values())
    last = [values[-1] for values in found.values()]
    print(f"bfloat16 falls by {half / wide:.4f} of float32's fall and ends at {last[1] / last[0]:.4f} of its loss")


def losses(dtype: str, arguments: argparse.Namespace) -> np.ndarray:
    """Mean loss of every epoch."""
    began = time.perf_counter()
    actor = lab.load(arguments.model, model={"dtype": dtype}).actor
    passages = load_passages("shipped:train")[: arguments.passages]
    rows = tuple(actor.row(Example(None, f"{one.title}\n{one.context}", closing=False)) for one in passages)
    paper = from_dict(defaults("knowledge", "pretraining")).pretraining.sft
    how = dataclasses.replace(
        paper, rank=0, learning_rate=arguments.rate, epochs=arguments.epochs, batch_size=1, accumulation=1
    )
    order = seeds.order(0, 0, 0)
    _, found = actor.engine.teach(
        actor.base, Candidate(rows, how.learning_rate, how.epochs, 0, order, order), recipe(how)
    )
    print(f"{dtype}: {len(found)} steps in {time.perf_counter() - began:.0f} s", flush=True)
    return found.reshape(arguments.epochs, -1).mean(-1)


if __name__ == "__main__":
    main()
