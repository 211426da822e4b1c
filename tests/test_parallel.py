"""Many devices give what one gives: eight fake ones in a process of their own, as their number is fixed at start."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_eight_devices():
    threads = {"NPROC": "32", "PJRT_NPROC": "32"}  # devices wait for each other: each needs a thread, cores or not
    environment = {**os.environ, **threads, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "eight_devices.py")]
    done = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
