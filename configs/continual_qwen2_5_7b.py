"""The paper's continual self-edits with Qwen2.5-7B (arXiv 2506.10943): 64 sequences of eight passages.

    python -m seal_jax.main --config=configs/continual_qwen2_5_7b.py --workdir=runs/continual_qwen2_5_7b

The model that has learned the passages before writes the self-edit of the next one. Controls of forgetting are in the
group `continual`.
"""

from ml_collections import ConfigDict

from seal_jax.config import at_size, defaults


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("knowledge", "continual"))
    config.model.chat = "no"  # a base model
    config.engine.update(candidates=16)
    return at_size(config, size)
