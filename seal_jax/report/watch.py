"""What is made of a run's records while it goes on: curves, pictures of ARC tasks, and report.html."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from seal_jax.config import Config
from seal_jax.domains.arc.fewshot import attempts_of
from seal_jax.parallel import is_first
from seal_jax.report import html, scalars, sheets
from seal_jax.report.recorded import Record, Recorded, label, load
from seal_jax.runs import keys
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.metrics import Metrics
from seal_jax.runs.records import in_bucket


class Watch:
    """Follows the run in a folder; every host of the run makes one, and only the first host's writes anything.

    with Watch(folder, config) as watch:
        recorder.observers.append(watch.during)
        ...  # measure a row of the table, then:
        watch.after_rows([("SEAL", 1)])
    """

    def __init__(self, folder: epath.Path, config: Config):
        """Raises UserError if Weights & Biases is asked for and not installed."""
        self.folder = epath.Path(folder)
        self._rows: set[tuple[str, int]] = set()
        self._shown: Recorded | None = None  # what report.html was made of
        self._metrics = None
        if is_first():
            project = config.metrics.wandb_project
            self._metrics = Metrics(self.folder / "metrics", project, dataclasses.asdict(config))
        self._written = Ledger(self.folder / "metrics.jsonl", ("name", "step"))

    def after_rows(self, rows: Sequence[tuple[str, int]]) -> None:
        """Rows of the table, by (arm, round), are complete: adds their points to the curves, draws their sheets, and
        writes report.html anew where there is something new to show."""
        self._rows.update(rows)
        if self._metrics is None:
            return
        recorded = load(self.folder)
        scalars.publish(self._metrics, self._written, scalars.points(recorded, self._rows))
        drawn = [draw_sheets(self.folder, recorded, *row) for row in rows]
        if any(drawn) or recorded != self._shown:
            html.write(self.folder)
        self._shown = recorded

    def during(self, stage: keys.Stage, done: int, figures: Mapping[str, float]) -> None:
        """A part of a stage is recorded: adds a point for each of the figures, by how much of the stage is done."""
        if self._metrics is not None and figures:
            place = f"running/{stage.arm}_{stage.round}_{stage.split}_{stage.purpose}"
            self._metrics.scalars(done, {f"{place}/{name}": value for name, value in figures.items()})
            if not in_bucket(self.folder):
                self._metrics.flush()

    def close(self) -> None:
        self._written.close()
        if self._metrics is not None:
            self._metrics.close()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def draw_sheets(folder: epath.Path, recorded: Recorded, arm: str, number: int) -> int:
    """A picture of each evaluation task with the attempts of a row's first trial, where there is none yet; how many.

    Nothing is drawn of items without grids, nor in a bucket, where matplotlib cannot write.
    """
    if in_bucket(folder):
        return 0
    drawn = 0
    row = label(recorded, keys.EVALUATION, arm, number)
    stage = keys.Stage(keys.EVALUATION, arm, number, keys.ANSWER)
    trials = {tuple(trial[field] for field in keys.TRIAL): trial for trial in recorded.trials}
    for item in recorded.items_of(keys.EVALUATION):
        trial = trials.get(stage.trial(item["item"], 0, 0))
        file = folder / "sheets" / sheets.file_name(item["item"], row)
        if "grids" in item and trial is not None and not file.exists():
            file.parent.mkdir(exist_ok=True)
            sheets.save(file, _sheet(item, trial, row))
            drawn += 1
    return drawn


def _sheet(item: Record, trial: Record, row: str):
    train, test = ([tuple(map(np.array, pair)) for pair in item["grids"][part]] for part in ("train", "test"))
    answers = trial["answers"] or [""] * len(test)
    tested = [
        sheets.Answered(given, truth, attempts_of(answer)) for (given, truth), answer in zip(test, answers, strict=True)
    ]
    return sheets.draw(f"{item['item']}: {row}", train, tested)
