"""The inner loop by learning rate and epochs, the paper's search by hand (arXiv 2506.10943) as one run:

    self-edits of every passage -> each trained in every cell of the grid -> questions, a row for each cell

All cells train together over one base: an inner loop has its own learning rate and number of steps. What is recorded
is not computed again.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from seal_jax.authors.fixed import Fixed
from seal_jax.config import Config
from seal_jax.experiments import writing
from seal_jax.experiments.rounds import Row, Setup, control_row, declare, evaluate
from seal_jax.outer.rollouts import write
from seal_jax.runs.keys import ANSWER, EVALUATION, GRID, Stage
from seal_jax.student.measure import measure
from seal_jax.student.trials import Plan, Trial


class Cell(NamedTuple):
    """One setting of the inner loop."""

    rate: float
    epochs: int

    @property
    def arm(self) -> str:
        return f"learning rate {self.rate:g}"

    @property
    def name(self) -> str:
        return f"{self.arm}, {self.epochs} epoch{'s' * (self.epochs > 1)}"

    @property
    def stage(self) -> Stage:
        """Of its trials."""
        return Stage(EVALUATION, self.arm, self.epochs, ANSWER)


def cells(config: Config) -> list[Cell]:
    """Of a config, by learning rate and then by epochs, rising."""
    rates, epochs = (sorted(set(values)) for values in (config.grid.rates, config.grid.epochs))
    return [Cell(*pair) for pair in itertools.product(rates, epochs)]


def run(setup: Setup, after_row: Callable[[str, int], None]) -> None:
    """The row of the untrained student, then those of all cells."""
    base = control_row(setup, setup.domain.controls()[0])
    evaluate(setup, base)
    after_row(base.arm, base.round)
    how, seed, evaluation = setup.config.grid, (setup.config.seed, 0), setup.config.evaluation
    rule = writing.rule(how.author, setup.domain)
    author = Fixed(rule.text) if rule else setup.teaches(setup.policy)
    edits = write(author, setup.evaluation, how.samples, Stage(EVALUATION, GRID, 0), seed, setup.recorder)
    every = cells(setup.config)
    for cell in every:
        declare(setup, Row(cell.arm, cell.epochs, cell.name, "policy", None, base.student, how.samples))

    def trials() -> Iterator[Trial]:
        for item in setup.evaluation:
            for k, edit in enumerate(edits[item.id]):
                for retrain, cell in itertools.product(range(how.retrains), every):
                    if not edit.missing:
                        yield Trial(item, edit.text, k, retrain, cell.stage, cell)

    plan = Plan(Stage(EVALUATION, GRID, 0, ANSWER), setup.config.inner, evaluation.answer_tokens, seed,
                evaluation.likelihood)  # fmt: skip
    measure(base.student, list(trials()), (rule and rule.domain) or setup.domain, plan, setup.recorder)
    for cell in every:
        after_row(cell.arm, cell.epochs)
