r"""The paper's Qwen2.5-7B experiment on a TPU v5p-8 slice: four chips of 95 GB.

    bash launch/tpu_vm.sh all --name=seal --type=v5p-8 --zone=ZONE --project=P \
        --config=configs/knowledge_qwen2_5_7b_v5p_8.py --workdir=gs://BUCKET/runs/mine

Whether it fits, and how long a round takes at best: python -m seal_jax.fit --topology=v5p-8 with the same --config.
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
    config.parallel.update(model=1)  # every chip has a whole model
    config.engine.update(candidates=64, decode_rows=256, answer_rows=640)
    return at_size(config, size)
