#!/usr/bin/env bash
# A SLURM cluster with NVIDIA GPUs, from the root of the repository:
#
#   bash launch/slurm.sh install                                          # once, where there is a network
#   sbatch --nodes=2 launch/slurm.sh --config=configs/knowledge_qwen2_5_7b.py --workdir=/shared/runs/mine
#   bash launch/slurm.sh --dry-run --config=... --workdir=...             # prints what the job would run
#
# The lines below are for nodes of eight GPUs; options of sbatch replace them (--ntasks-per-node=4 --gpus-per-node=4,
# --partition, --account). The repository and --workdir must be on a disk that all nodes share, or --workdir on gs://.
# Submitting the same command again continues the run where it stopped.
#
# One task per GPU, each of which sees all GPUs of its node, is what JAX expects of SLURM: task i takes the i-th.
#SBATCH --job-name=seal_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
# For compilation and tokenization; the default is often one.
#SBATCH --cpus-per-task=8
# All of the node's memory: every task reads the weights.
#SBATCH --mem=0
#SBATCH --time=24:00:00
# A job that was preempted starts again, and the run continues, in the same log.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=seal_jax-%j.log
set -euo pipefail
launch="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
[ -f "$launch/_env.sh" ] || launch="${SLURM_SUBMIT_DIR:-.}/launch" # sbatch runs a copy of this file, in another folder
if [ ! -f "$launch/_env.sh" ]; then
    printf 'seal_jax: %s is not the repository; go there, then: sbatch launch/slurm.sh ...\n' "${SLURM_SUBMIT_DIR:-$PWD}" >&2
    exit 1
fi
source "$launch/_env.sh"
source "$launch/_command.sh"

seal_arguments "$@"

if [ "${seal_rest[*]-}" = install ]; then
    seal_do cd "$seal_root"
    seal_install_gpu
    exit
fi
seal_check_run ${seal_rest[@]+"${seal_rest[@]}"}
if [ -z "$seal_dry" ]; then
    [ -n "${SLURM_JOB_ID:-}" ] || seal_fail "this is no SLURM job; start it with sbatch launch/slurm.sh ..., or look at it with --dry-run."
    gpus="${SLURM_GPUS_ON_NODE:-0}"
    [ "$gpus" -gt 0 ] || seal_fail "the job has no GPUs; ask for them: sbatch --gpus-per-node=N --ntasks-per-node=N launch/slurm.sh ..."
    [ "${SLURM_NTASKS_PER_NODE:-}" = "$gpus" ] ||
        seal_fail "the nodes have $gpus GPUs each and ${SLURM_NTASKS_PER_NODE:-no set number of} tasks; ask for one task per GPU: sbatch --ntasks-per-node=$gpus --gpus-per-node=$gpus ..."
fi

seal_gpu_settings
# Written to a file, Python would keep its lines back.
seal_settings+=("PYTHONUNBUFFERED=1")
options=(
    # A task that dies ends the others, which would wait for it.
    --kill-on-bad-exit=1
    # Since SLURM 22.05 srun does not take it over from sbatch.
    "--cpus-per-task=${SLURM_CPUS_PER_TASK:-8}"
    # Where a site binds each task to one GPU, task i would look for its i-th in vain.
    --gpu-bind=none
)

seal_do cd "$seal_root"
seal_install_gpu # changes nothing where `install` was run before
seal_become srun "${options[@]}" env "${seal_settings[@]}" \
    .venv/bin/python -m seal_jax.main "${seal_rest[@]}" --config.parallel.distributed=True
