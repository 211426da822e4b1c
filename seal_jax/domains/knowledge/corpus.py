"""Passages with their questions: reading them, choosing those to learn from and those to evaluate on.

Sources: a SEAL-style JSON file, a result file with `articles`, a SQuAD v1.1 JSON file, a dataset in SQuAD's columns
through the `datasets` package, and the corpus that this package ships. Whatever is malformed raises UserError with
file, item index and field.
White space around titles, contexts, questions and answers is removed.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from seal_jax.config import Data
from seal_jax.domains.domain import PASSAGES
from seal_jax.domains.knowledge.released import completions_of, prompt_of
from seal_jax.errors import UserError

SQUAD_TRAIN, SQUAD_VALIDATION = "datasets:rajpurkar/squad:train", "datasets:rajpurkar/squad:validation"
SHIPPED_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Question:
    """A question with its gold answer; a held-out one never counts for the reward."""

    question: str
    answer: str
    heldout: bool


@dataclass(frozen=True)
class Passage:
    """What the model reads, what it is asked afterwards, and self-edits that came with the file, if any.

    prompt: what those self-edits answer, where the file says so.
    """

    id: str
    title: str
    context: str
    questions: tuple[Question, ...]
    completions: tuple[str, ...] = ()
    prompt: str | None = None


def load_passages(source: str, labelled: bool = True) -> list[Passage]:
    """Passages in the order of the source: a JSON file, 'datasets:NAME[:SPLIT]' or 'shipped:SPLIT'.

    labelled: whether those of a SEAL-style file must have questions.
    """
    kind, _, rest = source.partition(":")
    if kind == "shipped":
        return _shipped(rest)
    if kind == "datasets":
        return _from_datasets(*rest.partition(":")[::2])
    data = _read_json(source)
    if isinstance(data, dict) and "data" in data:
        return _with_ids(_squad_items(data["data"], source))
    items = data.get("articles") if isinstance(data, dict) else data
    if isinstance(items, list):
        return _with_ids(_seal_items(items, source, labelled))
    raise UserError(
        f"{source} is neither a list of passages nor a SQuAD file: its top level must be a list of "
        "{title, context, questions} or an object with 'data'."
    )


def hold_out(passages: Sequence[Passage], fraction: float, seed: int) -> list[Passage]:
    """Mark `fraction` of each passage's questions (rounded) as held out; at least one stays in the reward.

    Which ones depends on the seed and the passage alone, not on the passages around it.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"the held-out fraction is {fraction}; it must be at least 0 and below 1.")
    marked = []
    for passage in passages:
        total = len(passage.questions)
        count = max(0, min(int(fraction * total + 0.5), total - 1))
        chosen = set(random.Random(f"{seed}/{passage.id}").sample(range(total), count))
        questions = tuple(replace(q, heldout=i in chosen) for i, q in enumerate(passage.questions))
        marked.append(replace(passage, questions=questions))
    return marked


def splits(data: Data, seed: int, labelled: bool = True) -> tuple[list[Passage], list[Passage], str]:
    """(passages to learn from, passages to evaluate on, a note for the user or "") as a config's `data` says.

    Both sources are shuffled by data.shuffle_seed. With data.evaluation 'auto' and a source of one's own, the passages
    to evaluate on are those of `train` that follow the ones to learn from, and the note says so. `seed` chooses the
    questions that are kept out of the reward. labelled: whether passages to learn from must have questions; those of a
    file that evaluation is kept out of must have them anyway. Raises UserError where there are too few passages, or
    some are in both.
    """
    if data.evaluation == "auto" and data.train != SQUAD_TRAIN:
        train, evaluation, note = _kept_out(data)
    else:
        source = SQUAD_VALIDATION if data.evaluation == "auto" else data.evaluation
        learned, held = load_passages(data.train, labelled), load_passages(source)
        train = select(learned, data.train_items, data.shuffle_seed, (data.train, "train_items"))
        evaluation = select(held, data.evaluation_items, data.shuffle_seed, (source, "evaluation_items"))
        note = ""
        _refuse_overlap(train, evaluation)
    return hold_out(train, data.heldout_fraction, seed), evaluation, note


def evaluated(data: Data) -> list[Passage]:
    """The passages of a config's `data.evaluation` alone; 'auto' is SQuAD's validation split."""
    source = SQUAD_VALIDATION if data.evaluation == "auto" else data.evaluation
    return select(load_passages(source), data.evaluation_items, data.shuffle_seed, (source, "evaluation_items"))


