"""The inner loop of a 135M model on a CPU by learning rate and epochs: eight passages, each trained in twelve settings.

    python -m seal_jax.main --config=configs/grid_smollm2.py --workdir=runs/grid_smollm2

Each passage's sentences are learned; --config.grid.author=policy takes self-edits of the model's own. All else of the
inner loop is that of configs/quickstart.py; --config.grid.ranks="(4,16,64)" tries those ranks as well. The passages are
those of the split for choosing settings.
"""

from ml_collections import ConfigDict

from seal_jax.config import ALL_PROJECTIONS, at_size, defaults


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("knowledge", "grid"))
    config.model.update(policy="smollm2-135m-instruct", system="empty")
    config.data.update(evaluation="shipped:validation", evaluation_items=8)
    config.knowledge.update(form="chat", closing=True, split_sentences=True, include_passage=False)
    config.sampling.update(temperature=0.85, max_new_tokens=128)
    config.inner.update(rank=16, alpha=32.0, targets=ALL_PROJECTIONS)
    config.grid.update(author="sentences", rates=(5e-4, 1e-3, 2e-3, 4e-3), epochs=(2, 4, 8))
    config.evaluation.update(answer_tokens=32, likelihood=False)
    config.engine.update(candidates=8, decode_rows=64)
    return at_size(config, size)
