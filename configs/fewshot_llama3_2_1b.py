r"""The paper's few-shot experiment: Llama-3.2-1B-Instruct on 11 ARC tasks, evaluated on 8, on one accelerator of 80 GB.

    bash launch/gpu.sh \
        --config=configs/fewshot_llama3_2_1b.py --workdir=runs/fewshot

The weights are gated on the hub: accept their licence there and set HF_TOKEN. With --config.arc.constrained=True every
self-edit is valid.
"""

from ml_collections import ConfigDict

from seal_jax.config import at_size, defaults
from seal_jax.domains.arc import paper


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("arc"))  # the paper's numbers
    config.arc.update(train_ids=paper.TRAINING, evaluation_ids=paper.EVALUATION)
    config.engine.update(candidates=4, decode_rows=64)
    return at_size(config, size)
