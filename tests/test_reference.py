"""docs/configuration.md is what the dataclasses say: every field with its default, its limits and its comment."""

import dataclasses
from pathlib import Path

from seal_jax.config import Config
from seal_jax.config.reference import field_comments, reference

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == reference(), "run: python -m seal_jax.config.reference > docs/configuration.md"


def fields(group, place=""):
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{place}{field.name}.")
        else:
            yield f"{place}{field.name}"


def test_every_field_is_on_it_once():
    text = reference()
    names = list(fields(Config()))
    assert len(names) > 90
    for name in names:
        assert text.count(f"| `{name}` |") == 1, name


def test_comments_behind_and_above_a_field_belong_to_it():
    source = (
        'class A:\n    """Of A."""\n\n    # first\n    # and second\n    x: int = 1\n    y: str = "# no"  # behind\n'
        "    z: int = 2\n"
    )
    assert field_comments(source) == {("A", "x"): "first and second", ("A", "y"): "behind"}


def test_rows_hold_default_limits_and_comment():
    text = reference()
    assert "| `sampling.top_p` | `0.95` | number above 0 to 1 |  |" in text
    assert "| `engine.candidates` | `8` | integer from 0 | adapters trained together; 0: as many as fit memory" in text
    assert "| `outer.unfinished` | `'cut'` | `cut`, `open`, `drop` | What the policy is taught" in text
