"""The records of one run: ledgers by what they hold, wall time by stage, progress while records are made."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from etils import epath

from seal_jax.errors import UserError
from seal_jax.runs import keys
from seal_jax.runs.keys import Stage
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.progress import Progress

Record = dict[str, Any]


class Recorder:
    """The ledgers of the run in `path`.

    usage() -> counters of the engines, so that stages record what they used; activity() -> what these do right now.
    observers: are told (stage, how much of it is done, figures by name) after every group of records.
    """

    def __init__(self, path: epath.Path, usage: Callable[[], dict[str, float]], activity: Callable[[], str] = str):
        self.items = Ledger(path / "items.jsonl", keys.ITEM)
        self.rows = Ledger(path / "rows.jsonl", keys.ROW)
        self.edits = Ledger(path / "self_edits.jsonl", keys.EDIT)
        self.trials = Ledger(path / "trials.jsonl", keys.TRIAL)
        self.ratings = Ledger(path / "ratings.jsonl", keys.EDIT)
        self.rollouts = Ledger(path / "rollouts.jsonl", keys.ROLLOUT)
        self.updates = Ledger(path / "updates.jsonl", keys.UPDATE)
        self.phases = Ledger(path / "phases.jsonl", keys.PHASE)
        self.checkpoints = str(path / "checkpoints")
        self.observers: list[Callable[[Stage, int, dict[str, float]], None]] = []
        self._usage, self._activity = usage, activity

    def declare_items(self, items: Sequence[Record]) -> None:
        """Record what the run is about. Raises UserError if it began with other items."""
        if self.items.all() and self.items.all() != list(items):
            raise UserError(
                f"the items are not those in {self.items.path}, with which this run began; restore the data, or choose "
                "another --workdir"
            )
        self.items.append(items)

    def fill(
        self,
        stage: Stage,
        ledger: Ledger,
        wanted: Sequence[tuple],
        groups: Iterable[Sequence[Record]],
        reward: Callable[[Record], float | None] | None = None,
    ) -> None:
        """Draw groups of records into a ledger until what is wanted is there, with progress and wall time.

        reward: of a record, for the running mean that is shown.
        """
        if ledger.has_all(wanted):
            return
        done = sum(ledger.has_all([key]) for key in wanted)
        earned: list[float] = []
        with self.phase(stage), self.progress(stage, len(wanted), done) as progress:
            for group in groups:
                ledger.append(group)
                if reward is not None:
                    earned += [value for value in map(reward, group) if value is not None]
                progress.advance(len(group), sum(earned) / len(earned) if earned else None)
                for observe in self.observers:
                    observe(stage, progress.done, _figures(group, progress.reward))

    def progress(self, stage: Stage, total: int = 0, done: int = 0) -> Progress:
        """That of a stage: of `total` units, of which `done` were there before, and of what the engines do."""
        return Progress(keys.title(stage), total, done, self._activity)

    @contextmanager
    def shown(self, stage: Stage) -> Iterator[Record]:
        """`phase` of what has no units, with progress."""
        with self.phase(stage) as facts, self.progress(stage):
            yield facts

    @contextmanager
    def phase(self, stage: Stage) -> Iterator[Record]:
        """Record the wall time and the engines' use of what runs inside, and whatever is added to the yielded dict.

        A stage that was stopped and continued has a record for each part.
        """
        began, before, facts = time.time(), self._usage(), {}
        try:
            yield facts
        finally:
            used = {name: round(value - before[name], 2) for name, value in self._usage().items()}
            seconds = round(time.time() - began, 2)
            self.phases.append([{**stage.fields, "began": began, "seconds": seconds, **used, **facts}])

    def close(self) -> None:
        for ledger in (
            self.items, self.rows, self.edits, self.trials, self.ratings, self.rollouts, self.updates, self.phases
        ):  # fmt: skip
            ledger.close()


def _figures(group: Sequence[Record], reward: float | None) -> dict[str, float]:
    """Of a group of records: the reward so far, and the mean loss and the share of right answers of this group."""
    losses = [record["loss"] for record in group if record.get("loss") is not None]
    verdicts = [verdict for record in group for verdict in record.get("correct") or [] if verdict is not None]
    found = {} if reward is None else {"reward": reward}
    if losses:
        found["loss"] = sum(losses) / len(losses)
    if verdicts:
        found["accuracy"] = sum(verdicts) / len(verdicts)
    return found
