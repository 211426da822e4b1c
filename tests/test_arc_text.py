"""Grids as text and back; answers that are no grid are None; the chat that training and generation see."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tiny_checkpoint import tiny_tokenizer

from seal_jax.domains.arc.grids import ArcTask, Pair, make_grid
from seal_jax.domains.arc.text import (
    INSTRUCTION,
    INSTRUCTION_ALONE,
    Form,
    answer_prompt,
    answer_text,
    decode_grid,
    example,
    grid_text,
)

any_speed = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
grids = arrays(np.int8, array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 9))
GRID = make_grid([[0, 1, 2], [3, 4, 5]])


def test_grid_text_by_hand():
    assert grid_text(GRID, Form()) == "[[0 1 2]\n [3 4 5]]"
    assert grid_text(GRID, Form(separator="")) == "[[012]\n [345]]"
    assert answer_text(make_grid([[7]]), Form()) == "[[7]]#"


@any_speed
@given(grids, st.sampled_from(["", " ", ",", ", "]))
def test_decoding_gives_the_grid_back(grid, separator):
    decoded = decode_grid(answer_text(grid, Form(separator)))
    assert decoded.dtype == np.int8 and np.array_equal(decoded, grid)


@pytest.mark.parametrize(
    "text",
    ["[[0 1 2]\n [3 4 5]]", " [[0 1 2][3 4 5]]# and more [[9]]#", "[[0,1,2],[3,4,5]]#\n", "[ [0, 1, 2],\n [3, 4, 5] ]"],
)
def test_blanks_and_commas_are_free(text):
    assert np.array_equal(decode_grid(text), GRID)


@pytest.mark.parametrize(
    "text",
    [
        *("", "#", "[[]]", "[]", "[[1]", "[1]", "[[1]]]", "[[1] [2 3]]#", "[[1 2] 3]", "[[a]]", "[[-1]]", "[[1.0]]"),
        *("The output is [[1]]#", "[[1]] -> [[2]]", "[[12 3]]", "[[1 23]]", "[[1,,2]]", "[[,1]]", "[[1,]]", "[[١]]"),
        *("[[" + "1" * 31 + "]]", "[" + "[1]" * 31 + "]", "[[1]\n\n[]]", "#[[1]]"),
    ],
)
def test_anything_else_is_none(text):
    assert decode_grid(text) is None


def test_nothing_raises():
    rng = random.Random(0)
    pieces = [*"[]0123456789 ,#\n-.aé", "[[", "]]", "]\n [", " -> ", "\ud800", "\x00", "١", "1 2 3", "[[1 2]\n [3 4]]"]
    found = 0
    for i in range(10_000):
        if i % 2:
            text = "".join(rng.choices(pieces, k=rng.randint(0, 60)))
        else:
            text = answer_text(make_grid(np.full((rng.randint(1, 4), rng.randint(1, 4)), i % 10)), Form())
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(pieces) + text[at + rng.randint(0, 2) :]
        grid = decode_grid(text)
        found += grid is not None
        assert grid is None or (grid.dtype == np.int8 and grid.ndim == 2 and 0 <= grid.min() <= grid.max() <= 9)
    assert 100 < found < 9_900
    for text in ("[" * 100_000, "[[1]" * 50_000, "[[" + "1 " * 100_000, "[" + "[1]" * 100_000, "[" + " " * 100_000):
        assert decode_grid(text) is None


def test_the_chat_by_hand():
    one, two = make_grid([[1]]), make_grid([[2, 2]])
    prompt = answer_prompt([Pair(one, two), Pair(two, one)], GRID, Form())
    assert prompt.chat and prompt.text == "[[0 1 2]\n [3 4 5]] -> "
    assert prompt.system == f"{INSTRUCTION}\n\n[[1]] -> [[2 2]]#\n\n[[2 2]] -> [[1]]#"
    task = ArcTask("t", (Pair(one, two), Pair(two, one)), (Pair(GRID, one),))
    made = example(task, all_tokens=False, form=Form())
    assert made.prompt == prompt and made.text == "[[1]]#" and made.closing and not made.whole
    assert example(task, all_tokens=True, form=Form(closing=False)).whole


def test_without_demonstrations_the_chat_speaks_of_none():
    prompt = answer_prompt([], GRID, Form())
    assert prompt.chat and prompt.text == "[[0 1 2]\n [3 4 5]] -> " and prompt.system == INSTRUCTION_ALONE
    assert "example" in INSTRUCTION and "example" not in INSTRUCTION_ALONE and prompt.system == prompt.system.strip()
    assert example(ArcTask("t", (), (Pair(GRID, GRID),)), False, Form()).prompt == prompt


def test_tokens_and_weights():
    tokenizer = tiny_tokenizer()
    task = ArcTask("t", (Pair(GRID, GRID.T),), (Pair(GRID.T, GRID),))
    start = tokenizer.encode_prompt(example(task, False, Form()).prompt)
    shown = tokenizer.hf.decode(start)
    assert shown.startswith(f"<|im_start|>system\n{INSTRUCTION}") and "Be brief" not in shown
    ids, weights = tokenizer.encode_example(example(task, False, Form()))
    assert ids[: len(start)] == start and weights == [0.0] * len(start) + [1.0] * (len(ids) - len(start))
    assert tokenizer.decode(ids[len(start) :]) == "[[0 1 2]\n [3 4 5]]#" and ids[-1] in tokenizer.stop_ids
    all_ids, all_weights = tokenizer.encode_example(example(task, True, Form()))
    assert all_ids == ids and all_weights == [0.0] + [1.0] * (len(ids) - 1)
