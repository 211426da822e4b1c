"""ARC tasks as chats, and grids read back from what a model writes.

System: the instruction and the demonstrations, each `input -> output#`. User: the test input and ` -> `. Assistant:
the output and `#`. A grid is a list of bracketed rows, `[[0 1 2]` newline ` [3 4 5]]`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from seal_jax.domains.arc.grids import LARGEST, ArcTask, Grid, Pair, make_grid
from seal_jax.domains.domain import Example, Prompt

ARROW, END = " -> ", "#"
INSTRUCTION = (
    "In this puzzle one hidden rule turns an input grid into an output grid. The digits 0 to 9 are colours. "
    "Find the rule in the examples, then write the output grid of the last input."
)
INSTRUCTION_ALONE = (
    "In this puzzle one hidden rule turns an input grid into an output grid. The digits 0 to 9 are colours. "
    "Write the output grid of the input."
)
_WHOLE = re.compile(r"\[(?:\s*\[[0-9\s,]*\],?)+\s*\]")
_ROW = re.compile(r"\[([0-9\s,]*)\]")
_APART, _TOGETHER = re.compile(r"\s*[0-9](?:(?:\s+|\s*,\s*)[0-9])*\s*"), re.compile(r"\s*[0-9]+\s*")


@dataclass(frozen=True)
class Form:
    """How grids and turns are written.

    separator: stands between the cells of a row. A blank suits tokenizers that join digits (Llama 3: up to three). For
    tokenizers that make each digit a token (SmolLM2, Qwen) an empty separator halves the number of tokens.
    closing: the end of the turn is learned too.
    """

    separator: str = " "
    closing: bool = True


def grid_text(grid: Grid, form: Form) -> str:
    """A grid as bracketed rows."""
    rows = (form.separator.join(str(cell) for cell in row) for row in grid.tolist())
    return "[" + "\n ".join(f"[{row}]" for row in rows) + "]"


def decode_grid(text: str) -> Grid | None:
    """The grid written before the first '#' of an answer (or in all of it, without '#'); None if that is no grid.

    A grid is bracketed rows of equal length, of single digits, at most 30 by 30. Cells and rows may be separated by
    blanks, commas or nothing. Never raises.
    """
    text = text.partition(END)[0].strip()
    if not _WHOLE.fullmatch(text):
        return None
    rows = _ROW.findall(text)
    if not all(_APART.fullmatch(row) or _TOGETHER.fullmatch(row) for row in rows):
        return None
    cells = [[int(digit) for digit in re.findall("[0-9]", row)] for row in rows]
    if len(cells) > LARGEST or len(cells[0]) > LARGEST or len({len(row) for row in cells}) != 1:
        return None
    return make_grid(cells)


def answer_prompt(demonstrations: Sequence[Pair], test_input: Grid, form: Form) -> Prompt:
    """What a model is shown: demonstrations in the system message, the test input in the user's turn.

    Without demonstrations the system message is an instruction that mentions none.
    """
    shown = [f"{grid_text(p.input, form)}{ARROW}{grid_text(p.output, form)}{END}" for p in demonstrations]
    system = "\n\n".join([INSTRUCTION, *shown]) if shown else INSTRUCTION_ALONE
    return Prompt(grid_text(test_input, form) + ARROW, chat=True, system=system)


def answer_text(output: Grid, form: Form) -> str:
    """What the model should write."""
    return grid_text(output, form) + END


def example(task: ArcTask, all_tokens: bool, form: Form) -> Example:
    """The first test pair of a task as a training example; with `all_tokens` the loss is on the prompt as well."""
    pair = task.test[0]
    prompt = answer_prompt(task.train, pair.input, form)
    return Example(prompt, answer_text(pair.output, form), form.closing, whole=all_tokens)
