"""The paper's knowledge-incorporation experiment with Qwen2.5-7B (arXiv 2506.10943, section 4.2 and appendix B).

    python -m seal_jax.main --config=configs/knowledge_qwen2_5_7b.py --workdir=runs/knowledge_qwen2_5_7b

The defaults of seal_jax/config/ are the paper's; what stands here differs from them. The paper's judge is GPT-4.1:
set kind=remote and model=gpt-4.1 in --config.reward.judge.* and --config.evaluation.judge.*, with OPENAI_API_KEY set.
"""

from ml_collections import ConfigDict

from seal_jax.config import at_size, defaults


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("knowledge"))
    config.model.policy = "Qwen/Qwen2.5-7B"
    config.model.chat = "no"  # a base model
    config.engine.update(candidates=16)
    return at_size(config, size)
