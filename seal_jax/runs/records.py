"""Append-only records of a run: JSON lines, written in groups that are on disk whole or not at all.

Each line carries one field of its own, `_group`: [number of the group, place in the group, size of the group]. A
process killed while writing leaves an unfinished group at the end of the file; opening the file cuts it off, so a
caller may treat what it appended in one call as one unit. In a bucket (`gs://...`), where nothing can be appended, the
path is a folder with one object per group.
"""

import json
import os
from typing import Any

from etils import epath

from seal_jax.errors import UserError

Record = dict[str, Any]


class Records:
    """The records at `path`, opened for appending; only one process may hold them open (see runs/directory.py)."""

    def __init__(self, path: str | os.PathLike):
        self.path = epath.Path(path)
        self._file = None
        data = _bytes(self.path)
        _, self._next_group, end = _parse(data, str(self.path))
        if not in_bucket(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._file, end)
            _sync_folder(self.path.parent)

    def append_many(self, records: list[Record]) -> None:
        """Appends the records as one group and returns when they are on disk; appends nothing if it has to raise."""
        if not records:
            return
        data = _encode(records, self._next_group)
        if in_bucket(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / f"{self._next_group:08d}.jsonl").write_bytes(data)
        else:
            self._append_bytes(data)
        self._next_group += 1

    def load(self) -> list[Record]:
        """All records, in the order in which they were appended."""
        return read(self.path)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _append_bytes(self, data: bytes) -> None:
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        end = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(f"only {written} of {len(data)} bytes could be written")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, end)
            raise UserError(f"{self.path}: {error}; make room on the disk and start again to continue") from error


def read(path: str | os.PathLike) -> list[Record]:
    """The complete groups of records at `path`, none if nothing is there; changes nothing, even while a run writes."""
    return _parse(_bytes(epath.Path(path)), str(path))[0]


def in_bucket(path: str | os.PathLike) -> bool:
    """Whether the path is of a remote store (`gs://...`), which can neither append nor lock."""
    return "://" in os.fspath(path)


def _bytes(path: epath.Path) -> bytes:
    if not path.exists():
        return b""
    if in_bucket(path):
        return b"".join(part.read_bytes() for part in sorted(path.glob("*.jsonl")))
    return path.read_bytes()


def _sync_folder(folder: epath.Path) -> None:
    """Makes the creation of a file in `folder` outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    """A NumPy scalar or array as plain numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a record cannot hold a {type(value).__name__}")


def _encode(records: list[Record], group: int) -> bytes:
    lines = []
    for place, record in enumerate(records):
        if "_group" in record:
            raise ValueError("the field _group of a record is reserved")
        lines.append(json.dumps(record | {"_group": [group, place, len(records)]}, default=_plain) + "\n")
    return "".join(lines).encode()


def _parse(data: bytes, name: str) -> tuple[list[Record], int, int]:
    """Splits the bytes of a file into (records of its complete groups, number of the next group, end of the last one).

    Raises UserError where the file does not have the form that `append_many` gives it, except for an unfinished end.
    """
    complete: list[Record] = []
    group: list[Record] = []
    next_group, end, position = 0, 0, 0
    lines = data.split(b"\n")[:-1]  # what follows the last newline is unfinished
    for i, line in enumerate(lines):
        position += len(line) + 1
        try:
            record = json.loads(line)
            number, place, size = record.pop("_group")
            if (number, place) != (next_group, len(group)):
                raise ValueError(f"place {place} of group {number}, expected {len(group)} of {next_group}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{name}, line {i + 1}: not the record that must stand here ({error}); "
                "restore the file from a copy, or choose another --workdir"
            ) from error
        group.append(record)
        if len(group) == size:
            complete += group
            group, next_group, end = [], next_group + 1, position
    return complete, next_group, end
