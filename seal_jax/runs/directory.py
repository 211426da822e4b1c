"""The folder of one run. The same config continues; another config, or a second process, is refused."""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from seal_jax.errors import UserError
from seal_jax.runs import environment
from seal_jax.runs.records import in_bucket

_ABSENT = "(absent)"


class RunDirectory:
    """An open run: `path / name` is where each part of the program puts its files. Close it to release the folder."""

    def __init__(self, workdir: str | os.PathLike, guest: bool = False):
        """Makes the folder and locks it. Raises UserError if it cannot be made, or another process holds it.

        A `guest` does neither: it is another host of a run whose first host holds the folder.
        """
        self.path = epath.Path(os.path.expanduser(os.fspath(workdir)))
        self.continued = guest  # whether the run had been started before, or by another
        self._lock = None
        if guest:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not in_bucket(self.path):
                self._lock = _lock(self.path / ".lock", str(self.path))
        except OSError as error:
            raise UserError(f"{self.path} cannot be a run directory ({error}); choose another --workdir") from error

    def forget(self) -> None:
        """Takes the config back if this start wrote it, so that a run that could not begin may begin with another."""
        if not self.continued:
            (self.path / "config.json").unlink(missing_ok=True)

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

    Writes config.json once and adds a description of this start to the list in environment.json.
    Raises UserError, and changes nothing, if the folder holds a run of a different config or is in use.
    """
    run = RunDirectory(workdir)
    try:
        run.continued = _check_config(run.path, json.loads(json.dumps(config)))
        starts = _read_json(run.path / "environment.json", default=[])
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


def _check_config(path: epath.Path, config: dict[str, Any]) -> bool:
    """Writes config.json, or compares with the one that is there; returns whether one was there."""
    file = path / "config.json"
    old = _read_json(file, default=None)
    if old is None:
        if any(path.glob("*.jsonl")) or (path / "checkpoints").exists():
            raise UserError(f"{path} holds records but no config.json to continue with; choose another --workdir")
        _write_json(file, config)
        return False
    changed = differences(old, config)
    if changed:
        listed = "".join(f"\n  {line}" for line in changed)
        raise UserError(f"{file} has another config; choose another --workdir, or undo these changes:{listed}")
    return True


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
