"""A comparison of runs as text for a terminal, Markdown, JSON or one HTML page."""

import json
import textwrap
from collections.abc import Sequence
from importlib import resources

import jinja2

from seal_jax.report import cells, forgetting, paper, tables
from seal_jax.report.cells import ABSENT, Table
from seal_jax.report.compare import Comparison
from seal_jax.report.estimates import Estimate
from seal_jax.text import columns as aligned

WIDTH = 80
FIELD_NOTE = "A field that all columns share is not shown."


def all_tables(found: Comparison) -> list[Table]:
    """The accuracy with the paper's numbers, of every seed, and differences; what differs in the configs; the rest."""
    made = []
    for place, measure in enumerate(found.cells):
        made.append(_measure(found, measure))
        if not place and any(len(column.seeds) > 1 for column in found.columns):
            made.append(_seeds(found, measure))
        if any(cell.versus_first for cell in found.cells[measure].values()):
            made.append(_versus(found, measure))
        made += _over(found, measure)
        if not place and found.changes:
            header = ["field", *(column.name for column in found.columns)]
            rows = [[name, *values] for name, values in found.changes]
            made.append(Table("What differs in the configs", header, rows, FIELD_NOTE))
    return made + forgetting.side_by_side([(column.name, column.runs) for column in found.columns])


def notes(found: Comparison) -> list[str]:
    """What a reader has to know; one sentence or two each."""
    many = found.columns[0].runs[0].words.many
    setting, _ = _paper(found)
    said = [
        f"Means ± half of the 95% interval over {many}; with several seeds every one of the {many} is averaged over "
        "them first, what whole runs differ by is part of the interval, and their standard deviation stands in a table "
        f"of its own. Differences are paired; of single runs their intervals are from a bootstrap over {many}.",
        paper.NOTE.format(setting=setting),
    ]
    judges = {column.name: column.judge for column in found.columns}
    if len(set(judges.values())) > 1:
        listed = ", ".join(f"{judge} in {name}" for name, judge in judges.items())
        said.append(f"The judges differ ({listed}), and with them what “right” means: accuracies are not comparable.")
    other = [column.name for column in found.columns if column.items != found.columns[0].items]
    if other:
        said.append(f"Other {many} than in {found.columns[0].name}, so that nothing is paired: {', '.join(other)}.")
    return said


def as_text(found: Comparison) -> str:
    """For a terminal of any width: rows are not broken."""
    parts = [textwrap.fill(note, WIDTH) for note in notes(found)]
    for table in all_tables(found):
        shown = "\n".join(part for part in (table.title, textwrap.fill(table.note, WIDTH)) if part)
        parts.append(f"{shown}\n{aligned(table.header, table.rows)}")
    return "\n\n".join(parts)


def as_markdown(found: Comparison) -> str:
    """Tables with pipes."""

    def line(entries: Sequence[str]) -> str:
        return "| " + " | ".join(entry.replace("|", "\\|").replace("\n", " ") for entry in entries) + " |"

    parts = list(notes(found))
    for table in all_tables(found):
        rule = "|" + "---|" * len(table.header)
        body = "\n".join([line(table.header), rule, *map(line, table.rows)])
        parts.append("\n\n".join(part for part in (f"**{table.title}**", table.note, body) if part))
    return "\n\n".join(parts) + "\n"


