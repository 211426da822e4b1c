"""What a model is run with: base weights, and with or without adapters."""

from dataclasses import dataclass

import jax

from seal_jax.model.lora import LoraConfig


@dataclass(frozen=True)
class Weights:
    """Base weights as `Engine.put_base` leaves them; adapters of several candidates, if any, and their LoraConfig.

    `adapters` has a leading axis of lanes, as `Engine.finetune` returns it. With None the base runs alone.
    """

    base: dict
    adapters: dict | None = None
    lora: LoraConfig | None = None

    def __post_init__(self):
        if self.adapters is not None and self.lora is None:
            raise ValueError("adapters need their LoraConfig, which holds the scale of their effect")

    @property
    def scale(self) -> float:
        """The factor of the adapters' effect; 1 without adapters."""
        return 1.0 if self.adapters is None else self.lora.scale

    @property
    def extra(self) -> dict:
        """The model's variables beside the base: {'lora': adapters} or {}."""
        return {} if self.adapters is None else {"lora": self.adapters}


def first_adapter(adapters: dict) -> dict:
    """The adapter of the first candidate, without the axis of lanes."""
    return jax.tree.map(lambda leaf: leaf[0], adapters)
