"""The half of a config that says how a run is computed and what is written. It may change when a run is continued."""

from dataclasses import dataclass

from seal_jax.config.fields import choice, number


@dataclass(frozen=True)
class EngineConfig:
    """What a device holds at once."""

    candidates: int = number(8, 0)  # adapters trained together; 0: as many as fit memory_gib
    memory_gib: float = number(0.0, 0)  # of a device, with the weights; 0: what the device has, on a TPU or GPU
    length_groups: int = number(4, 1)  # of like length, into which a step, or prompts read together, are split
    decode_rows: int = number(64, 1)  # sequences decoded or scored together
    answer_rows: int = number(0, 0)  # questions answered or scored together, whose texts are short; 0: decode_rows
    loss_chunk: int = number(1024, 1)  # positions of all sequences of a step to which the head is applied at a time
    attention: str = choice("auto", "auto", "blocks")  # above 1,024 tokens; auto: a kernel of the device
    remat: str = choice("auto", "auto", "none", "minimal", "full")  # what is recomputed; auto: as little as fits
    segment: int = number(32, 1)  # tokens decoded between two looks of the host
    cache: str = "~/.cache/seal_jax"  # compiled programs; empty: none

    @property
    def question_rows(self) -> int:
        """Questions answered or scored together."""
        return self.answer_rows or self.decode_rows


@dataclass(frozen=True)
class Parallel:
    """How the devices share the work; one device needs none of this."""

    model: int = number(1, 1)  # devices over which one model's weights are split; groups of them have own candidates
    backend: str = choice("shard_map", "shard_map", "pmap")
    distributed: bool = False  # the run has several hosts, all of which start the same command


@dataclass(frozen=True)
class Metrics:
    """TensorBoard files are always written; a project name sends them to Weights & Biases too."""

    wandb_project: str = ""


@dataclass(frozen=True)
class Export:
    """What is written beside the records when the run ends."""

    policy: bool = False  # the last policy as a Hugging Face folder, and after a single round its adapter
