# SPDX-License-Identifier: Apache-2.0
"""Figures of the benchmark: means that count every data set the same, ranks, and choices without the set left out."""

import numpy as np
import pytest

from evaluation.segmentation.benchmark.choice import balanced, figures, leave_one_out, mean_ranks, mious
from evaluation.segmentation.benchmark.figures import AVERAGE, choice_table, panels, score_table
from evaluation.semantics.miou import mean_iou

SETS, ROUNDS = ("a", "b", "c"), (1, 3)


def scores(**means):
    """Scores `(2 seeds, 2 ways, 2 rounds)` of contenders: a mean for each data set, and a little about it."""
    random = np.random.default_rng(0)
    return {
        name: {one: mean + random.normal(0, 0.001, (2, 2, 2)) for one, mean in zip(SETS, values, strict=True)}
        for name, values in means.items()
    }


def test_scores_are_those_of_the_matrices():
    matrices = np.random.default_rng(0).integers(1, 50, (2, 3, 4, 2, 2))
    found = mious(matrices)
    assert found.shape == (2, 3, 4)
    assert found[1, 2, 3] == mean_iou(matrices[1, 2, 3])


def test_what_is_best_on_all_but_one_is_chosen_and_reported_on_that_one():
    found = scores(one=(0.5, 0.5, 0.9), other=(0.6, 0.6, 0.2))
    choices = leave_one_out(found, SETS)
    # Without c, the other is better; that c would have chosen differently must not help.
    assert choices["c"].chosen == "other"
    assert choices["c"].left_out == pytest.approx(found["other"]["c"].mean())
    assert choices["c"].on_the_others == pytest.approx(np.mean([found["other"][one].mean() for one in "ab"]))
    assert choices["c"].best == "one"
    assert choices["c"].best_left_out == pytest.approx(found["one"]["c"].mean())
    assert choices["a"].chosen == "one"
    assert choices["a"].best == "other"


def test_data_sets_count_the_same_whatever_their_number_of_ways():
    found = {"a": np.full((2, 4, 2), 0.2), "b": np.full((2, 1, 2), 0.8)}
    np.testing.assert_allclose(balanced(found, ["a", "b"]), 0.5)


def test_ranks_are_means_over_sets_ways_and_rounds():
    found = scores(best=(0.9, 0.9, 0.1), middle=(0.5, 0.5, 0.5), worst=(0.1, 0.1, 0.9))
    assert mean_ranks(found, SETS) == pytest.approx({"best": 5 / 3, "middle": 2, "worst": 7 / 3})


def test_record_has_means_spread_over_users_and_ranks():
    found = scores(one=(0.5, 0.5, 0.8))
    metrics, spread = figures(found, SETS, ROUNDS)
    assert metrics["miou"] == metrics["one/miou"] == pytest.approx(0.6, abs=0.01)
    assert metrics["one/c/miou_round_3"] == pytest.approx(found["one"]["c"][..., 1].mean())
    assert spread["one/c/miou_round_3"] == pytest.approx(found["one"]["c"][..., 1].mean(axis=1).std(ddof=1))
    assert metrics["one/rank"] == 1
    assert figures({"one": {one: array[:1] for one, array in found["one"].items()}}, SETS, ROUNDS)[1] == {}


def test_tables_and_panels_show_every_contender_and_data_set():
    found = scores(one=(0.5, 0.5, 0.8), other=(0.6, 0.6, 0.2))
    table = score_table(found, SETS, ROUNDS)
    assert len({len(line) for line in table.splitlines()}) == 1
    assert "0.600 / 0.60" in table
    assert "| c        | other" in choice_table(leave_one_out(found, SETS))
    figure = panels(found, SETS, ROUNDS, dashed=["other"])
    shown = [axis for axis in figure.axes if axis.lines]
    assert [axis.get_title() for axis in shown] == [*SETS, AVERAGE]
    for axis in shown:
        assert [line.get_linestyle() for line in axis.lines] == ["-", "--"]
    np.testing.assert_allclose(shown[2].lines[0].get_ydata(), found["one"]["c"].mean(axis=(0, 1)))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "other"]
