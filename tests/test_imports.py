"""Imports inside the package point downwards only, and JAX and Orbax stay in their places."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "seal_jax"

# From the top down. A module imports from its own part and from lower rows, never from a neighbour in its row.
LAYERS = [
    {"adapt"},
    {"main", "fit"},
    {"lab", "experiments", "report"},
    {"flags", "outer"},
    {"rewards"},
    {"authors"},
    {"student"},
    {"judges"},
    {"domains"},
    {"runs"},
    {"fitting"},
    {"engine"},
    {"parallel"},
    {"inner"},
    {"model"},
]
LEAVES = {"errors", "config", "domains.domain", "seeds", "text"}  # everyone may import these; they import no others
WITHOUT_JAX = {"domains", "judges"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
ORBAX_HOME = "runs.checkpoint"

Modules = dict[str, ast.Module]  # "runs.checkpoint" -> its source; "runs" is runs/__init__.py, "" is the package's own


def parse(package: Path) -> Modules:
    modules = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = ast.parse(file.read_text(encoding="utf-8"), str(file))
    return modules


def imported(name: str, modules: Modules, types_too: bool = True) -> Iterator[str]:
    """The full dotted names that a module imports, in functions too; `types_too`: under TYPE_CHECKING as well."""
    skipped = set() if types_too else _for_types_only(modules[name])
    is_package = any(other.startswith(f"{name}.") for other in modules) or name == ""
    here = ["seal_jax", *name.split(".")] if name else ["seal_jax"]
    for node in ast.walk(modules[name]):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + is_package] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def _for_types_only(tree: ast.Module) -> set[ast.AST]:
    """The nodes under `if TYPE_CHECKING:`."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {node for block in blocks for statement in block.body for node in ast.walk(statement)}


def inside(name: str, modules: Modules, types_too: bool = True) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for target in imported(name, modules, types_too):
        parts = target.split(".")
        if parts[0] == "seal_jax":
            parts = parts[1:]
            while parts and ".".join(parts) not in modules:
                parts = parts[:-1]  # the last part is a name in a module
            found.add(".".join(parts))
    return found - {name, ""}


def outside(name: str, modules: Modules) -> set[str]:
    """The top-level names of the other libraries that a module imports when it runs."""
    return {target.split(".")[0] for target in imported(name, modules, types_too=False)} - {"seal_jax"}


def rank(name: str) -> int | None:
    part = name.split(".")[0]
    return next((i for i, layer in enumerate(LAYERS) if part in layer), None)


def is_leaf(name: str) -> bool:
    return name in LEAVES or name.split(".")[0] in LEAVES


def violations(package: Path) -> list[str]:
    modules = parse(package)
    found = []
    for name in modules:
        part = name.split(".")[0]
        if rank(name) is None and not is_leaf(name) and name != "":
            found.append(f"{name} has no place in LAYERS")
            continue
        for target in sorted(inside(name, modules)):
            if is_leaf(target):
                continue
            if is_leaf(name) or name == "":
                found.append(f"{name or 'seal_jax'} imports {target}: it may import leaves only")
            elif rank(target) is not None and target.split(".")[0] != part and rank(target) <= rank(name):
                found.append(f"{name} imports {target}: not below it")
        if "orbax" in outside(name, modules) and name != ORBAX_HOME:
            found.append(f"{name} imports orbax: only {ORBAX_HOME} does")
        if part in WITHOUT_JAX:
            found += [f"{name} imports {library}{way}" for library, way in jax_of(name, modules)]
    return found


def jax_of(name: str, modules: Modules) -> list[tuple[str, str]]:
    """How a module comes to import JAX, by itself or through modules of the package: [(library, " through a, b")]."""
    found, seen, queue = [], {name}, [(name, ())]
    while queue:
        current, way = queue.pop()
        for library in sorted(outside(current, modules) & JAX):
            found.append((library, f" through {', '.join(way)}" if way else ""))
        parents = {".".join(current.split(".")[:i]) for i in range(1, current.count(".") + 1)}  # their __init__ runs
        for target in sorted((inside(current, modules, types_too=False) | parents & modules.keys()) - seen):
            seen.add(target)
            queue.append((target, (*way, target)))
    return found


