"""SEAL in a few verbs, for notebooks and scripts: nothing is changed in place, and everything runs over many self-edits
at once.

    from seal_jax import lab

    model = lab.load("smollm2-135m-instruct")
    passage = lab.passage("Gannet Stair Light", "The Gannet Stair Light is a lighthouse built of gravestones. ...")
    edits = lab.write(model, passage, 16)                     # 16 self-edits
    adapters, losses = lab.train(model, passage, edits)       # 16 LoRA adapters, trained together
    answers = lab.ask(model, adapters, passage, ["Of what is the light built?"])   # [16][1]
    right = lab.score(["Of what is the light built?"], ["gravestones"], answers)  # [16][1] True or False
    writer = lab.teach(model, [(passage, edits[3])])          # the outer loop's step: it writes such self-edits

Settings are those that were found for a model of 135M parameters (docs/results.md); `load` takes others.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from seal_jax import config as config_lib
from seal_jax import seeds
from seal_jax.authors.policy import Policy
from seal_jax.config import ALL_PROJECTIONS, Config
from seal_jax.domains.domain import Answered, Example, Quiz
from seal_jax.domains.knowledge.corpus import Passage, Question
from seal_jax.domains.knowledge.knowledge import Knowledge
from seal_jax.domains.knowledge.sequences import Rules, question_prompt, sentences
from seal_jax.engine.generation import Generation
from seal_jax.engine.programs import enable_cache
from seal_jax.engine.weights import Weights
from seal_jax.errors import UserError
from seal_jax.judges import lexical
from seal_jax.model.lora import LoraConfig
from seal_jax.student import train as training
from seal_jax.student.actor import Actor, load_actor
from seal_jax.student.ask import ask as ask_all
from seal_jax.student.merge import merge
from seal_jax.student.train import Adapters, Loop

# What differs from config.defaults("knowledge"), by group.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "model": {"student": "initial", "system": "empty"},
    "data": {"train": "shipped:train", "evaluation": "shipped:test"},
    "knowledge": {"form": "chat", "closing": True, "split_sentences": True, "include_passage": False},
    "sampling": {"temperature": 0.7, "max_new_tokens": 128},
    "inner": {"rank": 16, "alpha": 32.0, "targets": ALL_PROJECTIONS, "learning_rate": 2e-3, "epochs": 4},
    "outer": {"sft": {"rank": 16, "alpha": 32.0, "learning_rate": 1e-3, "epochs": 4, "accumulation": 2}},
    "evaluation": {"answer_tokens": 48},
}


@dataclass(frozen=True)
class Model:
    """A model on the device, and the settings with which it writes, learns and answers."""

    actor: Actor
    config: Config
    domain: Knowledge


class Trained(NamedTuple):
    """adapters: of all self-edits, on the device, in their order; losses: of every step of each, in nats per token."""

    adapters: Adapters
    losses: list[np.ndarray]


def load(source: str = "smollm2-135m-instruct", **settings: Mapping[str, Any]) -> Model:
    """A model from a folder, a .gguf file or the hub; settings by group: inner={"epochs": 8, "learning_rate": 1e-3}.

    Raises UserError for a model that cannot be read or held, and for settings that there are not.
    """
    values = config_lib.defaults("knowledge")
    known = {name for name, value in values.items() if isinstance(value, dict)}
    for group, fields in [*SETTINGS.items(), *settings.items()]:
        if group not in known:
            raise UserError(f"lab.load knows no settings {group!r}; the groups are {', '.join(sorted(known))}")
        if not isinstance(fields, Mapping):
            raise UserError(f"lab.load got {fields!r} as settings of {group!r}; give them by name: {group}={{...}}")
        values[group] = values[group] | dict(fields)
    values["model"]["policy"] = source
    config = config_lib.from_dict(values)
    enable_cache(config.engine.cache)
    inner = config.inner
    names = {field.name for field in dataclasses.fields(Rules)}
    how = {name: value for name, value in dataclasses.asdict(config.knowledge).items() if name in names}
    rules = Rules(**how, teacher=inner.objective == "distill")
    domain = Knowledge(config.knowledge.prompt, rules, inner.learning_rate, inner.epochs, lexical.grade)
    return Model(load_actor(source, config), config, domain)


def passage(title: str, text: str) -> Passage:
    """A text to learn; the title is the topic under which it is learned and asked about."""
    if not title.strip() or not text.strip():
        raise UserError("a passage needs a title and a text; one of them is empty")
    return Passage(title.strip(), title.strip(), text.strip(), ())


def check_length(model: Model, about: Passage) -> None:
    """Raises UserError where a passage is longer than what the model reads."""
    tokens = len(model.actor.tokenizer.encode(f"{about.title}\n{about.context}"))
    _check_room(model, tokens, 0, f"the passage {about.title[:40]!r}")


def write(model: Model, about: Passage, count: int, seed: int = 0) -> list[str]:
    """Self-edits that the model writes about a passage, sampled together.

    Raises UserError where the passage and what is written about it do not fit the model's context.
    """
    if count < 1:
        raise UserError(f"lab.write was asked for {count} self-edits; ask for at least 1")
    prompt = model.domain.edit_prompt(about, model.actor.chat)
    room = model.config.sampling.max_new_tokens
    _check_room(model, len(model.actor.tokenizer.encode_prompt(prompt)), room, about.title)
    author = Policy(model.actor, model.domain, model.config.sampling)
    found: dict[str, list] = {}
    for part in author.write([about], count, (seed, 0)):
        found |= part
    return [edit.text for edit in found[about.id]]


def split(about: Passage) -> str:
    """The self-edit that needs no model: the passage's sentences, a line each."""
    return "\n".join(sentence for line in about.context.split("\n") for sentence in sentences(line))


