#!/usr/bin/env bash
# A Cloud TPU slice, from nothing to a running experiment, through the TPU VM API (TPU v2 to v6e; TPU7x: launch/xpk.sh).
#
#   bash launch/tpu_vm.sh all --name=seal --type=v5e-16 --zone=us-west4-a --project=P \
#       --config=configs/knowledge_qwen2_5_7b.py --workdir=gs://BUCKET/runs/mine [FLAGS of seal_jax.main]
#   bash launch/tpu_vm.sh delete --name=seal --zone=us-west4-a --project=P
#
#   create     makes the slice. --spot: cheaper, may be taken away. --queued: waits until there is room
#   copy       this working tree, without .git, environments and runs, to every worker
#   install    Python (where the image's is too old) and the package with JAX for TPU, on every worker
#   run        python -m seal_jax.main FLAGS on every worker, detached: a lost connection does not end it
#   tail       follows the log of worker 0, or of --worker=N; Ctrl-C ends only the following
#   stop       ends the run on every worker; `run` with the same flags continues it
#   delete     deletes the slice (--queued: one that was made so), after asking; --yes does not ask
#   all        create, copy, install, run, tail
#   --dry-run  prints the commands of any of these, ready to be pasted, and runs nothing
#
# NAME, TYPE, ZONE, PROJECT and VERSION (the software of the slice, else the one for its TYPE) may also be variables.
# Several workers at once need the key in the agent: ssh-add ~/.ssh/google_compute_engine
# Keys (HF_TOKEN=..., OPENAI_API_KEY=...) and settings such as LIBTPU_INIT_ARGS go into ~/.seal_jax_env on every worker, which
# `run` reads; no flag of libtpu is set here, since it and JAX choose well for themselves.
set -euo pipefail
launch="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$launch/_env.sh"
source "$launch/_command.sh"

commands="create, copy, install, run, tail, stop, delete, all"
# shellcheck disable=SC2016  # the worker expands it
alive='{ [ -f run.pid ] && kill -0 -- -"$(cat run.pid)" 2>/dev/null; }'

create() {
    local options=("--zone=$ZONE" "--project=$PROJECT" "--accelerator-type=$TYPE")
    [ -z "$spot" ] || options+=(--spot)
    if [ -z "$queued" ]; then
        seal_do gcloud compute tpus tpu-vm create "$NAME" "${options[@]}" "--version=$VERSION"
        return
    fi
    seal_do gcloud compute tpus queued-resources create "$NAME" "--node-id=$NAME" "${options[@]}" "--runtime-version=$VERSION"
    local describe
    describe="$(seal_quote gcloud compute tpus queued-resources describe "$NAME" "--zone=$ZONE" "--project=$PROJECT" '--format=value(state.state)')"
    seal_do bash -c "while state=\"\$($describe)\"; do echo \"\$state\"; case \"\$state\" in ACTIVE) exit 0 ;; FAILED | SUSPEND*) exit 1 ;; esac; sleep 30; done; exit 1" ||
        seal_fail "the slice was not given; delete the request: bash launch/tpu_vm.sh delete --queued"
}

# A command in the home folder of a worker (its number, or all).
on_worker() {
    seal_do gcloud compute tpus tpu-vm ssh "$NAME" "--zone=$ZONE" "--project=$PROJECT" "--worker=$1" "--command=$2"
}

copy() {
    seal_do cd "$seal_root"
    seal_do mkdir -p build
    seal_do tar --exclude=./.git '--exclude=./.venv*' --exclude=./build --exclude=./runs --exclude=__pycache__ \
        -czf build/seal_jax.tar.gz .
    seal_do gcloud compute tpus tpu-vm scp build/seal_jax.tar.gz "$NAME:" "--zone=$ZONE" "--project=$PROJECT" --worker=all
    # What was deleted here is deleted there; the environment and the log stay.
    on_worker all 'mkdir -p seal_jax && cd seal_jax && rm -rf seal_jax configs launch && tar -xzf ../seal_jax.tar.gz'
}

install() {
    # Images with Ubuntu 22.04 have Python 3.10; uv brings a newer one without changing the system.
    # shellcheck disable=SC2016  # the worker expands it
    on_worker all 'cd seal_jax && source launch/_env.sh && if ! PYTHON="$(seal_find_python)"; then python3 -m pip install --quiet --user uv && python3 -m uv python install 3.12 && PYTHON="$(python3 -m uv python find 3.12)"; fi && export PYTHON && seal_env tpu'
}

