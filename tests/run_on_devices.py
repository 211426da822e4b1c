"""Runs the config in a JSON file in a folder: python run_on_devices.py VALUES WORKDIR; JAX_NUM_CPU_DEVICES devices.

Its last line says how many inner loops were trained.
"""

import json
import os
import sys
from pathlib import Path

import jax
import tiny_run

from seal_jax.engine.engine import Engine
from seal_jax.report.watch import Watch

if __name__ == "__main__":
    Watch.after_rows = lambda self, rows: None  # a report takes longer than the run
    finetune, trained = Engine.finetune, []

    def counted(self, base, candidates, recipe):
        trained.extend(candidates)
        return finetune(self, base, candidates, recipe)

    Engine.finetune = counted
    assert jax.device_count() == int(os.environ["JAX_NUM_CPU_DEVICES"])
    tiny_run.run(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    print(f"{len(trained)} inner loops")