def train(model: Model, about: Passage, edits: Sequence[str], seed: int = 0) -> Trained:
    """A LoRA adapter on each self-edit; all start from the same adapter and, as far as they can, in the same order.

    Raises UserError where a self-edit holds no text to train on.
    """
    return train_on(model, [[(about, edit)] for edit in edits], seed)


def train_on(model: Model, lessons: Sequence[Sequence[tuple[Passage, str]]], seed: int = 0) -> Trained:
    """A LoRA adapter on each lesson, which is self-edits of any passages: [[(passage, self-edit), ...], ...].

    Raises UserError where a lesson holds no text, or a sequence that is longer than the model's context.
    """
    if not lessons:
        raise UserError("there is nothing to train on; give at least one self-edit")
    loops = []
    for number, parts in enumerate(lessons):
        found = [model.domain.lesson(about, edit, (), len) for about, edit in parts]
        examples = tuple(example for lesson in found for example in lesson.examples)
        if not examples:
            raise UserError(f"self-edit {number + 1} of {len(lessons)} holds no text to train on")
        lesson = dataclasses.replace(found[0], examples=examples, failure=None)
        start = seeds.adapter(seed, 0, parts[0][0], 0)
        loop = training.candidate(model.actor, Loop(lesson, start, seeds.order(seed, 0, 0)), model.config.inner)
        _check_room(model, max(len(row.tokens) for row in loop.rows), 0, f"a line of self-edit {number + 1}")
        loops.append(loop)
    adapters = training.train(model.actor, loops, model.config.inner)
    return Trained(adapters, adapters.losses)


def ask(
    model: Model, adapters: Adapters | None, about: Passage, questions: Sequence[str], shown: bool = False
) -> list[list[str]]:
    """Greedy answers [adapter][question]; without adapters [1][question], of the model as it is.

    shown: with the passage in the prompt, which is what reading gives without any memory.
    """
    asked = tuple(
        question_prompt(about, Question(question, "", heldout=False), model.actor.chat, shown) for question in questions
    )
    room = model.config.evaluation.answer_tokens
    for question, prompt in zip(questions, asked, strict=True):
        _check_room(model, len(model.actor.tokenizer.encode_prompt(prompt)), room, f"the question {question[:40]!r}")
    quizzes = [Quiz(asked, (), ())] * (1 if adapters is None else len(adapters.order))
    found = ask_all(model.actor, adapters, quizzes, room)
    return [answers.texts for answers in found]


def reply(model: Model, adapters: Adapters | None, turns: Sequence[str]) -> str:
    """The next answer in a chat, greedy; turns: what was said so far, the user's and the model's in turn.

    Raises UserError where the model has no chat template, or the chat no longer fits its context.
    """
    actor, room = model.actor, model.config.evaluation.answer_tokens
    prompt = actor.tokenizer.encode_chat(list(turns))
    _check_room(model, len(prompt), room, "the chat")
    weights = Weights(actor.base) if adapters is None else Weights(actor.base, adapters.tree, adapters.lora)
    greedy = Generation(actor.rules(0.0, 1.0, 0), room, None)
    [[[sample]]] = actor.engine.generate(weights, [[prompt]], [[[(0,)]]], greedy)
    return actor.tokenizer.decode(sample.tokens).strip()


def score(questions: Sequence[str], gold: Sequence[str], answers: Sequence[Sequence[str]]) -> list[list[bool]]:
    """Whether answers [adapter][question] are right, by the judge `lexical`: they hold the gold answers' words."""
    if len(questions) != len(gold) or any(len(given) != len(questions) for given in answers):
        raise UserError(f"lab.score got {len(questions)} questions; give as many gold answers, and answers in each row")
    return [
        [bool(verdict) for verdict in lexical.grade([Answered(*of) for of in zip(questions, gold, given, strict=True)])]
        for given in answers
    ]


def teach(model: Model, chosen: Sequence[tuple[Passage, str]], seed: int = 0) -> Model:
    """The outer loop's step on [(passage, self-edit), ...] that earned most: a model that writes such self-edits.

    What it learned is merged into its weights; settings are those of the group `outer`.
    """
    if not chosen:
        raise UserError("there is nothing to teach; give at least one (passage, self-edit)")
    how, actor = model.config.outer.sft, model.actor
    lessons = [Example(model.domain.edit_prompt(about, actor.chat), text, closing=True) for about, text in chosen]
    longest = max(len(actor.row(lesson).tokens) for lesson in lessons)
    _check_room(model, longest, 0, "the longest self-edit with its prompt")
    learned, _ = training.teach(actor, lessons, how, seeds.teach(seed, 1))
    return dataclasses.replace(model, actor=merge(actor, learned, how))


def restore(model: Model, adapter: dict, lora: LoraConfig) -> Adapters:
    """An adapter from the host, on the device: for `ask` and `reply`."""
    return training.placed(model.actor, [adapter], lora)


def adapter(model: Model, adapters: Adapters, number: int) -> dict:
    """One of the adapters on the host: {'layers': {projection: {'A': [L, in, R], 'B': [L, R, out]}}}."""
    return training.adapter_of(model.actor, adapters, number)


def _check_room(model: Model, tokens: int, new: int, what: str) -> None:
    """Raises UserError unless so many tokens, and so many new ones after them, fit the model's context."""
    longest = model.actor.source.config.max_position
    if tokens + new > longest:
        after = f" with {new} more for what it writes" if new else ""
        raise UserError(f"{what} has {tokens} tokens, and the model reads {longest}{after}; make it shorter")
