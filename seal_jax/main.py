"""python -m seal_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Runs the experiment of a config, or continues it. `--config=FILE:smoke` is a one-minute version; any field can be set,
such as --config.inner.learning_rate=2e-3.
"""

import logging
import sys

import jax
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

from seal_jax import config as config_lib
from seal_jax.errors import UserError
from seal_jax.experiments import single_passage
from seal_jax.runs.directory import open_run

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with :smoke for its small version.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; starting again in it continues the run.")


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, or 2 after one sentence about bad input."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]!r} is not a flag; there are --config=FILE, --config.GROUP.FIELD=VALUE and --workdir.")
        values = CONFIG.value.to_dict()
        config = config_lib.from_dict(values)
        with open_run(WORKDIR.value, values, [str(device) for device in jax.devices()]) as folder:
            single_passage.run(config, folder, Console())
    except UserError as error:
        print(f"seal_jax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seal_jax: stopped; start the same command again to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
