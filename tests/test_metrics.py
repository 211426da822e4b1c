"""Numbers reach TensorBoard, and Weights & Biases where asked for."""

import math
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from seal_jax.errors import UserError
from seal_jax.runs.metrics import Metrics


def read_events(folder: Path) -> list[Event]:
    """The events of the one file in `folder` (each: length, checksum, data, checksum)."""
    (file,) = folder.glob("events.*")
    data, events = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_scalars_reach_tensorboard_in_any_order_of_steps(tmp_path):
    with Metrics(tmp_path / "metrics") as metrics:
        metrics.scalars(3, {"reward/mean": np.float32(0.25), "loss": 2})
        metrics.scalars(1, {"reward/mean": 0.5})
    found = [(event.step, value.tag, value.simple_value)
             for event in read_events(tmp_path / "metrics") for value in event.summary.value]  # fmt: skip
    assert found == [(3, "reward/mean", 0.25), (3, "loss", 2.0), (1, "reward/mean", 0.5)]


class Run:
    """A stand-in for a run of Weights & Biases, which drops a point whose own step is not the greatest so far."""

    def __init__(self, calls: list):
        self.calls, self.step, self.defined = calls, -1, {}

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.defined[name] = step_metric

    def log(self, values: dict, step: int | None = None) -> None:
        step = self.step + 1 if step is None else step
        if step > self.step:
            self.step = step
            self.calls.append(values)

    def finish(self) -> None:
        self.calls.append("finish")


@pytest.fixture
def wandb(monkeypatch):
    """(runs, what was called) of a made-up wandb."""
    runs, calls = [], []

    def init(**options):
        calls.append(options)
        runs.append(Run(calls))
        return runs[-1]

    fake = ModuleType("wandb")
    fake.__spec__ = ModuleSpec("wandb", None)
    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return runs, calls


def test_wandb_only_when_asked_for_and_continued_under_the_same_id(tmp_path, wandb):
    _, calls = wandb
    with Metrics(tmp_path) as metrics:
        metrics.scalars(1, {"x": 1.0})
    assert calls == []
    for _ in range(2):
        with Metrics(tmp_path, "p", {"seed": 1}) as metrics:
            metrics.scalars(2, {"x": np.float32(1.0)})
    first, second = calls[0], calls[3]
    assert first["project"] == "p" and first["config"] == {"seed": 1} and first["resume"] == "allow"
    assert first["id"] == second["id"] and calls[1] == {"step": 2, "x": 1.0} and calls[2] == "finish"


def test_wandb_keeps_points_whose_step_goes_back(tmp_path, wandb):
    runs, calls = wandb
    with Metrics(tmp_path, "p") as metrics:
        for step in (0, 2, 1):
            metrics.scalars(step, {"x": math.pi})
    assert [values["step"] for values in calls[1:-1]] == [0, 2, 1]
    assert runs[0].defined == {"step": None, "*": "step"}  # the step that we log is the axis of all others


def test_wandb_asked_for_but_absent(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="wandb is not installed"):
        Metrics(tmp_path, "p")
    assert list(tmp_path.iterdir()) == []


def offline_records(file: Path):
    """The records of W&B's log of an offline run: blocks of 32 KiB, in them parts with checksum, length and type."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = file.read_bytes(), 7, b""
    while place < len(data):
        if 32768 - place % 32768 < 7:  # too little of a block for another part
            place += 32768 - place % 32768
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(whole)
            whole = b""


def test_wandb_offline_has_every_point_with_our_step_as_axis(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is optional: pip install 'seal_jax[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with Metrics(tmp_path, "p", {"seed": 1}) as metrics:
        for step in (0, 2, 1):
            metrics.scalars(step, {"x": 1.5 * step})
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found, deadline = [], time.monotonic() + 30
    while not any(record.WhichOneof("record_type") == "exit" for record in found):  # another process writes the file
        assert time.monotonic() < deadline
        time.sleep(0.1)
        found = list(offline_records(file))
    rows = [{item.key or item.nested_key[0]: float(item.value_json) for item in record.history.item}
            for record in found if record.WhichOneof("record_type") == "history"]  # fmt: skip
    assert [(row["step"], row["x"]) for row in rows] == [(0, 0.0), (2, 3.0), (1, 1.5)]
    axes = {record.metric.glob_name or record.metric.name: record.metric.step_metric
            for record in found if record.WhichOneof("record_type") == "metric"}  # fmt: skip
    assert axes["step"] == "" and axes.get("*", axes.get("x")) == "step"