run() {
    # A TPU that does not start is an error then, not a slow run on the CPU; and the log shows lines as they are written.
    local settings=("JAX_PLATFORMS=tpu,cpu" PYTHONUNBUFFERED=1) program script detached
    program="$(seal_quote env "${settings[@]}" .venv/bin/python -m seal_jax.main "$@" --config.parallel.distributed=True)"
    script="set -a; [ ! -f ~/.seal_jax_env ] || . ~/.seal_jax_env; $program; echo \"seal_jax: ended with status \$?\""
    detached="$(seal_quote setsid nohup bash -c "$script") >>run.log 2>&1 </dev/null & echo \$! >run.pid"
    # With huge pages, which JAX asks for, a TPU from v5e on starts much faster; they are off after each start of the worker.
    on_worker all "cd seal_jax || exit 1; if $alive; then echo 'seal_jax: a run is going on; end it with: launch/tpu_vm.sh stop' >&2; exit 1; fi; echo always | sudo -n tee /sys/kernel/mm/transparent_hugepage/enabled >/dev/null; $detached"
}

tail_log() {
    on_worker "$worker" 'tail -n 200 -F seal_jax/run.log'
}

stop() {
    # The program and all that it started. Once JAX is distributed it holds SIGTERM back, so SIGKILL follows; records survive it.
    on_worker all "cd seal_jax || exit 1; ! $alive || kill -- -\"\$(cat run.pid)\"; for second in 1 2 3 4 5; do $alive || exit 0; sleep 1; done; kill -KILL -- -\"\$(cat run.pid)\""
}

delete() {
    local answer="" options=("$NAME" "--zone=$ZONE" "--project=$PROJECT" --quiet)
    if [ -z "$yes" ] && [ -z "$seal_dry" ]; then
        printf 'Delete %s in %s, with all that is on its disks? [y/N] ' "$NAME" "$ZONE" >&2
        read -r answer || true
        case "$answer" in
        y | Y | yes) ;;
        *) seal_fail "$NAME was not deleted; answer y, or give --yes." ;;
        esac
    fi
    if [ -n "$queued" ]; then
        seal_do gcloud compute tpus queued-resources delete "${options[@]}" --force
    else
        seal_do gcloud compute tpus tpu-vm delete "${options[@]}"
    fi
}

# The software of a slice, by its type: https://cloud.google.com/tpu/docs/runtimes
version_of() {
    case "$1" in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    esac
}

[ $# -gt 0 ] || seal_fail "say what to do: one of $commands."
command="$1"
shift
case "$command" in -h | --help) seal_help "${BASH_SOURCE[0]}" ;; esac
spot="" queued="" yes="" worker=0
arguments=()
while [ $# -gt 0 ]; do
    case "$1" in
    --name=*) NAME="${1#*=}" ;;
    --type=*) TYPE="${1#*=}" ;;
    --zone=*) ZONE="${1#*=}" ;;
    --project=*) PROJECT="${1#*=}" ;;
    --version=*) VERSION="${1#*=}" ;;
    --worker=*) worker="${1#*=}" ;;
    --name | --type | --zone | --project | --version | --worker) seal_fail "write $1=VALUE, with =." ;;
    --spot) spot=yes ;;
    --queued) queued=yes ;;
    --yes) yes=yes ;;
    --dry-run) seal_dry=yes ;;
    -h | --help) seal_help "${BASH_SOURCE[0]}" ;;
    *) arguments+=("$1") ;;
    esac
    shift
done

case "$command" in
create | copy | install | tail | stop | delete)
    [ ${#arguments[@]} -eq 0 ] || seal_fail "$command knows no ${arguments[0]}."
    ;;
run | all)
    seal_check_run ${arguments[@]+"${arguments[@]}"}
    case " ${arguments[*]} " in
    *" --workdir=gs://"* | *" --workdir gs://"*) ;;
    *) printf 'seal_jax: the workers share no disk, and the slice takes its disks along; --workdir=gs://BUCKET/FOLDER stays.\n' >&2 ;;
    esac
    ;;
*) seal_fail "there is no $command; there are $commands." ;;
esac
seal_need NAME seal
seal_need ZONE us-west4-a
seal_need PROJECT my-project
case "$command" in
create | all)
    seal_need TYPE v5e-16
    TYPE="$(seal_tpu_type "$TYPE")"
    case "$TYPE" in
    tpu7* | v7*) seal_fail "the TPU VM API has no $TYPE; use launch/xpk.sh." ;;
    esac
    VERSION="${VERSION:-$(version_of "$TYPE")}"
    [ -n "$VERSION" ] || seal_fail "the software for $TYPE is not known; give --version=VERSION (gcloud compute tpus tpu-vm versions list)."
    ;;
esac
[ -n "$seal_dry" ] || command -v gcloud >/dev/null || seal_fail "gcloud is not installed; see https://cloud.google.com/sdk/docs/install."

case "$command" in
tail) tail_log ;;
run)
    run "${arguments[@]}"
    [ -n "$seal_dry" ] || printf 'seal_jax: started; follow it with: bash launch/tpu_vm.sh tail\n' >&2
    ;;
all)
    create
    copy
    install
    run "${arguments[@]}"
    tail_log
    ;;
*) "$command" ;;
esac
