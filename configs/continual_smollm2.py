"""Continual self-edits with a 135M model on a CPU: passages one after another, and what is forgotten.

    python -m seal_jax.main --config=configs/continual_smollm2.py --workdir=runs/continual_smollm2

Each passage's sentences are learned with the settings of configs/quickstart.py. A control of forgetting is one flag
more, and the run then goes through the same sequences without it as well: --config.continual.replay=2,
--config.continual.merge_scale=0.5, --config.continual.gate=0.5, --config.continual.neutral=shipped:train,
--config.continual.layers="(0,1,2)", or replay with replay_objective=kl.
"""

from ml_collections import ConfigDict

from seal_jax.config import ALL_PROJECTIONS, at_size, defaults


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("knowledge", "continual"))
    config.model.update(policy="smollm2-135m-instruct", student="initial", system="empty")
    config.data.update(evaluation="shipped:test", evaluation_items=8)
    config.knowledge.update(form="chat", closing=True, split_sentences=True, include_passage=False)
    config.sampling.update(temperature=0.85, max_new_tokens=128)
    config.inner.update(rank=16, alpha=32.0, targets=ALL_PROJECTIONS, learning_rate=2e-3, epochs=4)
    config.continual.update(passages=4, sequences=2, author="sentences", past_rank=64)
    config.evaluation.update(answer_tokens=32, likelihood=False)
    config.engine.update(candidates=8, decode_rows=64)
    return at_size(config, size)
