"""Documents become an adapter: passages, self-edits, one training, and what the model answered before and after."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seal_jax import lab
from seal_jax.adapt import questions
from seal_jax.adapt.documents import read_documents
from seal_jax.adapt.topics import nearest
from seal_jax.domains.domain import PASSAGES, Words
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.errors import UserError, read_text
from seal_jax.lab import Model
from seal_jax.model.pretrained import save_adapter
from seal_jax.runs.progress import Progress
from seal_jax.text import printable

ABOUT = "seal_jax.json"  # beside the adapter: what it was taught, and its answers
OWN_QUESTIONS = 5
ASK_FOR_QUESTION = "{title}\n{text}\n\nAsk one short question that this text answers."


@dataclass(frozen=True)
class Request:
    """What `adapt learn` was told. questions: a file, or None; edits: written by the model, 0 for the rule."""

    documents: tuple[str, ...]
    out: str
    model: str
    questions: str | None
    edits: int
    inner: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class Asked:
    """A question about a passage; gold: the right answer, None where nobody gave one."""

    passage: Passage
    question: str
    gold: str | None


def learn(request: Request) -> None:
    """The whole command; prints as it goes on, and writes the adapter's folder at the end."""
    out = Path(request.out)
    check(request)
    passages = read_documents(request.documents)
    given = read_questions(request.questions) if request.questions else None
    documents = Words("document", "documents").count(len(request.documents))
    say(f"{PASSAGES.count(len(passages))} of {documents}; loading {request.model}")
    model = lab.load(request.model, inner=request.inner, knowledge={"max_sequences": 1000})
    for about in passages:
        lab.check_length(model, about)
    asked = [Asked(nearest(passages, question), question, gold) for question, gold in given or []]
    if given is None:
        asked = own_questions(model, passages)
    before = answers(model, None, asked, "asking before anything is learned")
    edits = self_edits(model, passages, request)
    count = sum(len(model.domain.lesson(about, text, (), len).examples) for about, text in edits)
    with progress(model, f"training an adapter on {count} lessons"):
        adapters, [losses] = lab.train_on(model, [edits], request.seed)
    epoch = len(losses) // model.config.inner.epochs
    say(f"{len(losses)} steps: {losses[:epoch].mean():.2f} nats per token in the first epoch, "
        f"{losses[-epoch:].mean():.2f} in the last")  # fmt: skip
    after = answers(model, adapters, asked, "asking with the adapter")
    show(asked, before, after)
    save_adapter(out, lab.adapter(model, adapters, 0), adapters.lora, request.model)
    table = [{"topic": one.passage.title, "question": one.question, "gold": one.gold, "before": old, "after": new}
             for one, old, new in zip(asked, before, after, strict=True)]  # fmt: skip
    taught = [{"title": about.title, "text": about.context, "self_edit": text} for about, text in edits]
    record = {"model": request.model, "documents": list(request.documents), "inner": dict(request.inner),
              "seed": request.seed, "passages": taught, "questions": table}  # fmt: skip
    (out / ABOUT).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"\nadapter: {out}\nask it: python -m seal_jax.adapt ask --adapter {out} \"your question\"")


def check(request: Request) -> None:
    """Raises UserError for what would be found out only after minutes, such as a folder that cannot be written."""
    out = Path(request.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; choose another --out, or remove it")
    if request.edits < 0:
        raise UserError(f"--edits is {request.edits}; give the self-edits of each passage, or 0 for its sentences")
    if not 0 <= request.seed < 2**32:
        raise UserError(f"--seed is {request.seed}; give a number from 0 to {2**32 - 1}")
    for name, value in request.inner.items():
        if not 0 < value < math.inf:
            raise UserError(f"--{name.replace('_', '-')} is {value}; give a number above 0")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError("it may not be written to")
        out.rmdir()
    except OSError as error:
        raise UserError(f"{out} cannot be made ({error}); choose another --out") from error


def self_edits(model: Model, passages: Sequence[Passage], request: Request) -> list[tuple[Passage, str]]:
    """(passage, self-edit) by the model, or the sentences of each: alone, and as answers to what may be asked."""
    found = []
    if not request.edits:
        with progress(model, "writing questions", len(passages)) as shown:
            for about in passages:
                found += [(about, lab.split(about)), (about, questions.edit(model, lab.split(about).splitlines()))]
                shown.advance()
        return [(about, text) for about, text in found if text]
    with progress(model, "writing self-edits", len(passages)) as shown:
        for about in passages:
            found += [(about, text) for text in lab.write(model, about, request.edits, request.seed)]
            shown.advance()
    return found


def read_questions(path: str) -> list[tuple[str, str | None]]:
    """(question, answer or None) of each line that is not empty."""
    lines = read_text(path, "give a text file with a question on each line").splitlines()
    found = [line.partition("\t")[::2] for line in lines if line.strip()]
    if not found:
        raise UserError(f"{path} holds no question; write one on each line, its answer behind a tab if you know it")
    return [(question.strip(), gold.strip() or None) for question, gold in found]


def own_questions(model: Model, passages: Sequence[Passage]) -> list[Asked]:
    """One question about each of some passages, evenly spread, that the model writes with the passage before it."""
    step = max(1, len(passages) // OWN_QUESTIONS)
    found, picked = [], passages[::step][:OWN_QUESTIONS]
    with progress(model, "writing questions", len(picked)) as shown:
        for about in picked:
            text = lab.reply(model, None, [ASK_FOR_QUESTION.format(title=about.title, text=about.context)])
            question = text.split("?")[0].splitlines()[-1].strip() + "?" if text.split("?")[0].strip() else ""
            if "?" in text and any(letter.isalpha() for letter in question):
                found.append(Asked(about, question, None))
            shown.advance()
    return found


def answers(model: Model, adapters, asked: Sequence[Asked], title: str) -> list[str]:
    """The model's answer to each question, those about one passage together."""
    found: dict[int, str] = {}
    with progress(model, title, len(asked)) as shown:
        for about in {one.passage.id: one.passage for one in asked}.values():
            places = [place for place, one in enumerate(asked) if one.passage.id == about.id]
            [texts] = lab.ask(model, adapters, about, [asked[place].question for place in places])
            found |= zip(places, texts, strict=True)
            shown.advance(len(places))
    return [found[place] for place in range(len(asked))]


def progress(model: Model, title: str, total: int = 0) -> Progress:
    """A line that shows what the model is doing, all the time."""
    return Progress(title, total, activity=model.actor.engine.programs.activity)


def show(asked: Sequence[Asked], before: Sequence[str], after: Sequence[str]) -> None:
    """Every question with both answers, and how many are right where the right answers are known."""
    known = [one for one in asked if one.gold]
    for one, old, new in zip(asked, before, after, strict=True):
        say(f"\n{one.question}" + (f"   (right: {one.gold})" if one.gold else ""))
        say(f"  before: {old}\n  after:  {new}")
    if known:
        marks = [right(asked, said) for said in (before, after)]
        say(f"\nright by the judge 'lexical': {marks[0]} of {len(known)} before, {marks[1]} of {len(known)} after")


def right(asked: Sequence[Asked], said: Sequence[str]) -> int:
    """How many of the questions whose answer is known were answered right."""
    known = [(one.question, one.gold, text) for one, text in zip(asked, said, strict=True) if one.gold]
    questions, gold, texts = zip(*known, strict=True)
    [verdicts] = lab.score(questions, gold, [texts])
    return sum(verdicts)


def say(text: str) -> None:
    """A line for the person who waits; what a model or document wrote cannot move the cursor."""
    print("\n".join(printable(line) for line in text.split("\n")), flush=True)
