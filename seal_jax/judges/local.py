"""A judge that asks a language model which runs here; the caller supplies the model as a function, so no jax here."""

from collections.abc import Callable, Sequence
from math import isnan

from seal_jax.domains.domain import Answered, Prompt
from seal_jax.judges.item import grading_request

AskYesNo = Callable[[list[Prompt]], list[tuple[float, float]]]


def make(ask_yes_no: AskYesNo, model: str = "", chat: bool = True) -> Callable[[Sequence[Answered]], list[bool | None]]:
    """A judge that compares log p(yes) with log p(no) after one prompt per item.

    `ask_yes_no` gives both log-probabilities for each prompt; `model` becomes part of the judge's name; `chat` says
    whether the model has a chat template (a plain prompt ends so that the verdict is the next word).
    """

    def grade(items: Sequence[Answered]) -> list[bool | None]:
        asked = list(dict.fromkeys(item for item in items if not item.is_empty))
        prompts = [Prompt(grading_request(item) + ("" if chat else "\nVerdict:"), chat) for item in asked]
        scores = ask_yes_no(prompts) if prompts else []
        verdicts = {item: _verdict(*pair) for item, pair in zip(asked, scores, strict=True)}
        return [False if item.is_empty else verdicts[item] for item in items]

    grade.name = f"local:{model}" if model else "local"
    return grade


def _verdict(yes: float, no: float) -> bool | None:
    return None if isnan(yes) or isnan(no) or yes == no else yes > no
