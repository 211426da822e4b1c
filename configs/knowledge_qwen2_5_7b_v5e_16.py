r"""The paper's Qwen2.5-7B experiment on a TPU v5e-16 slice: 16 chips of 16 GB.

    bash launch/tpu_vm.sh all --name=seal --type=v5e-16 --zone=ZONE --project=P \
        --config=configs/knowledge_qwen2_5_7b_v5e_16.py --workdir=gs://BUCKET/runs/mine

Whether it fits, and how long a round takes at best: python -m seal_jax.fit --topology=v5e-16 with the same --config.
"""

from ml_collections import ConfigDict

from seal_jax.config import at_size, defaults


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("knowledge"))
    config.model.policy = "Qwen/Qwen2.5-7B"
    config.model.chat = "no"  # a base model
    # The paper allows 8,192 tokens. The longest of 1,000 self-edits of this model on SQuAD has about 2,600 (mean 252);
    # the cache of 4,096 takes half the memory, and every token decoded reads all of it.
    config.sampling.update(max_new_tokens=4096)
    config.parallel.update(model=4)  # 3.8 GB of weights on a chip, and again for the first policy
    config.engine.update(candidates=64, decode_rows=256, answer_rows=640)
    return at_size(config, size)
