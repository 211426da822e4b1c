"""Where the work meets the devices: the mesh, where arrays lie, and the map over candidates. The only such place.

The mesh has two axes. Along 'candidate' every device (or group of devices) has candidates of its own and nothing is
exchanged; along 'model' a group shares the weights of one model. One device is a mesh of 1 × 1 and the same code.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seal_jax.errors import UserError

CANDIDATE, MODEL = "candidate", "model"
SPLIT_INPUT = ("o_proj", "down_proj")  # are split along their input, the other projections along their output


@dataclass(frozen=True)
class Layout:
    """A mesh and the way in which candidates are mapped over it: 'shard_map', or 'pmap' (whole models only)."""

    mesh: Mesh
    backend: str = "shard_map"

    @property
    def devices(self) -> int:
        """Devices, or groups of them, that have candidates of their own."""
        return self.mesh.shape[CANDIDATE]

    @property
    def model(self) -> int:
        """Devices over which one model is split."""
        return self.mesh.shape[MODEL]

    @property
    def device(self) -> jax.Device:
        """One of the devices; they are all alike."""
        return self.mesh.devices.flat[0]

    def sharding(self, *spec) -> NamedSharding:
        """A sharding in the one form that programs give their results, so that these fit programs made for inputs."""
        split = [axis if self.mesh.shape.get(axis, 1) > 1 else None for axis in spec]
        while split and split[-1] is None:
            split.pop()
        return NamedSharding(self.mesh, PartitionSpec(*split))

    def put(self, tree: Any, *spec) -> Any:
        """Host arrays -> arrays on the devices, split by `spec`; the same on every host. Structs stay structs."""
        return jax.tree.map(lambda leaf: _put(leaf, self.sharding(*spec)), tree)

    def put_candidates(self, tree: Any) -> Any:
        """Host arrays with a leading candidate axis -> the same on the devices, split along it."""
        return self.put(tree, CANDIDATE)

    def put_weights(self, tree: Any, **how) -> Any:
        """Weights on the devices, as `weight_shardings` has them."""
        return jax.tree.map(_put, tree, self.weight_shardings(tree, **how))

    def weight_shardings(self, tree: Any, *, candidates: bool = False, spread: bool = False) -> Any:
        """Shardings of weights, adapters or their optimizer state: split along 'model'; `candidates`: they carry a
        candidate axis; `spread`: split along 'candidate' too."""

        def one(path, leaf):
            names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
            return self.sharding(*_weight_spec(names, leaf.shape, self, candidates, spread))

        return jax.tree_util.tree_map_with_path(one, tree)

    def constrain(self, tree: Any, **how) -> Any:
        """Inside jit: keep a tree of weights where `weight_shardings` has them, so that programs fit each other."""
        return jax.tree.map(jax.lax.with_sharding_constraint, tree, self.weight_shardings(tree, **how))

    def constrain_heads(self, leaf: jax.Array, axis: int) -> jax.Array:
        """Inside jit: keep keys or values [C, ...] split along 'model' by their heads, which are this axis; for 0 there
        are none, and the leaf is split along 'candidate' alone."""
        split = MODEL if axis and leaf.shape[axis] % self.model == 0 else None
        return jax.lax.with_sharding_constraint(leaf, self.sharding(CANDIDATE, *(None,) * (axis - 1), split))

    def on_heads(self, function: Callable) -> Callable:
        """Inside `split_candidates`: function(q, k, v, rest) of q, k and v [B, heads, ...] -> [B, heads, ...], by each
        device of a group on its own heads; by each on all where they cannot be divided."""
        if self.backend == "pmap":
            return function

        def run(q, k, v, rest):
            split = PartitionSpec(None, None if k.shape[1] % self.model else MODEL)
            return jax.shard_map(
                function,
                in_specs=(split, split, split, PartitionSpec()),
                out_specs=split,
                axis_names={MODEL},
                check_vma=False,
            )(q, k, v, rest)

        return run


def make_layout(model: int = 1, backend: str = "shard_map", devices: Sequence | None = None) -> Layout:
    """A layout of all devices (or those given), `model` to a group. Raises UserError where that does not go."""
    devices = jax.devices() if devices is None else devices
    if len(devices) % model:
        options = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0]
        raise UserError(
            f"config.parallel.model: {len(devices)} devices cannot be grouped by {model}; choose one of {options}"
        )
    if backend == "pmap" and model > 1:
        raise UserError(
            "config.parallel.backend: pmap gives every device a whole model; set config.parallel.model to 1, or the "
            "backend to shard_map"
        )
    grid = np.asarray(devices).reshape(-1, model)
    return Layout(Mesh(grid, (CANDIDATE, MODEL), axis_types=(AxisType.Auto,) * 2), backend)


def split_candidates(function: Callable, axes: tuple, out_axes: Any, layout: Layout) -> Callable:
    """`function`, which works on a leading candidate axis, on every device for its own candidates.

    `axes` and `out_axes` are as in vmap, but 0 or None only, None for what all share. State must come in as an
    argument: what is created inside, equal on all devices, would be taken for shared, and its gradient summed.
    """
    if layout.backend == "pmap":
        return _pmapped(function, axes, out_axes, layout)

    def specs(tree):
        return jax.tree.map(
            lambda axis: PartitionSpec() if axis is None else PartitionSpec(CANDIDATE), tree, is_leaf=_is_none
        )

    return jax.shard_map(
        function,
        mesh=layout.mesh,
        in_specs=specs(axes),
        out_specs=specs(out_axes),
        axis_names={CANDIDATE},
        check_vma=False,
    )


def map_candidates(function: Callable, axes: tuple, out_axes: Any, layout: Layout) -> Callable:
    """`function` of one candidate over the leading axis of its arguments, on every device for its own; see above."""
    return split_candidates(jax.vmap(function, in_axes=axes, out_axes=out_axes), axes, out_axes, layout)


def fetch(array: jax.Array) -> np.ndarray:
    """An array's values, on every host."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


