"""Continued pretraining of a 135M model on a CPU: eight passages at once, with 1 and 3 self-edits of its own on each.

    python -m seal_jax.main --config=configs/pretraining_smollm2.py --workdir=runs/pretraining_smollm2

One adapter with the settings of configs/quickstart.py. --config.pretraining.author=file learns from the `completions`
of --config.data.evaluation=FILE; --config.model.policy=FOLDER with --config.model.student=smollm2-135m-instruct learns
from the self-edits of another policy, such as the one that a run of SEAL exported.
"""

from ml_collections import ConfigDict

from seal_jax.config import ALL_PROJECTIONS, at_size, defaults


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("knowledge", "pretraining"))
    config.model.update(policy="smollm2-135m-instruct", student="initial", system="empty")
    config.data.update(evaluation="shipped:test", evaluation_items=8)
    config.knowledge.update(form="chat", closing=True, split_sentences=True, include_passage=False)
    config.sampling.update(temperature=0.85, max_new_tokens=128)
    config.pretraining.update(samples=(1, 3), warmup_share=0.0)
    config.pretraining.sft.update(
        rank=16, alpha=32.0, targets=ALL_PROJECTIONS, learning_rate=2e-3, epochs=4, accumulation=1
    )
    config.evaluation.update(answer_tokens=32, likelihood=False)
    config.engine.update(decode_rows=64)
    return at_size(config, size)
