# SPDX-License-Identifier: Apache-2.0
"""The table of fractions grows, loses nothing, and says how far slices differ."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from alibi_dinov2.io.fractions import Fraction, add_fractions, fractions_of, fractions_text, read_fractions, summarise

DESCRIPTION = {"pixels": [[25, 75], [50, 50], [30, 70]], "classes": [1, 3], "class_names": ["pore", 'grain, "hard"']}


def test_rows_are_of_slices_and_classes_and_come_back(tmp_path):
    rows = fractions_of(Path("sub") / "é.tif", DESCRIPTION)
    assert rows[3] == Fraction("sub/é.tif", 1, 3, 'grain, "hard"', 50, 0.5)
    add_fractions(tmp_path / "new" / "fractions.csv", rows)
    assert read_fractions(tmp_path / "new" / "fractions.csv") == rows
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["fractions.csv"]


def test_the_table_grows_and_rows_of_the_same_file_are_replaced(tmp_path):
    path = tmp_path / "fractions.csv"
    first, second = fractions_of(Path("b.png"), DESCRIPTION), fractions_of(Path("a.png"), DESCRIPTION)
    add_fractions(path, first)
    add_fractions(path, second)
    assert read_fractions(path) == second + first
    again = fractions_of(Path("b.png"), DESCRIPTION | {"pixels": [[1, 99]]})
    add_fractions(path, again)
    assert read_fractions(path) == second + again


def test_many_at_once_lose_no_row(tmp_path):
    path = tmp_path / "fractions.csv"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: add_fractions(path, fractions_of(Path(f"{n:02}.png"), DESCRIPTION)), range(16)))
    assert len(read_fractions(path)) == 16 * 6


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "file,slice,class,name,pixels,fraction\nx,1\n", "\0"])
def test_another_table_is_not_overwritten(tmp_path, content):
    path = tmp_path / "fractions.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"fractions\.csv is no table of this command"):
        add_fractions(path, fractions_of(Path("a.png"), DESCRIPTION))
    assert path.read_text() == content


def test_the_interval_of_the_mean_over_slices_is_that_of_the_bootstrap():
    values = np.random.default_rng(0).beta(3, 5, 60)
    rows = [Fraction("a.tif", index, 1, "pore", 0, value) for index, value in enumerate(values)]
    (found,) = summarise(rows)
    resampled = bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert (found.slices, found.mean) == (60, pytest.approx(values.mean()))
    # Of 60 values the two differ in the third digit of the interval's width, 0.08.
    assert (found.low, found.high) == pytest.approx((resampled.low, resampled.high), abs=0.004)


def test_a_single_slice_has_no_interval_and_an_interval_stays_in_its_range():
    (found,) = summarise([Fraction("a.png", 0, 1, "pore", 5, 0.5)])
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    (found,) = summarise([Fraction("a.png", index, 1, "pore", 5, value) for index, value in enumerate((0, 1))])
    assert (found.low, found.high) == (0, 1)
    assert "[" not in fractions_text([Fraction("a.png", 0, 1, "pore", 5, 0.5)])
    assert "over 3 slices" in fractions_text(fractions_of(Path("a.tif"), DESCRIPTION))
