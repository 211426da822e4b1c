"""The paper's continued pretraining with Qwen2.5-7B (arXiv 2506.10943): 200 passages, five self-edits of each.

    python -m seal_jax.main --config=configs/pretraining_qwen2_5_7b.py --workdir=runs/pretraining_qwen2_5_7b

The numbers are those of the second version: all weights, one epoch. The first one trains an adapter:
--config.pretraining.sft.rank=32 --config.pretraining.sft.learning_rate=1e-3 --config.pretraining.sft.epochs=3
--config.pretraining.warmup_share=0. For 2,067 passages and 500 of their questions: --config.data.evaluation_items=0
--config.pretraining.questions=500.
"""

from ml_collections import ConfigDict

from seal_jax.config import at_size, defaults


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("knowledge", "pretraining"))
    config.seed = 43
    config.model.chat = "no"  # a base model
    config.knowledge.split_newlines = False
    return at_size(config, size)
