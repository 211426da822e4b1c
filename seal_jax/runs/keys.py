"""What names a record: fields, never sentences. Tables group by them; `title` puts them into words for a person.

    rows.jsonl        arm, round                                            a row of the table, as the run declares it
    items.jsonl       split, item                                           what the run is about
    self_edits.jsonl  split, arm, round, item, sample                       a text, and who wrote it
    trials.jsonl      split, arm, round, purpose, item, sample, retrain     one inner loop and its answers
    ratings.jsonl     split, arm, round, item, sample                       what a judge gave a self-edit by the rubric
    rollouts.jsonl    arm, round, item                                      rewards, and which self-edits teach
    updates.jsonl     arm, round, sequence                                  continual: what was learned and kept
    phases.jsonl      split, arm, round, purpose, began                     wall time

split: 'train' or 'evaluation'. arm: a policy that learns ('SEAL', 'random'), or a row without one ('base').
round: how often the arm's policy had learned when it wrote or was measured, plus 1 in the split 'train', where round r
leads to the policy of row r; the row of round 0 has not learned.

Of continued pretraining: the arm 'own' has self-edits, and its round is their number of each passage. Of continual
self-edits: the arms are 'continual' and 'controlled', the round is how many passages of its sequence a model has
learned, and the sequence is the `sample` of its trials and of its self-edits; those that do not depend on what was
learned are of round 0 and sample 0. Of a grid: an arm for each learning rate (of each rank, where there are several),
and its round is the number of epochs; the self-edits are those of the arm 'grid'.
"""

from dataclasses import asdict, dataclass
from typing import Any

TRAIN, EVALUATION = "train", "evaluation"
SEAL, RANDOM = "SEAL", "random"  # the arm that learns from rewards, and the control that learns from random picks
OWN = "own"  # self-edits in continued pretraining
GRID = "grid"  # what all cells of a grid have in common
CONTINUAL, CONTROLLED = "continual", "controlled"  # sequences of passages without and with the controls of forgetting
WRITE, UNTRAINED, REWARD, ANSWER, TEACH = "self-edits", "untrained", "reward", "answers", "finetuning"
RATE = "ratings"

ROW = ("arm", "round")
ITEM = ("split", "item")
EDIT = ("split", "arm", "round", "item", "sample")
TRIAL = ("split", "arm", "round", "purpose", "item", "sample", "retrain")
ROLLOUT = ("arm", "round", "item")
UPDATE = ("arm", "round", "sequence")
PHASE = ("split", "arm", "round", "purpose", "began")


@dataclass(frozen=True)
class Stage:
    """A part of a run whose records share these fields."""

    split: str
    arm: str
    round: int
    purpose: str = WRITE

    @property
    def fields(self) -> dict[str, Any]:
        return asdict(self)

    def edit(self, item: str, sample: int) -> tuple:
        """The key of a self-edit."""
        return self.split, self.arm, self.round, item, sample

    def trial(self, item: str, sample: int, retrain: int) -> tuple:
        """The key of a trial."""
        return self.split, self.arm, self.round, self.purpose, item, sample, retrain


_DOING = {
    WRITE: "writing self-edits",
    UNTRAINED: "asking the untrained student",
    REWARD: "inner loops",
    ANSWER: "answers",
    TEACH: "finetuning the policy",
    RATE: "rating self-edits",
}


def title(stage: Stage) -> str:
    """A stage in words: 'SEAL, round 1, evaluation: answers'."""
    if stage.arm in (CONTINUAL, CONTROLLED):
        number = f", passage {stage.round}" if stage.round else ""
        return f"{stage.arm}{number}: {'learning' if stage.purpose == TEACH else _DOING[stage.purpose]}"
    if stage.arm == OWN:
        number = f"{stage.round} self-edit{'s' * (stage.round > 1)} each: " if stage.round else ""
        return number + ("training" if stage.purpose == TEACH else _DOING[stage.purpose])
    number = f", round {stage.round}" if stage.round else ""
    if (stage.split, stage.purpose) == (EVALUATION, TEACH):
        return f"{stage.arm}{number}: training on all passages"
    split = ", evaluation" if stage.split == EVALUATION else ""
    return f"{stage.arm}{number}{split}: {_DOING.get(stage.purpose, stage.purpose)}"
