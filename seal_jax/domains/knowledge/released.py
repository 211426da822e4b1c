"""What others wrote about passages: the files of completions that the paper's authors released, and our own records.

    a JSON list       [{title, context, completions: [text or {text}], prompt}], the completions also as
                      `pair_completions` and `triple_completions` (EntiGraph)
    a result file     {"articles": [the same items]}; context and prompt may be absent
    SFT, .jsonl       {prompt, completion}, one of each line
    a run's folder    its last self-edits of each passage

Whatever is malformed raises UserError with file, place and field.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from seal_jax.errors import UserError, read_text
from seal_jax.runs import keys
from seal_jax.runs.records import read

SEPARATOR = "\n---\n"  # between the texts of one self-edit, which become training sequences of their own
GRAPH = ("pair_completions", "triple_completions")


@dataclass(frozen=True)
class Written:
    """Texts about one passage. title, context, prompt: as far as the file says; prompt: what the texts answer."""

    texts: tuple[str, ...]
    title: str | None = None
    context: str | None = None
    prompt: str | None = None


def load_written(path: str) -> list[Written]:
    """All that a file of completions holds, or a run's folder, in its order."""
    place = Path(path)
    if place.is_dir() or place.name == "self_edits.jsonl":
        return _of_run(place if place.is_dir() else place.parent)
    text = read_text(path, "name a file of completions, or a run's folder")
    if place.suffix == ".jsonl":
        return _of_pairs([(_json(line, f"{path}, line {number}"), number)
                          for number, line in enumerate(text.split("\n"), 1) if line.strip()], path)  # fmt: skip
    data = _json(text, path)
    items = data.get("articles") if isinstance(data, dict) else data
    if not isinstance(items, list):
        raise UserError(f"{path} holds no completions: it must be a list of items, or an object with 'articles'")
    found = [_of_item(item, f"{path}, item {index}") for index, item in enumerate(items)]
    if not any(entry.texts for entry in found):
        raise UserError(f"{path} holds no completions: none of its {len(found)} items has a field 'completions'")
    return found


def completions_of(item: Mapping, where: str) -> tuple[str, ...]:
    """The texts of an item: `completions`, or those on pairs and on triples of entities as one self-edit."""
    if any(field in item for field in GRAPH):
        parts = [text for field in GRAPH for text in _texts(item.get(field, []), field, where)]
        return (SEPARATOR.join(parts),) if parts else ()
    return tuple(_texts(item.get("completions", []), "completions", where))


def prompt_of(item: Mapping, where: str) -> str | None:
    """What the completions of an item answer."""
    prompt = item.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise UserError(f"{where}: 'prompt' must be a text.")
    return prompt or None


class Index:
    """Finds what was written about a passage: by title and context, by a prompt that shows it, or by a title that is
    nobody else's."""

    def __init__(self, written: Sequence[Written]):
        self._exact: dict[tuple[str, str], Written] = {}
        self._by_title: dict[str, list[Written]] = {}
        self._prompts: list[tuple[str, Written]] = []
        for entry in written:
            if entry.title is not None and entry.context is not None:
                self._exact.setdefault((_plain(entry.title), _plain(entry.context)), entry)
            elif entry.prompt is not None:
                self._prompts.append((_plain(entry.prompt), entry))
            elif entry.title is not None:
                self._by_title.setdefault(_plain(entry.title), []).append(entry)

    def find(self, title: str, context: str) -> Written | None:
        """What was written about the passage; None where nothing was."""
        key = _plain(title), _plain(context)
        if key in self._exact:
            return self._exact[key]
        shown = next((entry for prompt, entry in self._prompts if key[1] in prompt and key[0] in prompt), None)
        named = self._by_title.get(key[0], [])
        return shown or (named[0] if len(named) == 1 else None)


def _of_item(item: Any, where: str) -> Written:
    if not isinstance(item, dict):
        raise UserError(f"{where} must be an object with completions.")
    for field in ("title", "context"):
        if not isinstance(item.get(field, ""), str):
            raise UserError(f"{where}: {field!r} must be a text.")
    texts, prompt = completions_of(item, where), prompt_of(item, where)
    return Written(texts, item.get("title"), item.get("context"), prompt)


def _of_pairs(lines: Sequence[tuple[Any, int]], path: str) -> list[Written]:
    """Completions of the same prompt together, in the order of their first."""
    found: dict[str, list[str]] = {}
    for item, number in lines:
        if not isinstance(item, dict) or not all(isinstance(item.get(f), str) for f in ("prompt", "completion")):
            raise UserError(f"{path}, line {number}: must be an object with the texts 'prompt' and 'completion'.")
        found.setdefault(item["prompt"], []).append(item["completion"])
    if not found:
        raise UserError(f"{path} holds no completions: it is empty")
    return [Written(tuple(texts), prompt=prompt) for prompt, texts in found.items()]


def _of_run(folder: Path) -> list[Written]:
    """The self-edits that the arm which learns wrote last of each passage; those that cannot be used are left out."""
    items = {item["item"]: item for item in read(folder / "items.jsonl")}
    last: dict[str, int] = {}
    edits = [edit for edit in read(folder / "self_edits.jsonl") if edit["arm"] == keys.SEAL and edit["item"] in items]
    for edit in edits:
        last[edit["item"]] = max(edit["round"], last.get(edit["item"], 0))
    if not last:
        raise UserError(f"{folder} has no self-edits in its records; name the folder of a run that wrote some")
    found = []
    for name, number in last.items():
        ours = [edit for edit in edits if (edit["item"], edit["round"]) == (name, number)]
        usable = [edit for edit in sorted(ours, key=lambda edit: edit["sample"]) if edit["problem"] is None]
        texts = tuple(edit["text"] for edit in usable if edit["text"])
        prompt = next((edit["prompt"] for edit in usable if edit.get("prompt")), None)
        found.append(Written(texts, items[name]["title"], items[name].get("context"), prompt))
    return found


def _texts(value: Any, field: str, where: str) -> list[str]:
    if not isinstance(value, list):
        raise UserError(f"{where}: {field!r} must be a list.")
    found = [entry.get("text") if isinstance(entry, dict) else entry for entry in value]
    if not all(isinstance(text, str) for text in found):
        raise UserError(f"{where}: {field!r} must be a list of texts, or of objects with 'text'.")
    return found


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}).") from error


def _plain(text: str) -> str:
    """A text by which passages are compared: SQuAD's underscores and runs of white space are single blanks, and what it
    wrote as in an address ('%27') is what it stands for."""
    return re.sub(r"[\s_]+", " ", unquote(text)).strip()
