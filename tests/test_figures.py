"""The pictures of the report show the numbers of the tables."""

import numpy as np
import pytest

from seal_jax.report import figures, tables
from seal_jax.report.estimates import Estimate


@pytest.fixture(autouse=True)
def figure_itself(monkeypatch):
    monkeypatch.setattr(figures, "_uri", lambda figure: figure)


def points(axes) -> list[tuple[float, float]]:
    return sorted((float(x), float(y)) for found in axes.collections for x, y in found.get_offsets())


def test_rows_have_the_whole_interval_also_where_it_is_not_symmetric():
    nan = float("nan")
    values = [Estimate(0.0, 0.0, 0.25, 9), Estimate(0.5, nan, nan, 1)]
    lines = [tables.Line("SEAL", i, f"row {i}", "policy", 9, {"accuracy": value}) for i, value in enumerate(values)]
    (axes,) = figures.rows(lines, "accuracy", "accuracy, %").axes
    reach = [bar.get_segments()[0][:, 0].tolist() for bar in axes.collections]
    assert reach == [[0.0, 25.0], [50.0, 50.0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["row 0", "row 1"]


def test_where_all_is_wrong_the_axis_does_not_end_at_fractions():
    line = tables.Line("SEAL", 1, "row", "policy", 9, {"accuracy": Estimate(0.0, 0.0, 0.0, 9)})
    (axes,) = figures.rows([line], "accuracy", "accuracy, %").axes
    assert axes.get_xlim() == (-1, 10)


def test_every_known_reward_is_a_point_of_its_kind():
    records = [
        {"arm": "SEAL", "round": 1, "rewards": [1.0, 2.0, None], "chosen": [1]},
        {"arm": "SEAL", "round": 1, "rewards": [3.0], "chosen": []},
        {"arm": "random", "round": 1, "rewards": None, "chosen": [0]},
    ]
    (axes,) = figures.reward_distribution(records).axes
    others, chosen = axes.collections[:2]
    assert sorted(others.get_offsets()[:, 0]) == [1, 3] and chosen.get_offsets()[:, 0].tolist() == [2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SEAL, round 1"]


def test_losses_of_inner_loops_and_of_policies():
    (axes,) = figures.losses({"SEAL, round 1": [1.0, 2.0, 9.0]}, {("random, round 2, policy", "random"): 4.0}).axes
    assert [x for x, _ in points(axes)] == [1, 2, 9]
    median, policy = axes.lines
    assert list(median.get_xdata()) == [2, 2] and np.ravel(policy.get_xdata()).tolist() == [4]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SEAL, round 1", "random, round 2, policy"]


def test_loss_curves_are_medians_on_a_common_scale():
    """Of loops with two and with four epochs; in the middle of an epoch stands its loss."""
    (axes,) = figures.loss_curves({"SEAL, round 1": [[4.0, 2.0], [4.0, 2.0], [9.0, 9.0, 9.0, 9.0]]}).axes
    (line,) = axes.lines
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert y[np.isclose(x, 0.25)] == 4.0 and y[np.isclose(x, 0.5)] == 3.0 and y[np.isclose(x, 0.75)] == 2.0
    upper = axes.collections[0].get_paths()[0].vertices[:, 1].max()
    assert upper == 6.5  # the third quartile of 4, 4 and 9


def test_rewards_by_round_have_a_line_of_all_and_of_chosen_for_each_arm():
    def made(arm, number, heldout=False):
        values = [Estimate(mean, mean - 0.1, mean + 0.1, 9) for mean in (0.0, 0.5, 0.9, 0.8)]
        return tables.Round(arm, number, heldout, *values, 9, not heldout)

    figure = figures.rewards_by_round([made("SEAL", 1), made("SEAL", 2), made("SEAL", 1, True), made("random", 1)])
    (axes,) = figure.axes
    means = [found[0].get_ydata().tolist() for found in axes.containers]
    assert means == [[0.5, 0.5], [0.8, 0.8], [0.5], [0.8], [0.5], [0.8]]
    labels = [found.get_label() for found in axes.containers]
    assert labels[:3] == ["SEAL: all", "SEAL: chosen", "SEAL, held out: all"] and labels[-1] == "random: chosen"