def test_the_package_keeps_its_layers():
    assert violations(PACKAGE) == []


def test_the_package_was_read():
    modules = parse(PACKAGE)
    assert {"errors", "config.science", "runs.checkpoint", "domains.domain", "model.transformer"} <= modules.keys()
    assert "orbax" in outside("runs.checkpoint", modules)
    assert "errors" in inside("runs.directory", modules)


GOOD = {
    "__init__.py": "",
    "errors.py": "",
    "config/__init__.py": "from seal_jax.config.science import Config",
    "config/science.py": "import seal_jax.errors",
    "main.py": "from seal_jax import experiments\nfrom seal_jax.outer.rest_em import run\nimport seal_jax.report.html",
    "outer/__init__.py": "",
    "outer/rest_em.py": "from seal_jax.engine import engine\nfrom . import select\nfrom seal_jax.config import Config",
    "outer/select.py": "import seal_jax.errors",
    "experiments/__init__.py": "",
    "report/__init__.py": "",
    "report/html.py": "import seal_jax.domains.knowledge",
    "engine/__init__.py": "",
    "engine/engine.py": "import jax\nfrom ..model.lora import LoraConfig\nfrom seal_jax.errors import UserError",
    "model/__init__.py": "",
    "model/lora.py": "import jax",
    "domains/__init__.py": "",
    "domains/domain.py": "import dataclasses",
    "domains/knowledge.py": (
        "from seal_jax.domains.domain import Prompt\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jax"
    ),
    "judges/__init__.py": "",
    "judges/local.py": "from seal_jax.domains.domain import Prompt",
    "runs/__init__.py": "",
    "runs/checkpoint.py": "import orbax.checkpoint as ocp",
}


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        file = folder / "seal_jax" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return folder / "seal_jax"


def test_a_good_tree_passes(tmp_path):
    assert violations(write_tree(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("model/lora.py", "from seal_jax.engine.engine import x", "model.lora imports engine.engine: not below it"),
        ("model/lora.py", "def f():\n    from seal_jax import engine", "model.lora imports engine: not below it"),
        ("model/lora.py", "from ..engine import engine", "model.lora imports engine.engine: not below it"),
        ("model/__init__.py", "from ..engine import engine", "model imports engine.engine: not below it"),
        ("outer/select.py", "import seal_jax.main", "outer.select imports main: not below it"),
        ("outer/select.py", "import seal_jax.report.html", "outer.select imports report.html: not below it"),
        ("report/html.py", "import seal_jax.experiments", "report.html imports experiments: not below it"),
        ("experiments/__init__.py", "import seal_jax.report.html", "experiments imports report.html: not below it"),
        ("domains/knowledge.py", "import seal_jax.judges", "domains.knowledge imports judges: not below it"),
        ("judges/local.py", "import jax.numpy as jnp", "judges.local imports jax"),
        ("judges/local.py", "def f():\n    from flax import linen", "judges.local imports flax"),
        ("domains/knowledge.py", "from seal_jax.model import lora", "domains.knowledge imports jax through model.lora"),
        ("domains/__init__.py", "import optax", "judges.local imports optax through domains.domain, domains"),
        ("model/lora.py", "from orbax import checkpoint", "model.lora imports orbax: only runs.checkpoint does"),
        ("errors.py", "from seal_jax.model import lora", "errors imports model.lora: it may import leaves only"),
        ("config/science.py", "import seal_jax.runs", "config.science imports runs: it may import leaves only"),
        ("domains/domain.py", "from . import x, knowledge",
         "domains.domain imports domains.knowledge: it may import leaves only"),
        ("__init__.py", "from seal_jax import main", "seal_jax imports main: it may import leaves only"),
        ("helpers.py", "", "helpers has no place in LAYERS"),
    ],
)  # fmt: skip
def test_a_planted_violation_is_found(tmp_path, file, source, expected):
    assert expected in violations(write_tree(tmp_path, GOOD | {file: source}))
