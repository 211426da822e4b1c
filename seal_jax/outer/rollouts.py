"""E-step: self-edits of the training items with what they earned, as the improvers see them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seal_jax.authors.author import Author, SelfEdit
from seal_jax.domains.domain import Prompt
from seal_jax.rewards.reward import Scores
from seal_jax.runs.keys import Stage
from seal_jax.runs.recorder import Recorder


@dataclass(frozen=True)
class Rollout:
    """One self-edit of an item: what was asked, what was written, and what it earned (None: no reward).

    base: what the untrained student earns on the item; accuracy: share of right answers after training on it;
    retrains: by how many inner loops its reward is known.
    """

    item: Any
    prompt: Prompt
    sample: int
    edit: SelfEdit
    reward: float | None = None
    base: float | None = None
    accuracy: float | None = None
    retrains: int = 0


def write(
    author: Author, items: Sequence[Any], samples: int, stage: Stage, seed: tuple[int, int], recorder: Recorder
) -> dict[str, list[SelfEdit]]:
    """Self-edits of a stage, from the records where they are there -> {item id: its samples}."""
    ledger = recorder.edits
    wanted = {item.id: [stage.edit(item.id, k) for k in range(samples)] for item in items}
    left = [item for item in items if not ledger.has_all(wanted[item.id])]

    def groups() -> Iterator[list[dict]]:
        for written in author.write(left, samples, seed):
            yield [edit_record(stage, item, k, edit) for item, edits in written.items() for k, edit in enumerate(edits)]

    if left:
        recorder.fill(stage, ledger, [key for keys in wanted.values() for key in keys], groups())
    return {item.id: [edit_of(ledger[key]) for key in wanted[item.id]] for item in items}


def rollouts(
    items: Sequence[Any],
    prompts: Mapping[str, Prompt],
    edits: Mapping[str, Sequence[SelfEdit]],
    scores: Mapping[str, Scores] | None,
) -> list[Rollout]:
    """Every self-edit of every item, item by item; without scores nothing has a reward.

    prompts: the domain's, {item id: prompt}; a self-edit that answers another one keeps it.
    """
    found = []
    for item in items:
        earned = scores[item.id] if scores is not None else Scores([None] * len(edits[item.id]))
        right = earned.accuracies or [None] * len(edits[item.id])
        retrains = earned.retrains or [0] * len(edits[item.id])
        for k, edit in enumerate(edits[item.id]):
            known = earned.rewards[k], earned.base, right[k], retrains[k]
            asked = prompts[item.id] if edit.prompt is None else replace(prompts[item.id], text=edit.prompt)
            found.append(Rollout(item, asked, k, edit, *known))
    return found


def by_item(found: Sequence[Rollout]) -> dict[str, list[Rollout]]:
    """Rollouts grouped by item, in order."""
    groups: dict[str, list[Rollout]] = {}
    for rollout in found:
        groups.setdefault(rollout.item.id, []).append(rollout)
    return groups


def edit_record(stage: Stage, item: str, sample: int, edit: SelfEdit) -> dict:
    """A self-edit as it is recorded."""
    return {
        "split": stage.split,
        "arm": stage.arm,
        "round": stage.round,
        "item": item,
        "sample": sample,
        "text": edit.text,
        "tokens": list(edit.tokens),
        "log_probs": list(edit.log_probs),
        "finished": edit.finished,
        "problem": edit.problem,
        "attempts": edit.attempts,
        **({} if edit.prompt is None else {"prompt": edit.prompt}),
    }


def edit_of(record: Mapping) -> SelfEdit:
    """The self-edit of a record."""
    return SelfEdit(
        record["text"],
        tuple(record["tokens"]),
        tuple(record["log_probs"]),
        record["finished"],
        record["problem"],
        record["attempts"],
        record.get("prompt"),
    )
