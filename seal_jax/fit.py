"""Whether a config fits a TPU slice, and how long a round takes at least; no TPU is needed.

    python -m seal_jax.fit --config=configs/knowledge_qwen2_5_7b_v5e_16.py --topology=v5e-16

The run's real programs are compiled with libtpu (pip install -e '.[tpu]'), which tells their memory, FLOPs and
collectives. --largest looks for the most candidates that can be trained together. Exit status: 0; 1 where something
does not fit, after one sentence that says what to change; 2 after one sentence about bad input; 130 after Ctrl-C.
"""

import logging
import os
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from seal_jax import config as config_lib
from seal_jax.errors import UserError, told
from seal_jax.flags import read_config

FLAGS = flags.FlagValues()
CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.", flag_values=FLAGS)
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "A TPU slice: v4-8, v5e-16, v5p-8, v6e-8, v5e-256, …", flag_values=FLAGS
)
LARGEST = flags.DEFINE_bool("largest", False, "Look for the most candidates in flight that fit.", flag_values=FLAGS)


def main(argv: Sequence[str]) -> int:
    """Read the command line and run -> exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a TPU that is attached is left alone
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    try:
        return run(*read_flags(argv))
    except UserError as error:
        return told(error)
    except KeyboardInterrupt:
        print("\nseal_jax: stopped; start the same command again.", file=sys.stderr)
        return 130


def read_flags(argv: Sequence[str]) -> tuple[config_lib.Config, str, bool]:
    """(config, topology, largest) from the command line. Raises UserError for whatever is wrong."""
    values = read_config(argv, FLAGS, CONFIG)
    if not TOPOLOGY.value:
        raise UserError("give --topology=SLICE, such as --topology=v5e-16")
    return config_lib.from_dict(values), TOPOLOGY.value, LARGEST.value


def run(config: config_lib.Config, name: str, largest: bool) -> int:
    """Compile, print the tables -> exit status. Slow imports wait until the input is read."""
    from seal_jax.fitting import chips, report

    if config.domain != "knowledge":
        raise UserError(f"fit knows the programs of config.domain 'knowledge'; this config has {config.domain!r}")
    if config.experiment != "rounds":
        raise UserError(f"fit knows the programs of config.experiment 'rounds'; this config has {config.experiment!r}")
    if not config.data.train_items:
        raise UserError("config.data.train_items is 0 (all), and fit does not read the data; give a number")
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
