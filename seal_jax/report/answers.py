"""What the judge does not say of answers: token F1, exact match and BLEU against gold, and whether a self-edit has it.

From the records of passages alone. Answers are sentences and gold answers phrases, so that F1, exact match and BLEU
are low for right answers as well; they compare rows, and runs with the literature.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import sacrebleu

from seal_jax.judges.words import words
from seal_jax.report.estimates import Estimate, estimate
from seal_jax.report.recorded import Record, Recorded
from seal_jax.report.tables import Key, declared_rows, evaluation_trials, item_means, source_of, written_under
from seal_jax.runs import keys

PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Measures:
    """Of one row. f1, exact: from 0 to 1, over items. bleu: of all answers together, from 0 to 100.

    coverage: share of gold answers that stand in the row's self-edits, over items, in continued pretraining in any of
    those of an item; None where it has none, or only empty ones.
    """

    f1: Estimate
    exact: Estimate
    bleu: float
    coverage: Estimate | None


def by_row(recorded: Recorded) -> dict[Key, Measures]:
    """(arm, round) -> measures of the rows whose answers are recorded.

    The answers of a trial that failed count as empty. A row whose policy is still that of another row has its measures.
    """
    gold = {
        item["item"]: [question["answer"] for question in item["questions"]]
        for item in recorded.items_of(keys.EVALUATION)
        if item.get("questions")
    }
    declared, trials = declared_rows(recorded), evaluation_trials(recorded)
    edits: dict[Key, list[Record]] = {}
    for edit in recorded.self_edits:
        if edit["split"] == keys.EVALUATION and edit["text"] is not None:
            edits.setdefault((edit["arm"], edit["round"]), []).append(edit)
    found = {}
    for key in declared:
        source = source_of(key, declared)
        answered = [trial for trial in trials.get(source, []) if trial["answers"] is not None and trial["item"] in gold]
        if answered:
            learned = edits.get(written_under(recorded, source, declared[source]["kind"]), [])
            if source[0] == keys.OWN:
                learned = _together(edits.get((keys.OWN, 0), []), source[1])
            found[key] = _measures(answered, learned, gold)
    return found


def _together(edits: Sequence[Record], count: int) -> list[Record]:
    """The first `count` self-edits of each item, as one: a row of continued pretraining learned them together."""
    texts: dict[str, list[str]] = {}
    for edit in edits:
        if edit["sample"] < count:
            texts.setdefault(edit["item"], []).append(edit["text"])
    return [{"item": item, "text": "\n".join(found)} for item, found in texts.items()]


def _measures(trials: Sequence[Record], edits: Sequence[Record], gold: dict[str, list[str]]) -> Measures:
    said = [(trial["item"], trial["answers"] if trial["failure"] is None else [""] * len(trial["answers"]))
            for trial in trials]  # fmt: skip
    pairs = [(item, list(zip(answers, gold[item], strict=True))) for item, answers in said]
    covered = [(edit["item"], [float(stands_in(answer, edit["text"])) for answer in gold[edit["item"]]])
               for edit in edits if edit["item"] in gold]  # fmt: skip
    written = covered and any(edit["text"] for edit in edits)
    flat = [pair for _, found in pairs for pair in found]
    return Measures(
        f1=estimate(item_means((item, [token_f1(*pair) for pair in found]) for item, found in pairs).values(), (0, 1)),
        exact=estimate(
            item_means((item, [exact_match(*pair) for pair in found]) for item, found in pairs).values(), (0, 1)
        ),
        bleu=bleu([answer for answer, _ in flat], [right for _, right in flat]),
        coverage=estimate(item_means(covered).values(), (0, 1)) if written else None,
    )


def normalized(text: str) -> list[str]:
    """Words as SQuAD's evaluation has them (Rajpurkar et al. 2016): lower case, no punctuation, no articles."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION)).split()


def exact_match(answer: str, gold: str) -> float:
    """1 if both are the same words, 0 otherwise."""
    return float(normalized(answer) == normalized(gold))


def token_f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall of the words, each counted as often as it stands; 0 to 1."""
    said, right = normalized(answer), normalized(gold)
    if not said or not right:
        return float(said == right)
    return 2 * (Counter(said) & Counter(right)).total() / (len(said) + len(right))


def bleu(answers: Sequence[str], gold: Sequence[str]) -> float:
    """Corpus BLEU-4 (Papineni et al. 2002) as sacrebleu computes it by default, one reference each; 0 to 100."""
    return sacrebleu.corpus_bleu(list(answers), [list(gold)], force=True).score


def stands_in(gold: str, text: str) -> bool:
    """Whether the gold answer's words, stemmed and with numbers in one form, stand in the text one after another."""
    wanted, found = words(gold), words(text)
    if not wanted:
        return gold.strip() in text
    return any(found[i : i + len(wanted)] == wanted for i in range(len(found) - len(wanted) + 1))
