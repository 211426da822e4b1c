"""The records in a run's folder, read together, and the words for what they are about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from seal_jax.domains.domain import PASSAGES, TASKS, Words
from seal_jax.errors import UserError
from seal_jax.runs import keys
from seal_jax.runs.records import read

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Recorded:
    """Everything that a run has recorded so far: its config, and the records of each file (see runs/keys.py)."""

    config: Record
    rows: Sequence[Record] = ()
    items: Sequence[Record] = ()
    self_edits: Sequence[Record] = ()
    trials: Sequence[Record] = ()
    ratings: Sequence[Record] = ()
    rollouts: Sequence[Record] = ()
    phases: Sequence[Record] = ()
    updates: Sequence[Record] = ()

    @property
    def words(self) -> Words:
        """What the items of this run are called."""
        return words(self.config.get("domain", "knowledge"))

    def items_of(self, split: str) -> list[Record]:
        return [item for item in self.items if item["split"] == split]

    def trials_of(self, split: str) -> list[Record]:
        return [trial for trial in self.trials if trial["split"] == split]


def load(folder: epath.Path) -> Recorded:
    """Reads the folder of a run, which may still be going on; what is not there yet is empty."""
    names = ("rows", "items", "self_edits", "trials", "ratings", "rollouts", "phases", "updates")
    return Recorded(load_json(folder / "config.json", {}), *(read(folder / f"{name}.jsonl") for name in names))


def load_json(file: epath.Path, default: Any) -> Any:
    if not file.exists():
        return default
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); restore it from a copy") from error


def words(domain: str) -> Words:
    """What the items of a domain are called."""
    return {"knowledge": PASSAGES, "arc": TASKS}[domain]


def label(recorded: Recorded, split: str, arm: str, number: int) -> str:
    """A row of the table by its name, a round of training as 'SEAL, round 1, training'."""
    if split == keys.EVALUATION:
        names = {(row["arm"], row["round"]): row["name"] for row in recorded.rows}
        if (arm, number) in names:
            return names[arm, number]
        of_all_rows = not number and arm in (keys.OWN, keys.CONTINUAL, keys.GRID)
        return "the lessons" if of_all_rows else f"{round_label(arm, number)}, evaluation"
    return f"{round_label(arm, number)}, training"


def round_label(arm: str, number: int) -> str:
    return f"{arm}, round {number}" if number else arm