def some_questions(passages: Sequence[Passage], count: int, seed: int) -> list[Passage]:
    """The passages with `count` of all their questions (0: all), drawn at random; some may be left without any.

    Raises UserError where there are fewer.
    """
    places = [(i, j) for i, passage in enumerate(passages) for j in range(len(passage.questions))]
    if count > len(places):
        raise UserError(
            f"--config.pretraining.questions={count} asks for more than the {len(places)} questions of "
            f"{PASSAGES.count(len(passages))}; lower it, or set it to 0 for all"
        )
    chosen = set(random.Random(f"questions/{seed}").sample(places, count or len(places)))
    return [
        replace(passage, questions=tuple(q for j, q in enumerate(passage.questions) if (i, j) in chosen))
        for i, passage in enumerate(passages)
    ]


def select(passages: Sequence[Passage], count: int, seed: int, names: tuple[str, str]) -> list[Passage]:
    """The first `count` passages (0: all) after `random.seed(seed); random.shuffle(passages)`.

    A negative seed keeps their order. names: the source and the field of config.data that holds `count`, for the
    UserError where there are fewer passages.
    """
    total, (source, field) = len(passages), names
    if count > total:
        raise UserError(f"{source} has {PASSAGES.count(total)} and --config.data.{field}={count} asks for more; "
                        f"set it to at most {total}, or to 0 for all")  # fmt: skip
    return shuffled(passages, seed)[: count or total]


def shuffled(passages: Sequence[Passage], seed: int) -> list[Passage]:
    """All passages in the order of `random.seed(seed); random.shuffle(passages)`; a negative seed keeps their order.

    Passages that come with the prompts of their completions keep it too: such files were shuffled when they were made.
    """
    order = list(passages)
    if seed >= 0 and not any(passage.prompt for passage in order):
        random.Random(seed).shuffle(order)  # the same order as the global functions, without touching their state
    return order


