"""Tells before paying whether a config fits a TPU slice, and how long a round takes at best; no TPU is needed.

    python -m seal_jax.fit --config=configs/knowledge_qwen2_5_7b_v5e_16.py --topology=v5e-16

The run's real programs are compiled with libtpu (pip install -e '.[tpu]') and their memory, FLOPs and collectives read
off. --largest looks for the most candidates in flight. Exit status: 0; 1 where something does not fit, after one
sentence with the mend; 2 after one sentence about bad input.
"""

import logging
import os
import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from seal_jax import config as config_lib
from seal_jax.errors import UserError

FLAGS = flags.FlagValues()
CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.", flag_values=FLAGS)
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "A TPU slice: v4-8, v5e-16, v5p-8, v6e-8, v5e-256, …", flag_values=FLAGS
)
LARGEST = flags.DEFINE_bool("largest", False, "Look for the most candidates in flight that fit.", flag_values=FLAGS)


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a TPU that is attached is left alone
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    try:
        return run(*read_flags(argv))
    except UserError as error:
        print(f"seal_jax: {error}", file=sys.stderr)
        return 2


def read_flags(argv: Sequence[str]) -> tuple[config_lib.Config, str, bool]:
    """(config, topology, largest) from the command line. Raises UserError for whatever is wrong."""
    app.define_help_flags()
    try:
        rest = FLAGS(list(argv))
        values = CONFIG.value.to_dict() if CONFIG.value is not None else None
    except (flags.Error, UserError, AttributeError, KeyError, TypeError, OSError) as error:
        raise UserError(str(error).strip().split("\n")[-1].strip().strip('"')) from error
    if len(rest) > 1:
        known = "--config=FILE, --config.GROUP.FIELD=VALUE, --topology=SLICE and --largest"
        raise UserError(f"{rest[1]!r} is not a flag; there are {known}")
    if values is None or not TOPOLOGY.value:
        missing = "--config=FILE, such as configs/knowledge_qwen2_5_7b.py" if values is None else "--topology=v5e-16"
        raise UserError(f"give {missing}")
    return config_lib.from_dict(values), TOPOLOGY.value, LARGEST.value


def run(config: config_lib.Config, name: str, largest: bool) -> int:
    """Compile, print the tables, return the exit status. What is slow to import is imported once the input is read."""
    from seal_jax.fitting import chips, report

    if config.experiment != "single_passage":
        raise UserError(f"fit knows the programs of single_passage; the config's experiment is {config.experiment}")
    if not largest and not config.engine.candidates:
        raise UserError(
            "config.engine.candidates is 0, which a run settles on its own devices; give a number, or find one with "
            "--largest"
        )
    topology = chips.topology(name)
    devices = topology.devices()
    return report.show_largest(config, topology, devices) if largest else report.show(config, topology, devices)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
