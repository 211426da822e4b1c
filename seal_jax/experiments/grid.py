"""The inner loop by rank, learning rate and epochs, the paper's search by hand (arXiv 2506.10943) as one run:

    self-edits of every passage -> each trained in every cell of the grid -> questions, a row for each cell

All cells of a rank train together over one base: an inner loop has its own learning rate and number of steps. Adapters
of another rank have other shapes and so another program: ranks follow one another. What is recorded is not computed
again.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from seal_jax.authors.fixed import Fixed
from seal_jax.config import Config, Inner
from seal_jax.experiments import writing
from seal_jax.experiments.rounds import AfterRows, Row, Setup, control_row, declare, evaluate
from seal_jax.outer.rollouts import write
from seal_jax.runs.keys import ANSWER, EVALUATION, GRID, Stage
from seal_jax.student.measure import measure
from seal_jax.student.trials import Plan, Trial


@dataclass(frozen=True)
class Cell:
    """One setting of the inner loop. bucket: the rank in words, empty where a run has one rank only."""

    bucket: str
    rate: float
    epochs: int

    @property
    def arm(self) -> str:
        rate = f"learning rate {self.rate:g}"
        return f"{self.bucket}, {rate}" if self.bucket else rate

    @property
    def name(self) -> str:
        return f"{self.arm}, {self.epochs} epoch{'s' * (self.epochs > 1)}"

    @property
    def stage(self) -> Stage:
        """Of its trials."""
        return Stage(EVALUATION, self.arm, self.epochs, ANSWER)


def buckets(config: Config) -> dict[int, list[Cell]]:
    """{rank: its cells, by learning rate and then by epochs}, all rising."""
    ranks, rates, epochs = (sorted(set(v)) for v in (config.grid.ranks, config.grid.rates, config.grid.epochs))
    names = {rank: f"rank {rank}" for rank in ranks} if len(ranks) > 1 else {(*ranks, config.inner.rank)[0]: ""}
    return {rank: [Cell(name, *pair) for pair in itertools.product(rates, epochs)] for rank, name in names.items()}


def at_rank(inner: Inner, rank: int) -> Inner:
    """An inner loop with adapters of another rank, whose alpha keeps the scale of their effect (model/lora.py)."""
    share = rank / inner.rank
    return replace(inner, rank=rank, alpha=inner.alpha * (math.sqrt(share) if inner.rslora else share))


def run(setup: Setup, after_rows: AfterRows) -> None:
    """The row of the untrained student, then those of all cells, rank by rank."""
    base = control_row(setup, setup.domain.controls()[0])
    evaluate(setup, base)
    after_rows([(base.arm, base.round)])
    how, seed, evaluation = setup.config.grid, (setup.config.seed, 0), setup.config.evaluation
    rule = writing.rule(how.author, setup.domain)
    author = Fixed(rule.text) if rule else setup.teaches(setup.policy)
    edits = write(author, setup.evaluation, how.samples, Stage(EVALUATION, GRID, 0), seed, setup.recorder)
    found = buckets(setup.config)
    for cell in itertools.chain(*found.values()):
        declare(setup, Row(cell.arm, cell.epochs, cell.name, "policy", None, base.student, how.samples))

    def trials(cells: list[Cell]) -> Iterator[Trial]:
        for item in setup.evaluation:
            for k, edit in enumerate(edits[item.id]):
                for retrain, cell in itertools.product(range(how.retrains), cells):
                    if not edit.missing:
                        yield Trial(item, edit.text, k, retrain, cell.stage, (cell.rate, cell.epochs))

    for rank, cells in found.items():
        inner, bucket = at_rank(setup.config.inner, rank), cells[0].bucket
        stage = Stage(EVALUATION, f"{GRID}, {bucket}" if bucket else GRID, 0, ANSWER)
        plan = Plan(stage, inner, evaluation.answer_tokens, seed, evaluation.likelihood)
        measure(base.student, list(trials(cells)), (rule and rule.domain) or setup.domain, plan, setup.recorder)
        after_rows([(cell.arm, cell.epochs) for cell in cells])
