"""Numbers of a run for TensorBoard, and for Weights & Biases where asked for."""

import importlib.util
import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

from seal_jax.errors import UserError
from seal_jax.runs.records import in_bucket

STEP = "step"


class Metrics:
    """Writes numbers by step; in a run of several hosts only the first one makes a Metrics."""

    def __init__(self, folder: str | os.PathLike, wandb_project: str = "", config: Mapping[str, Any] | None = None):
        """`folder` receives the event files; a `wandb_project` also sends everything there, together with `config`.

        Raises UserError if a project is named and wandb is not installed.
        """
        self._wandb = _start_wandb(epath.Path(folder), wandb_project, dict(config or {})) if wandb_project else None
        # Without the queue and the thread of SummaryWriter: its flush leaves out what is queued, and where the disk is
        # full the thread ends and the next points would wait for it for ever.
        if not in_bucket(folder):
            os.makedirs(folder, exist_ok=True)
        self._writer = EventsWriter(f"{os.fspath(folder)}/events")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes each value under its name, such as "reward/mean"; steps may come in any order."""
        numbers = {name: float(np.asarray(value)) for name, value in values.items()}
        for name, value in numbers.items():
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        if self._wandb is not None:
            self._wandb.log({STEP: step, **numbers})

    def flush(self) -> None:
        """Puts everything written so far on the disk; a bucket gets the whole file again."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _start_wandb(folder: epath.Path, project: str, config: dict[str, Any]) -> Any:
    """Starts the W&B run of this folder, or continues it: its id is kept in `folder/wandb_id`."""
    if importlib.util.find_spec("wandb") is None:
        raise UserError("metrics.wandb_project is set, but wandb is not installed; run: pip install 'seal_jax[wandb]'")
    import wandb

    file = folder / "wandb_id"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(uuid.uuid4().hex)
    local = None if in_bucket(folder) else os.fspath(folder)
    run = wandb.init(project=project, id=file.read_text(), resume="allow", config=config, dir=local)
    # W&B's own step counts calls and can only grow; ours goes back, to the first round of a second arm for one.
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP)
    return run
