#!/usr/bin/env bash
# Makes the environment with what the tests need and runs them.
#
#   bash launch/test.sh [ARGUMENTS of pytest, such as tests/test_runs.py or -k lora]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
seal_env test
seal_smollm2
if ! seal_pip install "seal_jax[parity]" "torch==2.13.0"; then
    [ -z "${CI:-}" ] || seal_fail "torch 2.13.0 could not be installed (see above), and a check must not pass without it."
    printf 'seal_jax: torch 2.13.0 could not be installed; the tests that compare with PyTorch will not run\n' >&2
fi
cd "$seal_root"
# As many processes as there are cores, a file to each at a time; they share what they compile.
SEAL_JAX_TEST_CACHE="$(mktemp -d)"
export SEAL_JAX_TEST_CACHE
trap 'rm -rf "$SEAL_JAX_TEST_CACHE"' EXIT
"$seal_venv/bin/python" -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder "$@"
