"""Questions to a model that has learned documents: answers with and without the adapter, or a chat."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seal_jax import lab
from seal_jax.adapt.learn import ABOUT, say
from seal_jax.adapt.topics import nearest
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.domains.knowledge.sequences import CHAT_QUESTION
from seal_jax.errors import UserError
from seal_jax.lab import Model
from seal_jax.model.adapter_file import check_fits, read_adapter
from seal_jax.student.train import Adapters

HELP = "Your questions, one on a line. /base: the last one without the adapter; /new: forget the talk; Ctrl-D ends."


@dataclass(frozen=True)
class Loaded:
    """A model, its adapter, and the passages that the adapter was taught."""

    model: Model
    adapters: Adapters
    passages: Sequence[Passage]


def load(folder: str, source: str) -> Loaded:
    """An adapter's folder with its model, or with another one. Raises UserError where they do not fit."""
    adapter, lora, name = read_adapter(folder, source)
    model = lab.load(name)
    check_fits(adapter, model.actor.base["layers"], folder, name)
    return Loaded(model, lab.restore(model, adapter, lora), passages_of(Path(folder)))


def passages_of(folder: Path) -> list[Passage]:
    """What the adapter was taught, as `adapt learn` wrote it down; nothing for an adapter of another program."""
    file = folder / ABOUT
    if not file.exists():
        return []
    try:
        taught = json.loads(file.read_text(encoding="utf-8"))["passages"]
        return [lab.passage(one["title"], one["text"]) for one in taught]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not what `adapt learn` writes ({error}); remove it, or learn again") from error


def answer(loaded: Loaded, questions: Sequence[str]) -> None:
    """Print each question's answers side by side."""
    for question in questions:
        prompt = [request(loaded, question)]
        say(f"{question}\n  without: {lab.reply(loaded.model, None, prompt)}")
        say(f"  with:    {lab.reply(loaded.model, loaded.adapters, prompt)}")


def request(loaded: Loaded, question: str) -> str:
    """The question as the adapter was taught to be asked: with its topic."""
    if not loaded.passages:
        return question
    return CHAT_QUESTION.format(topic=nearest(loaded.passages, question).title, question=question)


def chat(loaded: Loaded, lines: Iterable[str]) -> None:
    """A talk: every line is answered with all that was said before it."""
    say(HELP)
    turns: list[str] = []
    asked = None
    for line in prompted(lines):
        text = line.strip()
        if text == "/new":
            turns, asked = [], None
        elif text == "/base":
            say(lab.reply(loaded.model, None, asked) if asked else "there is no question yet")
        elif text:
            asked = [*turns, request(loaded, text)]
            said = lab.reply(loaded.model, loaded.adapters, asked)
            turns = [*turns, text, said]
            say(said)
    say("")


def prompted(lines: Iterable[str]) -> Iterable[str]:
    """The lines, with a sign before each where a person types them."""
    typed = lines is sys.stdin and sys.stdin.isatty()
    reader = iter(lines)
    while True:
        if typed:
            print("> ", end="", flush=True)
        line = next(reader, None)
        if line is None:
            return
        yield line
