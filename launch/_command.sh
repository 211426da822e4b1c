# shellcheck shell=bash
# Sourced after _env.sh by the scripts that start runs elsewhere than on this CPU: each command is run, or only shown.
# It keeps to bash 3.2, which macOS has.
#
#   seal_dry=yes                 show commands instead of running them (--dry-run)
#   seal_do COMMAND...           run the command, or print it so that it can be pasted into a shell
#   seal_become COMMAND...       the same for the last command, whose process replaces this one
#   seal_quote WORD...           the words as a shell needs them
#   seal_help FILE               print the comment that FILE begins with, and end
#   seal_need NAME EXAMPLE       end with a sentence if the variable NAME is empty
#   seal_check_run ARGUMENT...   end with a sentence if --config or --workdir is not among the arguments of seal_jax.main
#   seal_tpu_type TYPE           the name that Google Cloud has for a type of TPU: v5e-16 is v5litepod-16
#   seal_arguments ARGUMENT...   takes --dry-run and --help out of the script's arguments, and fills seal_rest with the others
#   seal_install_gpu             makes the environment for NVIDIA GPUs, from the root of the repository
#   seal_gpu_settings            fills seal_settings with NAME=VALUE for a run on NVIDIA GPUs

seal_dry=""
seal_rest=()

seal_quote() {
    local LC_ALL=C word text=""
    for word in "$@"; do
        case "$word" in
        "" | *[!A-Za-z0-9_@%+=:,./-]*) word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'" ;;
        esac
        text="$text${text:+ }$word"
    done
    printf '%s\n' "$text"
}

seal_do() {
    if [ -n "$seal_dry" ]; then seal_quote "$@"; else "$@"; fi
}

seal_become() {
    if [ -n "$seal_dry" ]; then seal_quote "$@"; else exec "$@"; fi
}

seal_help() {
    awk 'NR > 1 { if (!/^#( |$)/) exit; sub(/^# ?/, ""); print }' "$1"
    exit 0
}

seal_arguments() {
    local argument
    for argument in "$@"; do
        case "$argument" in
        --dry-run) seal_dry=yes ;;
        -h | --help) seal_help "$0" ;;
        *) seal_rest+=("$argument") ;;
        esac
    done
}

seal_install_gpu() {
    seal_do bash -c 'source launch/_env.sh && seal_env cuda12'
}

seal_need() {
    local flag
    flag="--$(printf '%s' "$1" | tr '[:upper:]' '[:lower:]')"
    [ -n "${!1:-}" ] || seal_fail "$1 is missing; give $flag=$2, or set the variable $1."
}

seal_check_run() {
    local argument config="" workdir=""
    for argument in "$@"; do
        case "$argument" in
        --config | --config=*) config=yes ;;
        --workdir | --workdir=*) workdir=yes ;;
        esac
    done
    [ -n "$config" ] || seal_fail "give --config=FILE, such as --config=configs/knowledge_qwen2_5_7b.py."
    [ -n "$workdir" ] || seal_fail "give --workdir=FOLDER for the run."
}

seal_tpu_type() {
    case "$1" in
    v5e-*) printf 'v5litepod-%s\n' "${1#v5e-}" ;;
    *) printf '%s\n' "$1" ;;
    esac
}

# What recommendations elsewhere add (triton_gemm_any, asynchronous collectives) is the default of today's XLA.
seal_gpu_settings() {
    seal_settings=(
        # With no GPU in sight JAX would go on with the CPU; named alone, cuda has to be there.
        "JAX_PLATFORMS=${JAX_PLATFORMS:-cuda}"
        # Off by default: collectives run while the GPU computes. The user's own flags come later, and win.
        "XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true${XLA_FLAGS:+ $XLA_FLAGS}"
        # A link that fails is named, instead of only "unhandled system error".
        "NCCL_DEBUG=${NCCL_DEBUG:-WARN}"
    )
    # JAX takes 75% of the memory unless told; the rest is for CUDA and NCCL, which need less. (PYTHON is the old name.)
    [ -n "${XLA_CLIENT_MEM_FRACTION:-}${XLA_PYTHON_CLIENT_MEM_FRACTION:-}" ] ||
        seal_settings+=("XLA_CLIENT_MEM_FRACTION=0.9")
}
