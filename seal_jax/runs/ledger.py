"""Records by key: what is recorded is not computed again, which is all that continuing a run takes.

In a run of several hosts all of them hold the records, and the first one has the file.
"""

import json
import os
from collections.abc import Iterable, Sequence

from seal_jax.parallel import from_first, is_first
from seal_jax.runs.records import Record, Records


class Ledger:
    """The records of one file, found by the values of their `fields`; appended in groups that are whole or absent."""

    def __init__(self, path: str | os.PathLike, fields: Sequence[str]):
        self.path, self.fields = path, tuple(fields)
        self._records = Records(path) if is_first() else None
        text = from_first(json.dumps(self._records.load() if self._records else None).encode())
        self._found = {self.key(record): record for record in json.loads(text)}

    def key(self, record: Record) -> tuple:
        return tuple(record[field] for field in self.fields)

    def has_all(self, keys: Iterable[tuple]) -> bool:
        return all(key in self._found for key in keys)

    def __getitem__(self, key: tuple) -> Record:
        return self._found[key]

    def append(self, records: Sequence[Record]) -> None:
        """Write as one group what is not there yet; it is on disk when this returns."""
        fresh = [record for record in records if self.key(record) not in self._found]
        if self._records:
            self._records.append_many(fresh)
        self._found.update((self.key(record), record) for record in fresh)

    def all(self) -> list[Record]:
        """Every record, in the order in which they were written."""
        return list(self._found.values())

    def close(self) -> None:
        if self._records:
            self._records.close()
