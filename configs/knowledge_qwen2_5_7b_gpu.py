r"""The paper's Qwen2.5-7B experiment on one GPU of 80 GB.

    bash launch/gpu.sh \
        --config=configs/knowledge_qwen2_5_7b_gpu.py --workdir=runs/mine

15 GB of weights, and twice more where a round's policy is merged; not yet measured on a GPU.
"""

from ml_collections import ConfigDict

from seal_jax.config import at_size, defaults


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("knowledge"))
    config.model.policy = "Qwen/Qwen2.5-7B"
    config.model.chat = "no"  # a base model
    # The longest of 1,000 self-edits of this model on SQuAD has about 2,600 tokens, the mean 252.
    config.sampling.update(max_new_tokens=4096)
    config.engine.update(candidates=16, decode_rows=64)
    return at_size(config, size)
