"""Limits that keep the code readable: lines of a file, parameters of a function."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINES, PARAMETERS = 350, 6
FILES = sorted(path for folder in ("seal_jax", "examples") for path in (ROOT / folder).rglob("*.py"))


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> int:
    """Those that a caller may give; `self` and `cls` are not counted."""
    args = function.args
    named = [*args.posonlyargs, *args.args]
    bound = bool(named) and named[0].arg in ("self", "cls")
    return len(named) - bound + len(args.kwonlyargs) + (args.vararg is not None) + (args.kwarg is not None)


def too_many(source: str) -> list[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds) and parameters(node) > PARAMETERS]
    return [f"line {node.lineno}: {getattr(node, 'name', 'lambda')} has {parameters(node)}" for node in found]


def test_there_is_something_to_look_at():
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {"seal_jax/main.py", "seal_jax/outer/rest_em.py", "seal_jax/config/science.py"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_are_short_and_functions_take_few_parameters(path):
    source = path.read_text()
    assert len(source.splitlines()) <= LINES
    assert too_many(source) == []


def test_parameters_are_counted_without_self():
    assert too_many("class A:\n def f(self, a, b, c, d, e, f): pass") == []
    assert too_many("class A:\n @classmethod\n def f(cls, a, b, c, d, e, f): pass") == []
    assert too_many("def f(a, b, c, /, d, *e, f, **g): pass") == ["line 1: f has 7"]
    assert too_many("x = lambda a, b, c, d, e, f, g: 0") == ["line 1: lambda has 7"]
