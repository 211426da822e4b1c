#!/usr/bin/env bash
# A workload on a GKE cluster with TPUs (TPU7x too), through xpk (https://github.com/AI-Hypercomputer/xpk).
#
#   bash launch/xpk.sh --name=seal-7b --cluster=C --type=v5e-16 --zone=us-west4-a --project=P \
#       --config=configs/knowledge_qwen2_5_7b.py --workdir=gs://BUCKET/runs/mine [FLAGS of seal_jax.main]
#
#   --image=IMAGE    an image of your own in which `python -m seal_jax.main` runs; without it, xpk adds this working tree
#                    to python:3.12, and each worker installs the package as it starts (a few minutes, needs the network)
#   --xpk=FLAG       a further flag of `xpk workload create`, such as --xpk=--env-file=keys.env or --xpk=--priority=high
#   --dry-run        prints the command instead of running it
#
# NAME, CLUSTER, TYPE, ZONE, PROJECT and IMAGE may also be variables. The same command, under a new name, continues the run.
# xpk workload list --cluster=C shows what goes on, xpk workload delete --cluster=C --workload=NAME ends it.
set -euo pipefail
launch="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$launch/_env.sh"
source "$launch/_command.sh"

arguments=()
further=()
while [ $# -gt 0 ]; do
    case "$1" in
    --name=*) NAME="${1#*=}" ;;
    --cluster=*) CLUSTER="${1#*=}" ;;
    --type=*) TYPE="${1#*=}" ;;
    --zone=*) ZONE="${1#*=}" ;;
    --project=*) PROJECT="${1#*=}" ;;
    --image=*) IMAGE="${1#*=}" ;;
    --xpk=*) further+=("${1#*=}") ;;
    --name | --cluster | --type | --zone | --project | --image | --xpk) seal_fail "write $1=VALUE, with =." ;;
    --dry-run) seal_dry=yes ;;
    -h | --help) seal_help "${BASH_SOURCE[0]}" ;;
    *) arguments+=("$1") ;;
    esac
    shift
done
seal_need NAME seal-7b
seal_need CLUSTER my-cluster
seal_need TYPE v5e-16
seal_need ZONE us-west4-a
seal_need PROJECT my-project
seal_check_run ${arguments[@]+"${arguments[@]}"}
case " ${arguments[*]} " in
*" --workdir=gs://"* | *" --workdir gs://"*) ;;
*) printf 'seal_jax: what a worker writes on its own disk is gone with it; --workdir=gs://BUCKET/FOLDER stays.\n' >&2 ;;
esac

options=(
    "--workload=$NAME"
    "--cluster=$CLUSTER"
    "--tpu-type=$(seal_tpu_type "$TYPE")"
    "--zone=$ZONE"
    "--project=$PROJECT"
    # Workers that were preempted or maintained start again, and the run continues; a run that fails by itself does not.
    --max-restarts=10
)
if [ -n "${IMAGE:-}" ]; then
    options+=("--docker-image=$IMAGE")
    install=""
else
    options+=(--base-docker-image=python:3.12 "--script-dir=$seal_root")
    install="pip install --quiet --editable '.[tpu]' && "
fi
# A TPU that does not start is an error then, not a slow run on the CPU; and the log shows lines as they are written.
settings=("JAX_PLATFORMS=tpu,cpu" PYTHONUNBUFFERED=1)
run="$(seal_quote env "${settings[@]}" python -m seal_jax.main "${arguments[@]}" --config.parallel.distributed=True)"

[ -n "$seal_dry" ] || command -v xpk >/dev/null || seal_fail "xpk is not installed; pip install xpk, in an environment of its own."
seal_become xpk workload create "${options[@]}" ${further[@]+"${further[@]}"} "--command=$install$run"
