"""The curves of a run, from its records: what goes to TensorBoard, each point once however often the run is started."""

import math
from collections.abc import Iterable, Mapping, Sequence

from seal_jax.runs import table
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.metrics import Metrics

Points = dict[tuple[str, int], float]  # (name, step) -> value


def points(
    trials: Iterable[Mapping], selections: Sequence[Mapping], phases: Sequence[Mapping], rows: set[str]
) -> Points:
    """Accuracy, log-likelihood, reward and loss by round of the `rows` that are whole, and the share of real tokens."""
    found: Points = {}
    for line in table.lines(trials):
        if line.name in rows:
            arm, number = _split(line.name)
            found |= {(f"{measure}/{arm}", number): value.mean for measure, value in line.measures.items()}
    for entry in table.rounds(selections):
        if f"{entry.arm}, round {entry.number}" in rows:
            group = "heldout_reward" if entry.heldout else "reward"
            for name in ("untrained", "all", "best", "chosen"):
                found[f"{group}/{entry.arm}/{name}", entry.number] = getattr(entry, name).mean
    for record in phases:
        row = record["phase"].partition(":")[0]
        if "loss" in record and row in rows:
            arm, number = _split(row)
            found[f"finetune_loss/{arm}", number] = record["loss"]
    for row in rows:
        of_row = [record for record in phases if record["phase"].startswith(f"{table.PREFIX}{row}: ")]
        slots = sum(record.get("token_slots", 0) for record in of_row)
        if slots:
            arm, number = _split(row)
            found[f"real_token_fraction/{arm}", number] = sum(record["real_tokens"] for record in of_row) / slots
    return {key: value for key, value in found.items() if math.isfinite(value)}


def publish(metrics: Metrics, written: Ledger, found: Points) -> None:
    """Writes the points that `written`, a ledger by name and step, does not have yet.

    A process that is killed between the two writes one point twice, with the same value.
    """
    fresh = [{"name": name, "step": step, "value": value} for (name, step), value in found.items()]
    fresh = [point for point in fresh if not written.has_all([written.key(point)])]
    for point in fresh:
        metrics.scalars(point["step"], {point["name"]: point["value"]})
    metrics.flush()
    written.append(fresh)


def _split(row: str) -> tuple[str, int]:
    """'SEAL, round 2' -> ('SEAL', 2); rows that belong to no round stand at 0."""
    arm, _, number = row.rpartition(", round ")
    return (arm, int(number)) if arm else (row, 0)
