"""What the model said before and after: a few questions with the gold answer and the answers of some rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from seal_jax.report.recorded import Recorded
from seal_jax.report.tables import declared_rows, evaluation_trials, source_of
from seal_jax.runs import keys

COUNT = 3


@dataclass(frozen=True)
class Answered:
    """What a row answered; right: the judge's verdict, None where it could not grade."""

    row: str
    text: str
    right: bool | None


@dataclass(frozen=True)
class Shown:
    """A question about a passage, and the answers to it: first the untrained model's, last that of the last policy."""

    passage: str
    question: str
    gold: str
    answers: Sequence[Answered]


def examples(recorded: Recorded, count: int = COUNT) -> list[Shown]:
    """The first question of each of the first `count` passages, so that nobody chose them by their answers.

    Rows are the untrained one, the self-edits without RL, and SEAL's last (in continued pretraining the least and the
    most self-edits); of each the first trial of the passage.
    Nothing where no such row has answers, or items have no questions.
    """
    declared, trials = declared_rows(recorded), evaluation_trials(recorded)
    untrained = [key for key, row in declared.items() if row["kind"] == "untrained"][:1]
    learned = sorted(key for key in declared if key[0] in (keys.SEAL, keys.OWN))
    rows = list(dict.fromkeys([*untrained, *learned[:1], *learned[-1:]]))
    first = {}
    for key in rows:
        for trial in trials.get(source_of(key, declared), []):
            if trial["answers"] and trial["failure"] is None:
                first.setdefault((key, trial["item"]), trial)
    found = []
    for item in recorded.items_of(keys.EVALUATION):
        answered = [(key, first[key, item["item"]]) for key in rows if (key, item["item"]) in first]
        if len(found) == count or len(answered) < 2 or not item.get("questions"):
            continue
        asked = item["questions"][0]
        answers = [
            Answered(declared[key]["name"], trial["answers"][0].strip(), trial["correct"][0]) for key, trial in answered
        ]
        found.append(Shown(item["title"], asked["question"], asked["answer"], answers))
    return found