def _kept_out(data: Data) -> tuple[list[Passage], list[Passage], str]:
    """(passages to learn from, other passages of the same source to evaluate on, a sentence that says so)."""
    order = shuffled(load_passages(data.train), data.shuffle_seed)
    total = len(order)
    held = data.evaluation_items or max(1, total // 5)
    learned = data.train_items or max(0, total - held)
    train = order[:learned]
    texts = {(passage.title, passage.context) for passage in train}
    rest = [passage for passage in order[learned:] if (passage.title, passage.context) not in texts]
    if not train or len(train) < learned or len(rest) < held:
        wanted = f"{data.train_items or 'the rest'} to learn from and {held} others to evaluate on"
        raise UserError(
            f"{data.train} has {PASSAGES.count(total)}, too few for {wanted}; lower --config.data.train_items or "
            "--config.data.evaluation_items, or name another source with --config.data.evaluation"
        )
    which = f"{held} of the {PASSAGES.count(total)} of {data.train}, kept out of training"
    return train, rest[:held], f"evaluating on {which}"


def _refuse_overlap(train: Sequence[Passage], evaluation: Sequence[Passage]) -> None:
    """Raises UserError if a passage to evaluate on has title and context of one to learn from."""
    texts = {(passage.title, passage.context) for passage in train}
    both = [passage.title for passage in evaluation if (passage.title, passage.context) in texts]
    if both:
        named = ", ".join(repr(title) for title in both[:3]) + (", …" if len(both) > 3 else "")
        raise UserError(
            f"{len(both)} of the {PASSAGES.count(len(evaluation))} to evaluate on are also learned from ({named}); "
            "name another source with --config.data.evaluation, or leave it at auto, which keeps passages out of "
            "training"
        )


def _read_json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give a JSON file, 'datasets:NAME' or 'shipped:train'."
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise UserError(f"{path} is not a JSON file in UTF-8 ({error}).") from error


def _shipped(split: str) -> list[Passage]:
    if split not in SHIPPED_SPLITS:
        names = ", ".join(f"shipped:{name}" for name in SHIPPED_SPLITS)
        raise UserError(f"the shipped corpus has no split {split!r}; use one of {names}.")
    text = (resources.files("seal_jax") / "data" / "invented.json").read_text(encoding="utf-8")
    items = [item for item in json.loads(text)["passages"] if item["split"] == split]
    return _with_ids(_seal_items(items, f"shipped:{split}"))


def _from_datasets(name: str, split: str) -> list[Passage]:
    """Rows {title, context, question, answers: {text: [...]}}, grouped by title and context in order of appearance."""
    from datasets import Dataset, load_dataset  # slow to import, and only this source needs it

    source = f"datasets:{name}"
    try:
        rows = load_dataset(name, split=split or None)
    except Exception as error:  # the hub, the network, the cache and the builders each raise their own
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{source} could not be loaded ({type(error).__name__}: {reason}).") from error
    if not isinstance(rows, Dataset):
        if len(rows) != 1:
            raise UserError(f"{source} has several splits; name one: " + ", ".join(f"{source}:{s}" for s in rows) + ".")
        rows = next(iter(rows.values()))
    grouped: dict[tuple[str, str], list[Question]] = {}
    for index, row in enumerate(rows):
        where = f"{source}, row {index}"
        key = (_squad_title(row, where), _text(row, "context", where))
        answers = _get(row, "answers", dict, where)
        texts = _get(answers, "text", list, f"{where}, answers")
        if not texts:
            raise UserError(f"{where}: 'answers' is empty; every question needs an answer.")
        answer = _text({"text[0]": texts[0]}, "text[0]", f"{where}, answers")
        grouped.setdefault(key, []).append(Question(_text(row, "question", where), answer, heldout=False))
    return _with_ids([Passage("", title, context, tuple(qs)) for (title, context), qs in grouped.items()])


def _seal_items(items: list, source: str, labelled: bool = True) -> list[Passage]:
    """[{title, context, questions: [{question, answer}]}], perhaps with completions and prompt: see released.py."""
    passages = []
    for index, item in enumerate(items):
        where = f"{source}, item {index}"
        unasked = not labelled and isinstance(item, dict) and "questions" not in item
        listed = [] if unasked else _get(item, "questions", list, where)
        questions = tuple(_seal_question(q, f"{where}, question {i}") for i, q in enumerate(listed))
        if not questions and labelled:
            raise UserError(f"{where}: 'questions' is empty; give at least one {{question, answer}}.")
        title, context = unquote(_text(item, "title", where)), _text(item, "context", where)
        found = completions_of(item, where), prompt_of(item, where)
        passages.append(Passage("", title, context, questions, *found))
    return _not_empty(passages, source)


def _seal_question(item: Any, where: str) -> Question:
    return Question(_text(item, "question", where), _text(item, "answer", where), heldout=False)


def _squad_items(articles: Any, source: str) -> list[Passage]:
    """[{title, paragraphs: [{context, qas: [{question, answers: [{text}]}]}]}]; the first answer is the gold one."""
    if not isinstance(articles, list):
        raise UserError(f"{source}: 'data' must be a list of articles.")
    passages = []
    for index, article in enumerate(articles):
        where = f"{source}, item {index}"
        title = _squad_title(article, where)
        for number, paragraph in enumerate(_get(article, "paragraphs", list, where)):
            place = f"{where}, paragraph {number}"
            qas = _get(paragraph, "qas", list, place)
            questions = tuple(_squad_question(qa, f"{place}, question {i}") for i, qa in enumerate(qas))
            context = _text(paragraph, "context", place)
            if questions:  # a paragraph that nobody asked about is legal, and of no use
                passages.append(Passage("", title, context, questions))
    return _not_empty(passages, source)


def _squad_question(qa: Any, where: str) -> Question:
    question, answers = _text(qa, "question", where), _get(qa, "answers", list, where)
    if not answers:
        raise UserError(f"{where}: 'answers' is empty; every question needs an answer (SQuAD v1.1, not v2).")
    return Question(question, _text(answers[0], "text", f"{where}, answer 0"), heldout=False)


def _squad_title(item: Any, where: str) -> str:
    """The title with spaces for SQuAD's underscores, and what stands for '%27' and the like."""
    return unquote(_text(item, "title", where)).replace("_", " ")


def _get(item: Any, field: str, kind: type, where: str) -> Any:
    names = {str: "text", list: "list", dict: "object"}
    if not isinstance(item, dict):
        raise UserError(f"{where} must be an object with {field!r}, and is {_shown(item)}.")
    if field not in item:
        raise UserError(f"{where} lacks the field {field!r}.")
    if not isinstance(item[field], kind):
        raise UserError(f"{where}: {field!r} must be a {names[kind]}, and is {_shown(item[field])}.")
    return item[field]


def _text(item: Any, field: str, where: str) -> str:
    """The text of a field without white space around it. Raises UserError if there is none."""
    text = _get(item, field, str, where).strip()
    if not text:
        raise UserError(f"{where}: {field!r} is empty.")
    check_letters(text, where, field)
    return text


def check_letters(text: str, where: str, field: str) -> None:
    """Raises UserError for half a letter, which JSON can hold and UTF-8 cannot."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{where}: {field!r} holds half a letter (a lone surrogate such as \\ud83d); write it whole.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _not_empty(passages: list[Passage], source: str) -> list[Passage]:
    if not passages:
        raise UserError(f"{source} holds no passage with questions.")
    return passages


def _with_ids(passages: list[Passage]) -> list[Passage]:
    """Ids from a hash of title and context; the second of two equal passages gets '-2', and so on."""
    seen: dict[str, int] = {}
    result = []
    for passage in passages:
        digest = hashlib.sha256(f"{passage.title}\n{passage.context}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        result.append(replace(passage, id=digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"))
    return result
