"""The whole method in minutes on a laptop's CPU: SmolLM2-135M-Instruct and the shipped corpus of invented passages.

    python -m seal_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict

from seal_jax.config import ALL_PROJECTIONS, at_size, defaults


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a one-minute version."""
    config = ConfigDict(defaults())
    config.model.policy = "smollm2-135m-instruct"
    config.data.update(train="shipped:train", evaluation="shipped:test", train_passages=8, evaluation_passages=12)
    config.task.update(form="chat", closing=True)
    config.sampling.update(max_new_tokens=128)
    config.inner.update(rank=16, alpha=32.0, targets=ALL_PROJECTIONS, epochs=4)
    config.reward.update(accuracy_weight=0.0, likelihood_weight=1.0, retrains=1, answer_tokens=24)
    config.outer.update(rounds=1, samples=4)
    return at_size(config, size)
