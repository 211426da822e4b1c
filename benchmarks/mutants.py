"""Mutation testing: break the code in one place after another and see whether a test goes red.

    python benchmarks/mutants.py                      # a sample of 300 mutants of the five packages below
    python benchmarks/mutants.py --sample 0 outer     # every mutant of seal_jax/outer

Works on a copy of the tree, in one process. What the tests that load no model leave alive meets those that MODEL names
for its file. Prints every survivor as file:line with what took the place of what, and at the end how many were killed
in each package.
"""

import argparse
import ast
import contextlib
import copy
import io
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("outer", "rewards", "authors", "student", "experiments")
TESTS = (
    "select", "seeds", "rewards", "racing", "improvers", "rollouts", "authors", "student", "actor", "worlds", "loop",
    "course", "grid", "lessons", "outlook", "reinforce", "rewarding", "rubric", "teacher", "writers", "writing",
)  # fmt: skip
# Which of them begin, by package or file; what breaks a file mostly breaks the tests that bear its name.
FIRST = {
    "outer": ("improvers", "select", "rollouts", "loop"), "rewards": ("rewards", "racing"),
    "authors": ("authors", "writers"), "student": ("student", "actor"), "experiments": ("loop", "actor", "worlds"),
    "continual": ("course",), "course": ("course",), "endpoint": ("writers", "teacher"), "entigraph": ("writers",),
    "grid": ("grid",), "knowledge": ("worlds",), "arc": ("worlds",), "forecast": ("outlook",),
    "outlook": ("outlook",), "past": ("course",), "policy_gradient": ("reinforce",), "pretraining": ("lessons",),
    "reinforce": ("reinforce",), "rewarding": ("rewarding",), "rubric": ("rubric",), "update": ("course",),
    "writing": ("writers", "writing"),
}  # fmt: skip
MODEL = {
    "actor": ("authors", "student"), "ask": ("student",), "continual": ("continual",), "course": ("continual",),
    "merge": ("student",), "past": ("continual",), "policy": ("authors",), "prefer": ("m_steps",),
    "pretraining": ("pretraining",), "reinforce": ("m_steps",), "train": ("student",), "update": ("continual",),
}  # fmt: skip
SECONDS = 120  # for the tests of one mutant
SWAPS = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What may take the place of a node."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield ast.Compare(node.left, [SWAPS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        yield ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(SWAPS[type(node.op)](), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.Constant) and node.value is not None and node.value is not ...:
        changed = {bool: lambda v: not v, str: lambda v: f"{v}X", int: lambda v: v + 1, float: lambda v: v + 1}
        yield ast.Constant(changed[type(node.value)](node.value))
    elif isinstance(node, ast.Call) and _differ(node.args) and ast.unparse(node.func) not in ("min", "max"):
        yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.If):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield ast.comprehension(node.target, node.iter, node.ifs[1:], node.is_async)
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Yield)
    ):
        yield ast.Pass()
    elif isinstance(node, ast.Break):
        yield ast.Continue()


def _differ(args: list[ast.expr]) -> bool:
    """Whether the first two arguments are two different things."""
    return len(args) > 1 and ast.unparse(args[0]) != ast.unparse(args[1])


