"""The prompts that ask a model for a self-edit of a passage: seven families, or a template from a text file.

A family asks for its product in one sentence, then shows title, newline, context, then a cue that a plain model
continues. In a chat the cue is left out: the template of the model ends the user's turn.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from seal_jax.domains.domain import Prompt
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.errors import UserError

PLACEHOLDERS = ("{title}", "{context}")


@dataclass(frozen=True)
class Family:
    """One way to ask: the sentence above the passage, and the cue below it (plain models only)."""

    request: str
    cue: str


FAMILIES = {
    "implications": Family(
        "Read the passage below and list, one per line, the facts that it states and what follows from them.",
        "Implications:\n",
    ),
    "implications-long": Family(
        "Read the passage below and write a long list, one entry per line, of the facts that it states and of what "
        "follows from them, directly or in a roundabout way.",
        "Implications:\n",
    ),
    "implications-very-long": Family(
        "Read the passage below and write a very long and detailed list, one entry per line, that leaves out no fact "
        "of it, says each in several ways, and adds everything that can be concluded from them, alone or together.",
        "Implications:\n",
    ),
    "rewrite": Family(
        "Read the passage below and retell all of it in several versions that differ in wording and order, with a "
        "line of three dashes (---) between one version and the next.",
        "Versions:\n",
    ),
    "self-qa": Family(
        "Read the passage below and write questions about everything in it with their answers, numbered, each as a "
        "line that begins with 'Question 1:', 'Question 2:' and so on, and a line that begins with 'Answer:'.",
        "Question 1:",
    ),
    "none": Family("", ""),
    "implications-cot": Family(
        "Read the passage below, first think step by step about what it says and what that leads to, and then, under "
        "a line that reads 'Implications:', list what follows from it, one entry per line.",
        "Step by step:\n",
    ),
}


def edit_prompt(passage: Passage, family_or_template: str, chat: bool) -> Prompt:
    """The prompt that asks for a self-edit: a family by name, or a template text with {title} and {context}.

    A template is used as it stands, for plain and for chat models. Raises UserError for a name that is no family.
    """
    return Prompt(_fill(_template(family_or_template, chat), passage), chat)


def resolve(family_or_file: str) -> str:
    """What `edit_prompt` takes, from what a config says: the name of a family, or the path of a template file."""
    return family_or_file if family_or_file in FAMILIES else load_template(family_or_file)


def load_template(path: str) -> str:
    """Text of a template file, kept to the last newline. UserError if unreadable or without a placeholder."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        names = ", ".join(FAMILIES)
        raise UserError(f"prompt {path!r} cannot be read ({reason}); give a text file or one of: {names}.") from error
    for placeholder in PLACEHOLDERS:
        if placeholder not in text:
            raise UserError(f"prompt file {path} lacks the placeholder {placeholder}; write it where that text goes.")
    return text


def _template(name: str, chat: bool) -> str:
    if name in FAMILIES:
        family = FAMILIES[name]
        if not family.request:
            return "{title}\n{context}"
        shown = family.request + "\n\nPassage:\n{title}\n{context}"
        return shown if chat else f"{shown}\n\n{family.cue}"
    if all(placeholder in name for placeholder in PLACEHOLDERS):
        return name
    raise UserError(
        f"prompt {name!r} is neither a template with {{title}} and {{context}} nor one of: " + ", ".join(FAMILIES) + "."
    )


def _fill(template: str, passage: Passage) -> str:
    """Both placeholders in one pass, so that braces in the passage or elsewhere in the template stay what they are."""
    values = {"{title}": passage.title, "{context}": passage.context}
    return re.sub(r"\{title\}|\{context\}", lambda found: values[found.group()], template)