def fetch_all(arrays: Sequence[jax.Array]) -> list[np.ndarray]:
    """The values of vectors, with one exchange between hosts."""
    if all(array.is_fully_addressable for array in arrays):
        return [np.asarray(array) for array in arrays]
    return np.split(fetch(jnp.concatenate(arrays)), np.cumsum([array.shape[0] for array in arrays])[:-1])


# Hosts


def connect(timeout_s: int = 30) -> None:
    """Join the other hosts of the run; before anything else touches a device. Nothing is done where there is one host.

    The addresses are found by themselves on TPU pods and under SLURM; elsewhere they come from the environment:
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    given = {}
    if "JAX_NUM_PROCESSES" in os.environ:
        try:
            given = {
                "coordinator_address": os.environ["JAX_COORDINATOR_ADDRESS"],
                "num_processes": int(os.environ["JAX_NUM_PROCESSES"]),
                "process_id": int(os.environ["JAX_PROCESS_ID"]),
            }
        except (KeyError, ValueError) as error:
            raise UserError(
                f"JAX_NUM_PROCESSES is set, but {error} is not as it must be; set JAX_COORDINATOR_ADDRESS=HOST:PORT "
                "and the numbers JAX_NUM_PROCESSES and JAX_PROCESS_ID, or none of them"
            ) from error
    jax.config.update("jax_enable_preemption_service", False)  # which would keep SIGTERM from ending a process
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**given, heartbeat_timeout_seconds=timeout_s)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the hosts of the run did not find each other ({str(error).splitlines()[0]}); start the same command on "
            "all of them, or leave --config.parallel.distributed out on a single host"
        ) from error


def is_first() -> bool:
    """Whether this process is the one that judges and writes."""
    return jax.process_index() == 0


def from_first(value: bytes) -> bytes:
    """The bytes that the first process has, on all of them."""
    if jax.process_count() == 1:
        return value
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(value))))
    mine = np.frombuffer(value, np.uint8) if is_first() else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(mine)).astype(np.uint8).tobytes()


def _put(leaf, sharding):
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    if sharding.is_fully_addressable or isinstance(leaf, jax.Array):
        return jax.device_put(leaf, sharding)
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])


def _is_none(leaf) -> bool:
    return leaf is None


def _pmapped(function, axes, out_axes, layout):
    """pmap over the mesh's devices; it is given, and gives, [devices, candidates of each, ...]."""

    def run(*args):
        split = [
            _map_axes(arg, axis, lambda leaf: leaf.reshape(layout.devices, -1, *leaf.shape[1:]))
            for arg, axis in zip(args, axes, strict=True)
        ]
        devices = layout.mesh.devices.ravel().tolist()
        mapped = jax.pmap(function, axis_name=CANDIDATE, in_axes=axes, out_axes=out_axes, devices=devices)
        out = _map_axes(mapped(*split), out_axes, lambda leaf: leaf.reshape(-1, *leaf.shape[2:]))
        split_again = layout.sharding(CANDIDATE)
        return _map_axes(out, out_axes, lambda leaf: jax.lax.with_sharding_constraint(leaf, split_again))

    return run


def _map_axes(tree, axes, function):
    """`function` on the leaves whose axis, in the prefix tree `axes`, is not None."""
    return jax.tree.map(
        lambda axis, part: part if axis is None else jax.tree.map(function, part), axes, tree, is_leaf=_is_none
    )


def _weight_spec(names: Sequence[str], shape: tuple[int, ...], layout: Layout, candidates: bool, spread: bool) -> list:
    """Along what each axis of a weight is split: along 'model' one of its features, the inputs for SPLIT_INPUT."""
    spec: list = [None] * len(shape)
    if candidates and shape:
        spec[0] = CANDIDATE
    split = None
    if names[-2:-1] == ["kernel"]:  # what a quantized one is made of: its integers and its scales
        names = names[:-1]
    projection = next((name for name in names if name.endswith("_proj")), None)
    if projection is not None and names[-1] in ("kernel", "A", "B", "bias"):
        inward = {"kernel": -2, "A": -2, "B": None, "bias": None}
        outward = {"kernel": -1, "A": None, "B": -1, "bias": -1}
        split = (inward if projection in SPLIT_INPUT else outward)[names[-1]]
    elif names[-1] == "embedding":
        split = -2
    elif names[-1] == "kernel" and "lm_head" in names:
        split = -1
    if split is not None and layout.model > 1 and shape[split] % layout.model == 0:
        spec[split] = MODEL
    if spread and not candidates and len(shape) >= 2:
        free = [axis for axis in (-1, -2) if spec[axis] is None and shape[axis] % layout.devices == 0]
        if free and math.prod(shape) > layout.devices:
            spec[free[0]] = CANDIDATE
    return spec
