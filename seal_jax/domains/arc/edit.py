"""The self-edit of few-shot learning: JSON that says how to make training data of a task and how to train on it.

The schema is that of the paper's few-shot experiment (arXiv 2506.10943). `parse` turns the text that a model wrote into
a `Configuration`, or says what is wrong with it; it never raises.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from seal_jax.domains.arc.grids import ArcTask, Grid
from seal_jax.domains.domain import Problem, Prompt

ALL_TOKENS = "train_using_all_tokens"
OUTPUT_TOKENS = "train_using_output_tokens"
STRATEGIES = (ALL_TOKENS, OUTPUT_TOKENS)


@dataclass(frozen=True)
class DataGeneration:
    """Which families of augmentations the training data gets."""

    use_basic_augmentations: bool
    use_size_augmentations: bool
    use_chain_augmentations: bool
    use_repeat_augmentations: bool


@dataclass(frozen=True)
class TrainingChoice:
    """Which tokens carry the loss, the learning rate (in (0, 1]) and the number of epochs (at least 1)."""

    strategy: str
    learning_rate: float
    num_train_epochs: int


@dataclass(frozen=True)
class Configuration:
    """What a self-edit says: which training data to make, and how to train on it."""

    data_generation: DataGeneration
    training: TrainingChoice


# The upper bound in the paper's table, written by hand: every family, loss on the output.
ORACLE = Configuration(DataGeneration(True, True, True, True), TrainingChoice(OUTPUT_TOKENS, 1e-4, 2))

_REQUEST = """\
A small language model is about to be trained on the examples of a puzzle, and will then be asked to solve it. In the \
puzzle one hidden rule turns an input grid into an output grid. These are the examples; each digit is a colour.

{demonstrations}

Choose the configuration of that training. Each of the four data settings is true or false and adds altered copies of \
the examples: basic (turned, flipped, mirrored, shifted), size (enlarged), chain (turned, then enlarged), repeat \
(tiled). The strategy is "{all_tokens}" (the loss is on the whole text) or "{output_tokens}" (the loss is on the \
output grid only). The learning rate is a number above 0, usually between 0.00001 and 0.001, and the number of epochs \
is a whole number from 1. More data and more epochs take longer; training that takes too long fails.

Answer with one JSON object of this form and nothing else:
{{"data_generation": {{"use_basic_augmentations": BOOLEAN, "use_size_augmentations": BOOLEAN, \
"use_chain_augmentations": BOOLEAN, "use_repeat_augmentations": BOOLEAN}}, "training": {{"strategy": STRATEGY, \
"learning_rate": NUMBER, "num_train_epochs": INTEGER}}}}"""


def edit_prompt(task: ArcTask) -> Prompt:
    """What the policy is asked: the demonstrations as rows of digits, then for a configuration in JSON."""
    shown = [
        f"Example {i}\nInput:\n{_digits(pair.input)}\nOutput:\n{_digits(pair.output)}"
        for i, pair in enumerate(task.train, 1)
    ]
    demonstrations = "\n\n".join(shown)
    text = _REQUEST.format(demonstrations=demonstrations, all_tokens=ALL_TOKENS, output_tokens=OUTPUT_TOKENS)
    return Prompt(text, chat=True)


def parse(text: str) -> Configuration | Problem:
    """The configuration in a text: its first whole JSON object, whatever stands around it.

    A text without a whole JSON object gives a Problem with `again`; an object that is no valid configuration gives a
    Problem without it.
    """
    found = _first_object(text)
    if found is None:
        return Problem("there is no whole JSON object in the text", again=True)
    reason = _wrong_fields(found, Configuration, "the object") or _wrong_parts(found)
    if reason:
        return Problem(reason)
    training = found["training"] | {"learning_rate": float(found["training"]["learning_rate"])}
    return Configuration(DataGeneration(**found["data_generation"]), TrainingChoice(**training))


def canonical(configuration: Configuration) -> str:
    """The configuration as JSON on one line, fields in the order of the schema; `parse` reads it back."""
    return json.dumps(asdict(configuration))


def random_configuration(
    seed: tuple[int, ...], rates: tuple[float, float] = (1e-5, 1e-3), epochs: tuple[int, int] = (1, 3)
) -> Configuration:
    """A valid configuration drawn at random; the same for the same seed.

    The families and the strategy are fair coins, the learning rate is log-uniform between `rates` (rounded to two
    digits), the number of epochs uniform from the first to the last of `epochs`.
    """
    rng = np.random.default_rng(seed)
    switches = [bool(coin) for coin in rng.integers(0, 2, 4)]
    rate = float(f"{math.exp(rng.uniform(math.log(rates[0]), math.log(rates[1]))):.1e}")
    strategy = STRATEGIES[int(rng.integers(0, 2))]
    training = TrainingChoice(strategy, rate, int(rng.integers(epochs[0], epochs[1] + 1)))
    return Configuration(DataGeneration(*switches), training)


def number_of_steps(configuration: Configuration, examples: int, batch: int) -> int:
    """Optimizer steps for so many examples in batches of `batch`; the last batch of an epoch may be smaller."""
    return configuration.training.num_train_epochs * -(-examples // batch)


def _digits(grid: Grid) -> str:
    return "\n".join("".join(str(cell) for cell in row) for row in grid)


def _first_object(text: str) -> dict | None:
    """The first whole JSON object of the text, parts of a broken one not counting; None if there is none."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            return decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            start = text.find("{", _closing(text, start))
    return None


def _closing(text: str, start: int) -> int:
    """The place after the brace that closes the one at `start`; the end of the text if none does."""
    depth = 0
    for brace in re.compile("[{}]").finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return len(text)


def _wrong_fields(value: Any, kind: type, name: str) -> str | None:
    """Why a value is not an object with exactly the fields of the dataclass `kind`; None if it is one."""
    if not isinstance(value, dict):
        return f"{name} must be an object and is {_shown(value)}"
    known = [field.name for field in fields(kind)]
    missing = [field for field in known if field not in value]
    unknown = [field for field in value if field not in known]
    if missing:
        return f"{name} lacks {', '.join(missing)}"
    return f"{name} has the unknown field {_shown(unknown[0])}" if unknown else None


def _wrong_parts(found: dict) -> str | None:
    """Why the two parts of an object are not valid; None if they are."""
    data, training = found["data_generation"], found["training"]
    reason = _wrong_fields(data, DataGeneration, "data_generation") or _wrong_fields(
        training, TrainingChoice, "training"
    )
    if reason:
        return reason
    reasons = [_wrong_switch(name, value) for name, value in data.items()]
    reasons += [check(training[name]) for name, check in _CHECKS.items()]
    return next(filter(None, reasons), None)


def _wrong_switch(name: str, value: Any) -> str | None:
    return None if isinstance(value, bool) else f"{name} must be true or false and is {_shown(value)}"


def _wrong_strategy(value: Any) -> str | None:
    wrong = not isinstance(value, str) or value not in STRATEGIES
    return f"strategy must be {' or '.join(STRATEGIES)} and is {_shown(value)}" if wrong else None


def _wrong_rate(value: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if number and 0 < value <= 1 else f"learning_rate must be a number in (0, 1] and is {_shown(value)}"


def _wrong_epochs(value: Any) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return None if whole and value >= 1 else f"num_train_epochs must be a whole number from 1 and is {_shown(value)}"


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "strategy": _wrong_strategy,
    "learning_rate": _wrong_rate,
    "num_train_epochs": _wrong_epochs,
}


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
