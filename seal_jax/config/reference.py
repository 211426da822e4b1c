"""The reference of all fields of a config as Markdown, made from the dataclasses and the comments beside their fields.

    python -m seal_jax.config.reference > docs/configuration.md
"""

import ast
import dataclasses
import inspect
import typing
from typing import Any

from seal_jax.config import build, machine, science
from seal_jax.config.build import Config

HEAD = """# Configuration

Made by `python -m seal_jax.config.reference > docs/configuration.md`; a test keeps it so. Set a field on the command
line with `--config.GROUP.FIELD=VALUE`, or in a file of `configs/`. The groups {machine} are about the machine and may
change when a run is continued; all others define its numbers. The defaults are the paper's for passages.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD.format(machine=", ".join(f"`{name}`" for name in build.MACHINE))]
    comments = {}
    for module in (build, science, machine):
        comments |= field_comments(inspect.getsource(module))
    groups = [("", Config())]
    while groups:
        place, group = groups.pop(0)
        inner = [(f.name, getattr(group, f.name)) for f in dataclasses.fields(group)]
        groups = [(f"{place}{name}.", value) for name, value in inner if dataclasses.is_dataclass(value)] + groups
        parts.append(section(place, group, comments))
    return "\n".join(parts).rstrip() + "\n"


def section(place: str, group: Any, comments: dict[tuple[str, str], str]) -> str:
    """One group's fields as a table, without the groups in it."""
    doc = " ".join((inspect.getdoc(type(group)) or "").split())
    rows = []
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if dataclasses.is_dataclass(value):
            continue
        about = next((comments[kind.__name__, field.name] for kind in type(group).__mro__
                      if (kind.__name__, field.name) in comments), "")  # fmt: skip
        cells = f"`{place}{field.name}`", f"`{shown(value)}`", limits(type(group), field), about
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if not rows:
        return ""
    title = f"`{place.rstrip('.')}`" if place else "Top level"
    return "\n".join([f"## {title}", "", doc, "", "| field | default | values | |", "|---|---|---|---|", *rows, ""])


def shown(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return repr(value) if isinstance(value, str) else str(value)


def limits(kind: type, field: dataclasses.Field) -> str:
    """What values a field takes, in a few words."""
    data, type_ = field.metadata, typing.get_type_hints(kind)[field.name]
    if "options" in data:
        return ", ".join(f"`{option}`" for option in data["options"])
    if "subset" in data:
        return "some of " + ", ".join(f"`{option}`" for option in data["subset"])
    name = {int: "integer", float: "number", bool: "true or false", str: "text"}.get(type_, "list of texts")
    name = {tuple[int, ...]: "list of integers", tuple[float, ...]: "list of numbers"}.get(type_, name)
    bounds = []
    if data.get("low") is not None:
        bounds.append(f"from {data['low']}")
    if data.get("above") is not None:
        bounds.append(f"above {data['above']}")
    if data.get("high") is not None:
        bounds.append(f"to {data['high']}")
    return " ".join([name, *bounds])


def field_comments(source: str) -> dict[tuple[str, str], str]:
    """{(class, field): the comment behind a field, or on the lines above it}."""
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for item in node.body:
            if not isinstance(item, ast.AnnAssign):
                continue
            behind = lines[item.end_lineno - 1][item.end_col_offset :].partition("#")[2]
            above, number = [], item.lineno - 2
            while lines[number].strip().startswith("#"):
                above.insert(0, lines[number].strip("# "))
                number -= 1
            text = " ".join([*above, behind.strip()]).strip()
            if text and not text.startswith("fmt:"):
                found[node.name, item.target.id] = text
    return found


if __name__ == "__main__":
    print(reference(), end="")
