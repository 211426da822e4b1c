"""The folder of one run: who may write in it, and with which config.

A run continues with the config that it began with. The groups in config.MACHINE may change, because they change no
number, and outer.rounds may rise. A field that a run knows nothing of, since it was begun before there was one, has its
default. Any other difference is refused, and so is a second process.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from seal_jax.config import MACHINE, completed
from seal_jax.errors import UserError
from seal_jax.runs import environment
from seal_jax.runs.records import in_bucket

_ABSENT = "(absent)"


class RunDirectory:
    """An open run: its files are at `path / name`. Close it to release the folder.

    continued: whether the run had been started before, or by another host.
    """

    def __init__(self, workdir: str | os.PathLike, guest: bool = False):
        """Makes the folder and locks it. Raises UserError if it cannot be made, or another process holds it.

        A `guest` does neither: it is another host of a run whose first host holds the folder.
        """
        self.path = epath.Path(os.path.expanduser(os.fspath(workdir)))
        self.continued = guest
        self._lock = None
        self._replaced: dict | None = None  # the config that was there, where this start changed it
        if guest:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not in_bucket(self.path):
                self._lock = _lock(self.path / ".lock", str(self.path))
        except OSError as error:
            raise UserError(f"{self.path} cannot be a run directory ({error}); choose another --workdir") from error

    def forget(self) -> None:
        """Undoes what this start did to config.json, for a start that failed before it computed anything."""
        if not self.continued:
            (self.path / "config.json").unlink(missing_ok=True)
        elif self._replaced is not None:
            _write_json(self.path / "config.json", self._replaced)

    def agree_on(self, config: dict[str, Any]) -> None:
        """Writes config.json, or compares with the one that is there; sets `continued`.

        Raises UserError for a config that this run cannot continue with.
        """
        file = self.path / "config.json"
        old = _read_json(file, default=None)
        if old is None:
            if any(self.path.glob("*.jsonl")) or (self.path / "checkpoints").exists():
                raise UserError(
                    f"{self.path} holds records but no config.json to continue with; choose another --workdir"
                )
            _write_json(file, config)
            return
        if not isinstance(old, dict):
            raise UserError(f"{file} holds no config; restore it from a copy, or choose another --workdir")
        before, now = (_fixed(completed(one)) for one in (old, _with_rounds_of(config, old)))
        changed = differences(before, now)
        if changed:
            listed = "".join(f"\n  {line}" for line in changed)
            raise UserError(f"{file} has another config; choose another --workdir, or undo these changes:{listed}")
        self.continued = True
        if old != config:
            self._replaced = old
            _write_json(file, config)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # releases the lock
            self._lock = None

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_run(workdir: str | os.PathLike, config: Mapping[str, Any], devices: Sequence[str] = ()) -> RunDirectory:
    """Opens `workdir` for a run of `config` (a nested dict of JSON values), to begin or to continue it.

    Writes config.json, or replaces it where it differs in what may change, and adds a description of this start to the
    list in environment.json. Raises UserError, and changes nothing, if the folder is in use or its run cannot be
    continued with this config.
    """
    run = RunDirectory(workdir)
    try:
        starts = _read_json(run.path / "environment.json", default=[])
        if not isinstance(starts, list):
            text = f"{run.path / 'environment.json'} holds no list of starts; restore it from a copy, or remove it"
            raise UserError(text)
        run.agree_on(json.loads(json.dumps(config)))
        _write_json(run.path / "environment.json", [*starts, environment.describe(devices)])
    except BaseException:
        run.close()
        raise
    return run


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """One line "key: old value -> new value" for each dotted key in which two nested dicts differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            line
            for key in keys
            for line in differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{prefix}.{key}" if prefix else key)
        ]
    return [] if old == new or json.dumps(old) == json.dumps(new) else [f"{prefix}: {_show(old)} -> {_show(new)}"]


def _show(value: Any) -> str:
    return value if value is _ABSENT else json.dumps(value)


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that a run keeps for good."""
    return {name: value for name, value in config.items() if name not in MACHINE}


def _with_rounds_of(config: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """`config` with the number of rounds in `old` where its own is higher."""
    before, now = ((c.get("outer") or {}).get("rounds") for c in (old, config))
    if isinstance(before, int) and isinstance(now, int) and now > before:
        return {**config, "outer": {**config["outer"], "rounds": before}}
    return config


def _read_json(file: epath.Path, default: Any) -> Any:
    if not file.exists():
        return default
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); restore it from a copy, or choose another --workdir") from error


def _write_json(file: epath.Path, value: Any) -> None:
    """Replaces the file in one step: a process killed here leaves the old one or the new one."""
    text = json.dumps(value, indent=2) + "\n"
    if in_bucket(file):
        file.write_text(text)
        return
    half = f"{os.fspath(file)}.new"
    with open(half, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(half, file)


def _lock(file: epath.Path, folder: str) -> int:
    """Locks the file for this process and returns its descriptor; the system releases it however the process ends."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(f"{folder} is in use by process {holder}; wait for it, or choose another --workdir") from error
    except OSError:
        return descriptor  # a file system without locks, such as some network drives
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
