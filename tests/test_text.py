"""Plain text tables and times."""

import pytest

from seal_jax.text import columns, duration


def test_columns_are_aligned_and_nothing_is_cut_off():
    assert columns(["row", "mean"], [["a long name", "1"], ["b", "-12.5"]]) == (
        "row           mean\n"
        "------------------\n"
        "a long name      1\n"
        "b            -12.5"
    )  # fmt: skip


def test_a_table_without_rows_has_its_header():
    assert columns(["row", "mean"], []) == "row  mean\n---------"


def test_no_blanks_at_the_end_of_a_line():
    assert columns(["row", "note"], [["a", ""]]).splitlines()[-1] == "a"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (83, "1:23"), (59.6, "1:00"), (3599.4, "59:59"), (3700, "1:01:40"), (360_000, "100:00:00")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
