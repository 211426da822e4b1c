#!/usr/bin/env bash
# One machine with NVIDIA GPUs: makes the environment with JAX for CUDA 12, and one process drives all the GPUs.
#
#   bash launch/gpu.sh [--dry-run] --config=configs/knowledge_qwen2_5_7b.py --workdir=runs/mine [FLAGS of seal_jax.main]
#
# --dry-run prints the commands instead of running them. CUDA_VISIBLE_DEVICES=0,1 leaves the other GPUs alone.
# Starting it again continues the run where it stopped.
set -euo pipefail
launch="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$launch/_env.sh"
source "$launch/_command.sh"

seal_arguments "$@"
seal_check_run ${seal_rest[@]+"${seal_rest[@]}"}
seal_gpu_settings

seal_do cd "$seal_root"
seal_install_gpu
seal_become env "${seal_settings[@]}" .venv/bin/python -m seal_jax.main "${seal_rest[@]}"
