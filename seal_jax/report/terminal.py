"""The tables of a run as plain text: 80 columns are enough, and a pipe or a file gets the same as a terminal."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from etils import epath

from seal_jax.domains.domain import Words
from seal_jax.report import cells, forgetting, grid, tables
from seal_jax.report.examples import Shown, examples
from seal_jax.report.recorded import Recorded, load
from seal_jax.report.tables import Line, Round
from seal_jax.runs import keys
from seal_jax.text import columns, duration, printable

WIDTH = 80


def summary(folder: epath.Path) -> str:
    """All that a run prints at its end, from the records in its folder: times, rewards by round, and its table."""
    recorded = load(epath.Path(folder))
    lines, rounds = tables.lines(recorded), tables.rounds(recorded.rollouts)
    parts = []
    if recorded.phases:
        parts += [show_phases(tables.phases(recorded.phases)), _fill(tables.usage(recorded.phases) + ".")]
    if rounds:
        parts.append(show_rounds(recorded, rounds))
    if lines:
        parts.append(show_rows(recorded, lines))
    shown = examples(recorded)
    if shown:
        parts.append(show_examples(shown, recorded.words))
    if recorded.words.one == "task" and recorded.self_edits:
        parts.append(_fill(tables.resampled(recorded.self_edits) + "."))
    return "\n\n".join(parts)


def show_rows(recorded: Recorded, lines: Sequence[Line]) -> str:
    """The tables of the evaluation with their notes."""
    total, words = cells.total_items(recorded, lines), recorded.words
    judge = tables.judge_of(recorded.trials_of(keys.EVALUATION))
    parts = [_fill(f"{cells.legend(lines, total, words)} Judge: {judge}.")]
    more = [*forgetting.tables(recorded), *grid.tables(recorded, lines)]
    parts += [_show(table) for table in [*cells.evaluation_tables(recorded, lines), *more]]
    return "\n\n".join([*parts, *_notes(cells.row_notes(recorded, lines))])


def show_examples(shown: Sequence[Shown], words: Words) -> str:
    """Questions with the answers of some rows."""
    parts = [_fill(f"Before and after: the first question of {words.first(len(shown))}; + right, - wrong")]
    for one in shown:
        said = [("", "gold", one.gold)]
        said += [({True: "+", False: "-", None: "?"}[answer.right], answer.row, answer.text or "no answer")
                 for answer in one.answers]  # fmt: skip
        width = max(len(name) for _, name, _ in said) + 2
        asked = _fill(printable(f"{one.passage}: {one.question}"))
        parts.append("\n".join([asked, *(_hanging(f"  {mark:<2}{name:<{width}}", text) for mark, name, text in said)]))
    return "\n\n".join(parts)


def show_rounds(recorded: Recorded, rounds: Sequence[Round]) -> str:
    """Rewards by round with their notes, and what policy gradients did to the policy."""
    table = cells.round_table(rounds, ("untrained", "all", "chosen"))
    title = f"Reward: mean ± half of the 95% interval over {recorded.words.many}"
    drift = cells.drift_table(recorded)
    parts = [f"{title}\n{_show(table)}", *_notes(cells.round_notes(recorded, rounds))]
    return "\n\n".join(parts + ([_show(drift)] if drift else []))


def show_phases(seconds: Mapping[str, float]) -> str:
    """Wall time by phase, over all starts of the run."""
    rows = [[name, duration(value)] for name, value in seconds.items()]
    return columns(["phase", "wall time"], [*rows, ["all phases", duration(sum(seconds.values()))]])


def _show(table: cells.Table) -> str:
    parts = [table.title, _fill(table.note), columns(table.header, table.rows)]
    return "\n".join(part for part in parts if part)


def _notes(notes: Iterable[str]) -> list[str]:
    return [_fill(note) for note in notes]


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH)


def _hanging(start: str, text: str) -> str:
    indent = " " * len(start)
    return textwrap.fill(printable(text), WIDTH, initial_indent=start, subsequent_indent=indent) or start.rstrip()
