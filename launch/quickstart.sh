#!/usr/bin/env bash
# Everything from nothing: makes the environment, installs the package and SmolLM2-135M-Instruct, and runs the quickstart.
#
#   bash launch/quickstart.sh [FLAGS of seal_jax.main, such as --config.seed=2 or --workdir=elsewhere]
#
# Starting it again continues the run where it stopped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
seal_env ""
seal_smollm2
cd "$seal_root"
exec "$seal_venv/bin/python" -m seal_jax.main --config=configs/quickstart.py --workdir=runs/quickstart "$@"
