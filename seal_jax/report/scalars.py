"""The curves of a run, from its records: what goes to TensorBoard, each point once however often the run is started."""

import math

from seal_jax.report import tables
from seal_jax.report.recorded import Recorded
from seal_jax.runs import keys
from seal_jax.runs.ledger import Ledger
from seal_jax.runs.metrics import Metrics

Points = dict[tuple[str, int], float]  # (name, step) -> value


def points(recorded: Recorded, rows: set[tuple[str, int]]) -> Points:
    """Accuracy, log-likelihood, reward and loss by round, what policy gradients did to the policy, and the share of
    real tokens, of the arms and rounds `rows`.

    Name only rows that are completely measured: a point that was written is not changed any more.
    """
    found: Points = {}
    for line in tables.lines(recorded):
        if (line.arm, line.round) in rows:
            found |= {(f"{name}/{line.arm}", line.round): value.mean for name, value in line.measures.items()}
    for entry in tables.rounds(recorded.rollouts):
        if (entry.arm, entry.number) in rows:
            group = "heldout_reward" if entry.heldout else "reward"
            for name in ("untrained", "all", "best", "chosen"):
                found[f"{group}/{entry.arm}/{name}", entry.number] = getattr(entry, name).mean
    for (arm, number), phase in tables.drift(recorded).items():
        if (arm, number) in rows:
            for name in ("entropy", "kl_sampled", "kl_reference", "clipped"):
                if name in phase:
                    found[f"policy/{arm}/{name}", number] = phase[name]
    for arm, number in rows:
        phases = [record for record in recorded.phases if (record["arm"], record["round"]) == (arm, number)]
        for record in phases:
            if record["purpose"] == keys.TEACH and record.get("loss") is not None:
                found[f"finetune_loss/{arm}", number] = record["loss"]
        asked = [record for record in phases if record["split"] == keys.EVALUATION]
        slots = sum(record["token_slots"] for record in asked)
        if slots:
            found[f"real_token_fraction/{arm}", number] = sum(record["real_tokens"] for record in asked) / slots
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
