r"""The paper's experiment with Llama-3.2-1B on one chip: a TPU v5e-1 or v6e-1, or a GPU of 16 GB and more.

    bash launch/gpu.sh \
        --config=configs/knowledge_llama3_2_1b.py --workdir=runs/mine

The weights are gated on the hub: accept their licence there and set HF_TOKEN. Whether it fits a TPU, and how long a
round takes at best: python -m seal_jax.fit --topology=v5e-1 with the same --config.
"""

from ml_collections import ConfigDict

from seal_jax.config import at_size, defaults


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("knowledge"))
    config.model.policy = "meta-llama/Llama-3.2-1B"
    config.model.chat = "no"  # a base model
    # The longest of 1,000 self-edits of Qwen2.5-7B on SQuAD has about 2,600 tokens, the mean 252.
    config.sampling.update(max_new_tokens=4096)
    config.engine.update(candidates=16, decode_rows=64)
    return at_size(config, size)