def places(tree: ast.AST, path: tuple = ()) -> Iterator[tuple]:
    """The nodes that may change, as paths of (field, index) from the module; no types, docstrings, messages."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "keywords_types"):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, ast.AST) and not docstring and not isinstance(node, ast.JoinedStr | ast.ImportFrom):
                here = (*path, (field, index if isinstance(value, list) else None))
                if any(True for _ in replacements(node)):
                    yield here
                yield from places(node, here)


def change(tree: ast.Module, path: tuple) -> tuple[str, str]:
    """(the whole module with one place changed, 'line: old -> new')."""
    tree = copy.deepcopy(tree)
    holder = tree
    for field, index in path[:-1]:
        holder = getattr(holder, field) if index is None else getattr(holder, field)[index]
    field, index = path[-1]
    old = getattr(holder, field) if index is None else getattr(holder, field)[index]
    new = next(replacements(old))
    if index is None:
        setattr(holder, field, new)
    else:
        getattr(holder, field)[index] = new
    line = getattr(old, "lineno", getattr(getattr(old, "target", None), "lineno", 0))
    short = [" ".join(ast.unparse(node).split())[:90] for node in (old, new)]
    return ast.unparse(ast.fix_missing_locations(tree)), f"{line}: {short[0]} -> {short[1]}"


class WithModel:
    """Of the tests, those that load a model, or the others."""

    def __init__(self, wanted: bool):
        self.wanted = wanted

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if ("actors" in item.fixturenames) == self.wanted]


def is_red(copied: Path, names: tuple[str, ...], model: bool) -> bool:
    """Whether some test of these files is red or does not end, with whatever stands in the copy now."""
    gone = tuple(f"seal_jax.{name}" for name in (*PACKAGES, "report", "main"))
    tests = {path.stem for path in (copied / "tests").glob("*.py")} | {"toys"}
    for name in list(sys.modules):
        if name.startswith(gone) or name.split(".")[0] in tests:
            del sys.modules[name]
    files = [str(copied / "tests" / f"test_{name}.py") for name in names]

    def late(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(copied)]
            return pytest.main([*options, *files], plugins=[WithModel(model)]) not in (0, 5)  # 5: no test
    except BaseException as error:  # whatever a broken program raises, it was noticed
        if isinstance(error, KeyboardInterrupt):
            raise
        return True
    finally:
        signal.alarm(0)


def is_killed(copied: Path, file: Path) -> bool:
    """Whether the tests notice what stands in a file of the copy."""
    first = (*FIRST.get(file.stem, ()), *FIRST.get(file.parent.name, ()))
    order = tuple(dict.fromkeys((*first, *TESTS)))
    return is_red(copied, order, model=False) or (file.stem in MODEL and is_red(copied, MODEL[file.stem], model=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", default=PACKAGES, metavar="PACKAGE", help=f"of {', '.join(PACKAGES)}")
    parser.add_argument("--sample", type=int, default=300, help="mutants, drawn evenly from all; 0: every one")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    args = parser.parse_args()
    copied = Path(tempfile.mkdtemp(prefix="mutants"))
    for name in ("seal_jax", "tests"):
        shutil.copytree(ROOT / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(copied))
    sys.dont_write_bytecode = True
    hypothesis.settings.register_profile("short", max_examples=50, database=None, phases=[hypothesis.Phase.generate])
    os.environ.setdefault("SEAL_JAX_TEST_CACHE", str(copied / "cache"))  # compiled once for all mutants
    hypothesis.settings.load_profile("short")  # it would look for the simplest case of every red test
    with_model = tuple(sorted({name for names in MODEL.values() for name in names}))

    def red() -> bool:  # each file for itself, as no time limit holds for all of them
        return is_red(copied, TESTS, model=False) or any(is_red(copied, (name,), model=True) for name in with_model)

    if red():
        sys.exit("the tests are red before anything is changed")
    sources = {file: file.read_text() for p in args.packages for file in sorted((copied / "seal_jax" / p).glob("*.py"))}
    trees = {file: ast.parse(source) for file, source in sources.items()}
    mutants = [(file, path) for file, tree in trees.items() for path in places(tree)]
    chosen = random.Random(args.seed).sample(mutants, min(args.sample or len(mutants), len(mutants)))
    print(f"{len(chosen)} of {len(mutants)} mutants", flush=True)
    killed: dict[str, list[bool]] = {}
    for file, path in sorted(chosen, key=mutants.index):
        source, what = change(trees[file], path)
        file.write_text(source)
        killed.setdefault(file.parent.name, []).append(is_killed(copied, file))
        file.write_text(sources[file])
        if not killed[file.parent.name][-1]:
            print(f"survived: {file.relative_to(copied)}:{what}", flush=True)
    if red():
        sys.exit("the tests are red on the code as it is, after all these mutants: the figures above mean nothing")
    for package, found in killed.items():
        print(f"{package}: {sum(found)} of {len(found)} killed, {sum(found) / len(found):.0%}")
    shutil.rmtree(copied)


if __name__ == "__main__":
    main()
