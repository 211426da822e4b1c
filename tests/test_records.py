"""Append-only records: whole groups or nothing, whatever happens to the process, the disk or the file."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from seal_jax.errors import UserError
from seal_jax.runs.directory import open_run
from seal_jax.runs.records import Records, read

GROUPS = [[{"id": 1, "text": "line\nbreak \u2028 é"}], [{"id": 2}, {"id": 3, "reward": 0.1}], [{"id": 4}]]
FLAT = [record for group in GROUPS for record in group]


def write_groups(path) -> None:
    with Records(path) as records:
        for group in GROUPS:
            records.append_many(group)


def test_records_come_back_in_order_and_survive_reopening(tmp_path):
    path = tmp_path / "with space" / "edits.jsonl"
    write_groups(path)
    with Records(path) as records:
        assert records.load() == FLAT
        records.append_many([{"id": 5, "score": np.float32(0.5), "losses": np.arange(2)}])
        records.append_many([])
        assert records.load() == [*FLAT, {"id": 5, "score": 0.5, "losses": [0, 1]}]
    assert read(tmp_path / "absent.jsonl") == []


def test_a_file_cut_at_any_byte_keeps_exactly_the_whole_groups(tmp_path):
    path = tmp_path / "r.jsonl"
    write_groups(path)
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    ends = np.cumsum([0, len(lines[0]), len(lines[1]) + len(lines[2]), len(lines[3])])
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = int(np.searchsorted(ends, cut, side="right")) - 1
        expected = [record for group in GROUPS[:whole] for record in group]
        assert read(path) == expected
        assert path.stat().st_size == cut, "reading must change nothing"
        with Records(path) as records:
            assert path.stat().st_size == ends[whole]
            records.append_many([{"id": "next"}])
            assert records.load() == [*expected, {"id": "next"}]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], b'{"id": 2, oops}\n', *lines[2:]],
        lambda lines: [lines[0], b"[1]\n", *lines[2:]],
        lambda lines: [lines[0], b'{"id": 2}\n', *lines[2:]],  # not a line of append_many
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],  # two lines of a group are swapped
        lambda lines: [lines[0], lines[2], lines[3]],  # the first line of a group is missing
        lambda lines: [lines[0], lines[3]],  # a whole group is missing
        lambda lines: [lines[0], lines[1], lines[3]],  # the last line of a group is missing
    ],
)
def test_damage_in_the_middle_names_file_and_line(tmp_path, damage):
    path = tmp_path / "r.jsonl"
    write_groups(path)
    damaged = b"".join(damage(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"r\.jsonl, line [23]:"):
        Records(path)
    assert path.read_bytes() == damaged


def test_a_group_is_one_write_followed_by_a_sync(tmp_path, monkeypatch):
    calls = []
    write, fsync = os.write, os.fsync
    with Records(tmp_path / "r.jsonl") as records:
        monkeypatch.setattr(os, "write", lambda file, data: (calls.append("write"), write(file, data))[1])
        monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file))[1])
        records.append_many([{"id": i} for i in range(100)])
    assert calls == ["write", "fsync"]


def test_a_full_disk_leaves_no_part_of_a_group(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    write = os.write
    with Records(path) as records:
        records.append_many(GROUPS[0])
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
            with pytest.raises(UserError, match=r"r\.jsonl.*disk"):
                records.append_many(GROUPS[1])
        assert records.load() == GROUPS[0]
        records.append_many(GROUPS[1])
        assert records.load() == GROUPS[0] + GROUPS[1]


def test_what_cannot_be_recorded_appends_nothing(tmp_path):
    with Records(tmp_path / "r.jsonl") as records:
        with pytest.raises(ValueError, match="_group"):
            records.append_many([{"id": 1}, {"_group": 1}])
        with pytest.raises(TypeError, match="object"):
            records.append_many([{"id": 1}, {"x": object()}])
        assert records.load() == []


KILLED_WRITER = """
import sys
from seal_jax.runs.records import Records
records = Records(sys.argv[1])
print("ready", flush=True)
n = len(records.load()) // 50
while True:
    records.append_many([{"n": n, "i": i, "text": "x" * 2000} for i in range(50)])
    n += 1
"""


def test_a_killed_writer_leaves_whole_groups(tmp_path):
    path = tmp_path / "r.jsonl"
    for round_number in range(3):
        process = subprocess.Popen([sys.executable, "-c", KILLED_WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        before = path.stat().st_size
        while path.stat().st_size < before + 300_000:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Records(path) as records:
            found = [(record["n"], record["i"]) for record in records.load()]
        assert found == [(n, i) for n in range(len(found) // 50) for i in range(50)]
        assert len(found) >= 100 * (round_number + 1)


class Bucket(MemoryFileSystem):
    """A remote store in memory: paths are gs://bucket/name."""

    store: dict = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + os.fspath(path).removeprefix("gs://").strip("/")

    def glob(self, path, **options):
        return [found.lstrip("/") for found in super().glob(path, **options)]


@pytest.fixture
def bucket(monkeypatch):
    Bucket.store, Bucket.pseudo_dirs = {}, [""]
    store = Bucket(skip_instance_cache=True)
    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", lambda self, name: store)
    return Bucket


def test_a_run_in_a_bucket(bucket):
    with open_run("gs://b/run", {"seed": 1}) as run:
        write_groups(run.path / "edits.jsonl")
    with open_run("gs://b/run", {"seed": 1}) as run:
        assert run.continued
        with Records(run.path / "edits.jsonl") as records:
            records.append_many([{"id": 5}])
            assert records.load() == [*FLAT, {"id": 5}]
    assert sum(name.endswith(".jsonl") for name in bucket.store) == 4, "one object per group"
    with pytest.raises(UserError, match="seed: 1 -> 2"):
        open_run("gs://b/run", {"seed": 2})
