"""The tables of a run as cells of text and the notes that belong to them, for the terminal and for report.html."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from seal_jax.domains.domain import Words
from seal_jax.report import agreement, answers, tables
from seal_jax.report.recorded import Recorded, round_label
from seal_jax.report.tables import Estimate, Line, Round
from seal_jax.runs import keys

ABSENT, REPEATED = "–", "="
NO_INTERVAL = f"± {ABSENT}"
SCALES = {  # factor, decimals
    "accuracy": (100, 1),
    "expected": (100, 1),
    "log_likelihood": (1, 2),
    "reward": (1, 2),
    "correlation": (1, 2),
}
TITLES = {"accuracy": "accuracy, %", "expected": "expected, %", "log_likelihood": "log-likelihood"}
DIFFERENCES = {
    "accuracy": "Difference in accuracy, points",
    "expected": "Difference in expected accuracy, points",
    "log_likelihood": "Difference in log-likelihood, nats per token",
}
ANSWER_COLUMNS = ("row", "F1, %", "exact, %", "BLEU", "in self-edit, %")
ANSWER_NOTE = (
    "“F1”, “exact”: words shared with the gold answer, and the same words, as SQuAD counts them; “BLEU”: sacrebleu, "
    "over all answers of a row. Right answers in sentences score low in all three. “in self-edit”: share of gold "
    "answers that stand word for word (stemmed) in the row's self-edits."
)
DRIFT_COLUMNS = ("round", "self-edits", "entropy", "KL to the one before", "KL to the first", "clipped")
DRIFT_NOTE = (
    "In nats per token, estimated from the self-edits that taught it: entropy of the policy that wrote them, and how "
    "far the policy has moved from it and from the first one. “clipped”: tokens whose ratio ended beyond the clipping "
    "range."
)
ROUND_COLUMNS = {"untrained": "untrained", "all": "all", "best": "best", "chosen": "chosen"}


@dataclass(frozen=True)
class Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""  # what a reader has to know before


def number(value: Estimate | None, measure: str, sign: str = "") -> str:
    """'12.0 ± 3.1', or '0.0 (0.0 to 27.8)' where the interval is not symmetric, or '12.0 ± –' where there is none.

    Accuracies are in percent; `sign` is '+' for a difference.
    """
    if value is None or np.isnan(value.mean):
        return ABSENT
    scale, digits = SCALES[measure]

    def text(part: float, sign: str = sign) -> str:
        return f"{round(part * scale, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no minus before a zero

    if not value.has_interval:
        return f"{text(value.mean)} {NO_INTERVAL}"
    if value.symmetric:
        return f"{text(value.mean)} ± {text(value.high - value.mean, '')}"
    return f"{text(value.mean)} ({text(value.low)} to {text(value.high)})"


def share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else ABSENT


def row_table(lines: Sequence[Line], total: int, words: Words) -> Table:
    """Every row with its measures, the share of answers that were cut off, and what else was counted."""
    shown = [measure for measure in TITLES if any(measure in line.measures for line in lines)]
    solved = ["solved"] if words.one == "task" else []
    header = ["row", *(TITLES[measure] for measure in shown), "cut off", *solved, "failed"]
    rows = []
    for line in lines:
        counts = line.counts
        cells = [number(line.measures[measure], measure) for measure in shown] + [share(counts.cut, counts.texts)]
        cells += [f"{counts.solved} of {counts.trials}"] if solved else []
        rows.append([row_name(line, total), *cells, str(counts.failed)])
    return Table("", header, rows)


def difference_tables(lines: Sequence[Line]) -> list[Table]:
    """For each measure the paired differences of every row from the rows it is compared with."""
    compared = [name for name in tables.COMPARISONS if any(name in line.over for line in lines)]
    rows = [line for line in lines if line.over]
    return [
        Table(
            title,
            ["row", *compared],
            [[line.name, *(number(line.over.get(name, {}).get(measure), measure, "+") for name in compared)]
             for line in rows],
        )
        for measure, title in DIFFERENCES.items()
        if any(measure in line.measures for line in rows)
    ]  # fmt: skip


def answer_tables(recorded: Recorded, lines: Sequence[Line]) -> list[Table]:
    """What else is measured of the answers of passages, a line for each row; nothing for other items."""
    found = answers.by_row(recorded) if recorded.words.one == "passage" else {}
    rows = []
    for line in lines:
        if (line.arm, line.round) in found:
            row = found[line.arm, line.round]
            shares = [number(value, "accuracy") for value in (row.f1, row.exact, row.coverage)]
            rows.append([line.name, *shares[:2], f"{row.bleu:.1f}", shares[2]])
    return [Table("More about the answers", ANSWER_COLUMNS, rows, ANSWER_NOTE)] if rows else []


def round_table(rounds: Sequence[Round], columns: Sequence[str] = tuple(ROUND_COLUMNS)) -> Table:
    """Rewards by round; the column of what was chosen has a star where these rewards decided the choice."""
    starred = any(entry.on_itself for entry in rounds)
    header = [ROUND_COLUMNS[name] + ("*" if starred and name == "chosen" else "") for name in columns]
    rows = [
        [round_name(entry), *(number(getattr(entry, name), "reward") for name in columns)]
        + [ABSENT if entry.heldout else str(entry.selected)]
        for entry in rounds
    ]
    return Table("", ["round", *header, "selected"], rows)


def drift_table(recorded: Recorded) -> Table | None:
    """What policy gradients did to the policy, round by round; None where another M-step taught it."""
    rows = [
        [round_label(*key), str(phase["lessons"])]
        + [f"{phase[name]:.3f}" for name in ("entropy", "kl_sampled", "kl_reference")]
        + [f"{phase['clipped']:.0%}" if "clipped" in phase else ABSENT]
        for key, phase in tables.drift(recorded).items()
    ]
    return Table("What the policy gradient did to the policy", DRIFT_COLUMNS, rows, DRIFT_NOTE) if rows else None


def row_name(line: Line, total: int) -> str:
    """The row's name, marked where its numbers repeat another row's, with how many items are measured if not all."""
    mark = f" {REPEATED}" if line.same_as else ""
    return line.name + mark + so_far(line, total)


def so_far(line: Line, total: int) -> str:
    """' (4 of 9)': on how many items a row is measured; nothing where it is on all."""
    return f" ({line.items} of {total})" if line.items < total else ""


def round_name(entry: Round) -> str:
    return round_label(entry.arm, entry.number) + (", held out" if entry.heldout else "")


def total_items(recorded: Recorded, lines: Sequence[Line]) -> int:
    """How many items each row is to be measured on."""
    return max([len(recorded.items_of(keys.EVALUATION)), *(line.items for line in lines)])


def evaluation_tables(recorded: Recorded, lines: Sequence[Line]) -> list[Table]:
    """All tables of the evaluation, the one of rows first."""
    rows = row_table(lines, total_items(recorded, lines), recorded.words)
    return [rows, *difference_tables(lines), *answer_tables(recorded, lines)]


def legend(lines: Sequence[Line], total: int, words: Words) -> str:
    """What the numbers in the tables of rows are."""
    expected = any(tables.EXPECTED in line.measures for line in lines)
    return (
        f"Evaluation on {words.count(total)}: mean ± half of the 95% interval over "
        f"{words.many}. “{NO_INTERVAL}”: no interval can be given, because there is one value only or all are equal. "
        f"Differences are paired by {words.one}. “cut off”: share of answers ended by answer_tokens. "
        "“failed”: self-edits that could not be trained on."
        + (" “expected”: mean of the judge's probabilities that an answer is right." if expected else "")
    )


def row_notes(recorded: Recorded, lines: Sequence[Line]) -> list[str]:
    """What a reader of the table of rows has to know beside its numbers; one sentence each."""
    notes = [
        f"“{REPEATED}” {line.name}: no self-edit was selected in this round, so the policy is still that of "
        f"“{line.same_as}”, whose numbers are repeated; it was not measured again."
        for line in lines
        if line.same_as
    ]
    missing = {line.name: (line.counts.ungraded, line.counts.answers) for line in lines if not line.same_as}
    missing = {name: found for name, found in missing.items() if found[0]}
    if missing:
        notes.append(f"Answers without a verdict, left out of every mean and never counted as wrong: {_each(missing)}.")
    unwritten = tables.unwritten(recorded)
    if unwritten:
        notes.append(f"Self-edits that were not written, left out of every mean: {_named(unwritten)}.")
    unfinished = tables.unfinished(recorded)
    if unfinished:
        notes.append(f"Self-edits cut off at max_new_tokens: {_each(unfinished)}.")
    failed = tables.failed(recorded)
    if failed:
        notes.append(f"Self-edits that failed, or whose training diverged: {_each(failed)}.")
    return notes


def round_notes(recorded: Recorded, rounds: Sequence[Round]) -> list[str]:
    """What a reader of the table of rounds has to know; one sentence each."""
    notes = []
    if any(entry.on_itself for entry in rounds):
        notes.append(
            "* These self-edits were selected by these very rewards, which biases their mean upwards; "
            "held-out questions and the rows of the evaluation are free of this bias."
        )
    if any(len(set(record["retrains"] or ())) > 1 for record in recorded.rollouts):
        notes.append(
            "Racing trains a self-edit again where its first rewards were good, so the mean of all is biased downwards."
        )
    notes += [
        f"{round_label(entry.arm, entry.number)} selected nothing, so the policy did not change in it."
        for entry in rounds
        if not entry.heldout and not entry.selected
    ]
    unrated = tables.unrated(recorded)
    if unrated:
        notes.append(f"Self-edits without a rating, which have no reward: {_named(unrated)}.")
    agreed = agreement.of_run(recorded)
    if agreed is not None:
        interval = f" (95% interval {agreed.low:.2f} to {agreed.high:.2f})" if agreed.has_interval else ""
        notes.append(
            f"Rank correlation of the rubric's ratings with these rewards, within one of the {recorded.words.many}: "
            f"{agreed.mean:.2f}{interval}, mean over {agreed.count}."
        )
    missing = tables.ungraded(recorded.trials_of(keys.TRAIN))
    if missing:
        notes.append(f"Answers without a verdict, left out of every reward: {missing}.")
    return notes


def _named(found: Mapping[str, str]) -> str:
    return "; ".join(f"{text} in {name}" for name, text in found.items())


def _each(found: Mapping[str, tuple[int, int]]) -> str:
    return "; ".join(f"{part} of {whole} ({share(part, whole)}) in {name}" for name, (part, whole) in found.items())
