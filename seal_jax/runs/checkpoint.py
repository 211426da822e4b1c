"""Checkpoints of trees of arrays, by step number. The only module that imports Orbax."""

import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from seal_jax.errors import UserError
from seal_jax.runs.records import in_bucket

Tree = Any


def save(folder: str | os.PathLike, step: int, tree: Tree) -> None:
    """Writes `tree` (arrays and numbers in dicts, lists, tuples) as `folder/step` and returns when it is complete.

    A checkpoint of the same step is replaced. One that a killed process left half-written is swept away. Raises
    UserError where it cannot be written, such as on a full disk.
    """
    with _manager(folder, create=True, cleanup_tmp_directories=True) as manager:
        if step in manager.all_steps():
            manager.delete(step)
        try:
            manager.save(step, args=ocp.args.PyTreeSave(tree), force=True)
        except (OSError, ValueError) as error:  # the second is how TensorStore says that a disk is full
            reason = str(error).splitlines()[0]
            text = f"{folder}: the checkpoint of step {step} cannot be written ({reason}); make room, then start again"
            raise UserError(f"{text} to continue") from error


def load(folder: str | os.PathLike, step: int, like: Tree = None) -> Tree:
    """Reads the checkpoint of `step` as NumPy arrays, whatever devices wrote it.

    With `like` (a tree of arrays) the result has its containers, such as the named tuples of optax, which come back as
    dicts and lists without it. Raises UserError if the step is not there, or does not have the shapes of `like`.
    """
    there = steps(folder)
    if step not in there:
        raise UserError(f"{folder}: there is no complete checkpoint of step {step}, only of {there}; name one of these")
    with _manager(folder, create=False) as manager:
        tree = manager.item_metadata(step).tree if like is None else like
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        try:
            loaded = manager.restore(step, args=ocp.args.PyTreeRestore(item=like, restore_args=as_numpy))
        except (ValueError, KeyError) as error:
            raise UserError(f"{folder}, step {step}: does not have the expected structure ({error})") from error
    loaded = jax.tree.map(np.asarray, loaded)
    if like is not None:
        _check_shapes(loaded, like, f"{folder}, step {step}")
    return loaded


def steps(folder: str | os.PathLike) -> list[int]:
    """The steps whose checkpoints are complete, in ascending order; none if the folder is not there."""
    if not epath.Path(folder).exists():
        return []
    with _manager(folder, create=False) as manager:
        return sorted(manager.all_steps())


def _manager(folder: str | os.PathLike, **options) -> ocp.CheckpointManager:
    """A manager without background threads; leaving its context closes it."""
    folder = epath.Path(folder)
    return ocp.CheckpointManager(
        folder if in_bucket(folder) else folder.absolute(),
        item_handlers=ocp.PyTreeCheckpointHandler(),
        options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False, **options),
    )


def _check_shapes(loaded: Tree, like: Tree, where: str) -> None:
    expected = jax.tree_util.tree_leaves_with_path(like)
    for (path, leaf), found in zip(expected, jax.tree.leaves(loaded), strict=True):
        if np.shape(found) != np.shape(leaf):
            name = jax.tree_util.keystr(path)
            shapes = f"has shape {np.shape(found)}, expected {np.shape(leaf)}"
            raise UserError(f"{where}: {name} {shapes}; name the model that it was made with")
