"""The picture of an ARC task shows every grid, in its colours, and says which attempts are right."""

import io

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from seal_jax.report import sheets
from seal_jax.report.sheets import Answered

ONE = np.array([[0, 1], [2, 3]])
TWO = np.array([[4, 5, 6], [7, 8, 9]])


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_all_grids_stand_in_the_sheet_and_attempts_are_judged():
    tests = [Answered(ONE, TWO, [ONE, TWO]), Answered(TWO, ONE, [TWO])]
    figure = sheets.draw("task", [(ONE, TWO), (TWO, ONE)], tests)
    assert sorted(titles(figure)) == sorted(
        ["input 1", "output 1", "input 2", "output 2", "test input", "truth", "test input", "truth"]
        + ["attempt 1: wrong", "attempt 2: right", "attempt 1: wrong", "attempt 2: none"]
    )
    shown = {title: axes.images[0].get_array() for axes in figure.axes if (title := axes.get_title()) and axes.images}
    assert np.array_equal(shown["input 1"], ONE) and np.array_equal(shown["attempt 2: right"], TWO)


def test_a_puzzle_that_nobody_tried_shows_no_attempts():
    figure = sheets.draw("task", [(ONE, TWO)], [Answered(TWO, ONE), Answered(ONE, TWO, [ONE])])
    assert titles(figure)[: len(figure.axes) // 2] == ["input 1", "test input", "test input", "attempt 1: wrong"]
    assert titles(figure)[len(figure.axes) // 2 :] == ["output 1", "truth", "truth", "attempt 2: none"]


def test_png_holds_the_ten_colors(tmp_path):
    sheets.save(tmp_path / "sheet.png", sheets.draw("task", [(ONE, TWO)], [Answered(ONE, TWO, [])]))
    data = (tmp_path / "sheet.png").read_bytes()
    pixels = imread(io.BytesIO(data), format="png")[..., :3].reshape(-1, 3)
    present = {tuple(color) for color in np.unique(np.round(pixels * 255).astype(int), axis=0)}
    assert {tuple(round(part * 255) for part in to_rgb(color)) for color in sheets.COLORS} <= present


def test_the_name_of_a_file_is_of_plain_letters():
    assert sheets.file_name("1a2b", "SEAL, round 1") == "1a2b--seal-round-1.png"
    assert sheets.file_name("1a2b", "(in context)/..") == "1a2b--in-context.png"
