"""How a finetuning runs, as the engine takes it, and how that follows from a group of the config."""

from dataclasses import dataclass

from seal_jax.config import Inner, Training
from seal_jax.inner.distill import Distillation
from seal_jax.inner.sft import Optimizer
from seal_jax.model.lora import LoraConfig


@dataclass(frozen=True)
class Recipe:
    """The adapter (None: all weights are trained), micro-batch size, gradient accumulation steps, and optimizer.

    distillation: how rows that have a teacher are learned; None: as those that have none.
    """

    lora: LoraConfig | None
    batch_size: int
    accumulation: int
    optimizer: Optimizer
    distillation: Distillation | None = None

    @property
    def batch(self) -> int:
        """Sequences of one optimizer step."""
        return self.batch_size * self.accumulation


def recipe(training: Training) -> Recipe:
    """The recipe of a config group such as `config.inner`; rank 0 trains all weights."""
    inner = isinstance(training, Inner)
    layers, freeze_a = (training.layers, training.freeze_a) if inner else ((), False)
    lora = LoraConfig(training.rank, training.alpha, training.targets, training.rslora, layers, freeze_a)
    optimizer = Optimizer(training.schedule, clip_norm=training.clip_norm, weight_decay=training.weight_decay)
    how = training.distill if inner and training.objective == "distill" else None
    distillation = how and Distillation(how.top_k, how.temperature, how.sft_weight)
    return Recipe(lora if training.rank else None, training.batch_size, training.accumulation, optimizer, distillation)
