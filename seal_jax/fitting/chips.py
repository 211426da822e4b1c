"""TPU chips and the names of their slices, for compiling where there is none.

Sources: https://cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e for FLOP/s, HBM bandwidth, interconnect and slice
shapes (v4's interconnect: Jouppi et al. 2023, arXiv 2304.01433, six links of 50 GB/s); usable HBM is what libtpu
0.0.42 names when it refuses a program, a little less than the capacity.
"""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass

from seal_jax.errors import UserError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One TPU chip: usable HBM in bytes, peak bfloat16 FLOP/s, HBM bytes/s, and what the interconnect sends in bytes/s
    over all its links, two of which lie along each of the torus's axes."""

    name: str
    hbm: float
    flops: float
    hbm_bandwidth: float
    interconnect: float
    axes: int
    cores: int = 1  # TensorCores that slices' names count for each chip

    @property
    def link(self) -> float:
        """Bytes/s over one link in one direction."""
        return self.interconnect / (2 * self.axes)


CHIPS = {
    "v4": Chip("v4", 30.75 * GIB, 275e12, 1200e9, 300e9, 3, cores=2),
    "v5e": Chip("v5e", 15.75 * GIB, 197e12, 819e9, 200e9, 2),
    "v5p": Chip("v5p", 95.74 * GIB, 459e12, 2765e9, 600e9, 3, cores=2),
    "v6e": Chip("v6e", 31.25 * GIB, 918e12, 1638e9, 400e9, 2),
}
SHAPES = {  # {axes of the torus: {chips: shape of the slice}}
    2: {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    3: {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8"},
}


@dataclass(frozen=True)
class Topology:
    """A slice: its name for users and for libtpu, its kind of chip and their number."""

    name: str
    libtpu: str
    chip: Chip
    chips: int

    def devices(self) -> Sequence:
        """Devices to compile for, one for each chip. Raises UserError where libtpu is absent."""
        if not has_libtpu():
            raise UserError(
                "fit compiles with libtpu, which is not installed: pip install -e '.[tpu]' (it needs no TPU)"
            )
        # What libtpu reads from a TPU machine's environment; without a TPU several processes may load it.
        asked = {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}
        for name, value in {**asked, "ALLOW_MULTIPLE_LIBTPU_LOAD": "true"}.items():
            os.environ.setdefault(name, value)
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"
        import jax
        from jax.experimental import topologies

        options = {}
        if self.chip.name == "v4":
            options["chip_config_name"] = "megacore"  # a chip's two cores as one device, as Cloud TPU VMs have it
        if self.chips == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        try:
            return topologies.get_topology_desc(platform="tpu", topology_name=self.libtpu, **options).devices
        except jax.errors.JaxRuntimeError as error:
            said = str(error).splitlines()[0]
            raise UserError(f"--topology={self.name}: libtpu does not give {self.libtpu} ({said})") from error


def has_libtpu() -> bool:
    return importlib.util.find_spec("libtpu") is not None or os.path.isfile(os.environ.get("TPU_LIBRARY_PATH", ""))


def topology(name: str) -> Topology:
    """From a slice's name, such as v5e-16. v4 and v5p names count TensorCores, of which a chip has two; v5e and v6e
    names count chips. Raises UserError for a name that no slice has."""
    kind, _, size = name.lower().replace("v5litepod", "v5e").partition("-")
    if kind not in CHIPS or not size.isdigit():
        raise UserError(f"--topology={name}: no such slice; give one such as v4-8, v5e-16, v5p-8 or v6e-8")
    chip = CHIPS[kind]
    shapes = SHAPES[chip.axes]
    chips = int(size) / chip.cores
    if chips not in shapes:
        known = ", ".join(f"{kind}-{count * chip.cores}" for count in shapes)
        raise UserError(f"--topology={name}: no such slice; there are {known}")
    return Topology(name, f"{kind}:{shapes[int(chips)]}", chip, int(chips))
