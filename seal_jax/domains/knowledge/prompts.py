"""The prompts that ask a model for a self-edit of a passage: text files, those that ship (FAMILIES) or one's own.

{title} and {context} stand for the passage. What follows {cue} is for plain models alone: in a chat the template of the
model ends the user's turn. A file whose first line is {plain} is continued as plain text by chat models too, and what
they write ends at a blank line: so few-shot prompts show their examples, with a blank line between one and the next.
"""

import re
from functools import cache
from importlib import resources

from seal_jax.domains.domain import Prompt
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.errors import UserError, read_text

PLACEHOLDERS = ("{title}", "{context}")
PLAIN, CUE = "{plain}\n", "{cue}"
BLANK_LINE = "\n\n"

# The paper's seven, then those in which small models see by example what is wanted.
FAMILIES = (
    "implications", "implications-long", "implications-very-long", "rewrite", "self-qa", "none", "implications-cot",
    "facts-few-shot", "self-qa-few-shot", "rewrite-few-shot",
)  # fmt: skip


def edit_prompt(passage: Passage, family_or_template: str, chat: bool) -> Prompt:
    """The prompt that asks for a self-edit: a family by name, or a template text with {title} and {context}.

    Raises UserError for a name that is no family.
    """
    template = _template(family_or_template)
    if template.startswith(PLAIN):
        return Prompt(_fill(template.removeprefix(PLAIN).replace(CUE, ""), passage), False, stops=(BLANK_LINE,))
    shown, _, cue = template.partition(CUE)
    return Prompt(_fill(shown if chat else shown + cue, passage), chat)


def resolve(family_or_file: str) -> str:
    """What `edit_prompt` takes, from what a config says: the name of a family, or the path of a template file."""
    return family_or_file if family_or_file in FAMILIES else load_template(family_or_file)


def load_template(path: str) -> str:
    """Text of a template file, kept to the last newline. UserError if unreadable or without a placeholder."""
    text = read_text(path, f"give a text file or one of: {', '.join(FAMILIES)}.", f"prompt {path!r}")
    for placeholder in PLACEHOLDERS:
        if placeholder not in text:
            raise UserError(f"prompt file {path} lacks the placeholder {placeholder}; write it where that text goes.")
    return text


@cache
def _template(name: str) -> str:
    if name in FAMILIES:
        return (resources.files("seal_jax") / "data" / "prompts" / f"{name}.txt").read_text(encoding="utf-8")
    if all(placeholder in name for placeholder in PLACEHOLDERS):
        return name
    raise UserError(
        f"prompt {name!r} is neither a template with {{title}} and {{context}} nor one of: " + ", ".join(FAMILIES) + "."
    )


def _fill(template: str, passage: Passage) -> str:
    """Both placeholders in one pass, so that braces in the passage or elsewhere in the template stay what they are."""
    values = {"{title}": passage.title, "{context}": passage.context}
    return re.sub(r"\{title\}|\{context\}", lambda found: values[found.group()], template)