def as_json(found: Comparison) -> str:
    """Numbers as they are: accuracies from 0 to 1, the paper's in %."""
    setting, known = _paper(found)
    value = {
        "columns": [
            {"name": column.name, "runs": list(column.names), "seeds": list(column.seeds), "judge": column.judge,
             "items": len(column.items)}
            for column in found.columns
        ],
        "rows": [
            {
                "arm": row.arm, "round": row.round, "name": row.name, "paper": known.get(row[:2]),
                "cells": [
                    {measure: _cell(found.cells[measure].get((row, place))) for measure in found.cells}
                    for place in range(len(found.columns))
                ],
            }
            for row in found.rows
        ],
        "paper": setting,
        "changes": [{"field": name, "values": list(values)} for name, values in found.changes],
        "notes": notes(found),
    }  # fmt: skip
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_html(found: Comparison) -> str:
    """One page that needs no other file."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    template = resources.files("seal_jax.report").joinpath("compared.html.j2").read_text(encoding="utf-8")
    names = " · ".join(column.name for column in found.columns)
    return environment.from_string(template).render(name=names, notes=notes(found), tables=all_tables(found))


FORMATS = {"terminal": as_text, "markdown": as_markdown, "json": as_json, "html": as_html}


def _paper(found: Comparison) -> tuple[str, dict]:
    """Of the first run; result files tell no setting."""
    column = next((one for one in found.columns if not one.is_file), found.columns[0])
    return paper.numbers(column.config, len(column.items))


def _measure(found: Comparison, measure: str) -> Table:
    known = _paper(found)[1] if measure == "accuracy" else {}
    rows = []
    for row in found.rows:
        own = [found.cells[measure].get((row, place)) for place in range(len(found.columns))]
        shown = [ABSENT if cell is None else cells.number(cell.value, measure) for cell in own]
        rows.append([row.name, *shown, *([f"{known[row[:2]]:.1f}" if row[:2] in known else ABSENT] if known else [])])
    header = ["row", *(column.name for column in found.columns), *(["paper"] if known else [])]
    return Table(cells.TITLES[measure].capitalize(), header, rows)


def _versus(found: Comparison, measure: str) -> Table:
    rows = []
    for row in found.rows:
        own = [found.cells[measure].get((row, place)) for place in range(1, len(found.columns))]
        if any(cell and cell.versus_first for cell in own):
            rows.append([row.name, *(cells.number(cell and cell.versus_first, measure, "+") for cell in own)])
    title = f"{cells.DIFFERENCES[measure]}, from the same row of {found.columns[0].name}"
    return Table(title, ["row", *(column.name for column in found.columns[1:])], rows)


def _over(found: Comparison, measure: str) -> list[Table]:
    """For each comparison the differences between rows of one column."""
    made = []
    for comparison in tables.COMPARISONS:
        rows = []
        for row in found.rows:
            own = [found.cells[measure].get((row, place)) for place in range(len(found.columns))]
            if any(cell and comparison in cell.over for cell in own):
                values = [cell.over.get(comparison) if cell else None for cell in own]
                rows.append([row.name, *(cells.number(value, measure, "+") for value in values)])
        if rows:
            title = f"{cells.DIFFERENCES[measure]}, {comparison} of the same column"
            made.append(Table(title, ["row", *(column.name for column in found.columns)], rows))
    return made


def _seeds(found: Comparison, measure: str) -> Table:
    """The mean of every seed, and the standard deviation between them."""
    scale, digits = cells.SCALES[measure]
    rows = []
    for row in found.rows:
        shown = []
        for place in range(len(found.columns)):
            cell = found.cells[measure].get((row, place))
            if cell is None or cell.spread is None:
                shown.append(ABSENT)
            else:
                each = " ".join(f"{value * scale:.{digits}f}" for value in cell.runs)
                shown.append(f"{each} (sd {cell.spread * scale:.{digits}f})")
        rows.append([row.name, *shown])
    title = f"{cells.TITLES[measure].capitalize()}, of every seed"
    return Table(title, ["row", *(column.name for column in found.columns)], rows)


def _cell(cell) -> dict | None:
    if cell is None:
        return None
    return {
        **_numbers(cell.value), "runs": list(cell.runs), "between_runs_sd": cell.spread,
        "over": {name: _numbers(value) for name, value in cell.over.items()},
        "versus_first": cell.versus_first and _numbers(cell.versus_first),
    }  # fmt: skip


def _numbers(value: Estimate) -> dict:
    known = value.has_interval
    return {"mean": value.mean, "low": value.low if known else None, "high": value.high if known else None,
            "items": value.count}  # fmt: skip
