"""Numbers and texts of a run for TensorBoard, and for Weights & Biases where asked for."""

import importlib.util
import os
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorboardX
from etils import epath

from seal_jax.errors import UserError
from seal_jax.runs.records import in_bucket


class Metrics:
    """Writes scalars and texts by step; with `enabled=False` (every process but the first) it does nothing."""

    def __init__(
        self,
        folder: str | os.PathLike,
        enabled: bool = True,
        wandb_project: str | None = None,
        config: Mapping[str, Any] | None = None,
    ):
        """`folder` receives the event files; `wandb_project` also sends everything there, together with `config`."""
        self._writer = None
        self._wandb = None
        if enabled:
            if wandb_project:
                self._wandb = _start_wandb(epath.Path(folder), wandb_project, dict(config or {}))
            self._writer = tensorboardX.SummaryWriter(os.fspath(folder))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes each value under its name, such as "reward/mean"."""
        if self._writer is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(name, float(np.asarray(value)), step)
        if self._wandb is not None:
            self._wandb.log({"step": step, **{name: float(np.asarray(value)) for name, value in values.items()}})

    def text(self, step: int, name: str, text: str) -> None:
        """Writes a text as it is: TensorBoard would otherwise read it as Markdown and join its lines."""
        if self._writer is None:
            return
        self._writer.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()), step)
        if self._wandb is not None:
            self._wandb.log({"step": step, name: text})

    def flush(self) -> None:
        """Makes everything written so far visible to readers."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
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
    return wandb.init(project=project, id=file.read_text(), resume="allow", config=config, dir=local)
