# SPDX-License-Identifier: Apache-2.0
"""Connected regions of a class map and their measurements, on shapes whose measurements are known."""

import math

import numpy as np
import pytest
from scipy import ndimage

from alibi_dinov2.segmentation.instances import instances, measure


def picture(*rows: str) -> np.ndarray:
    return np.array([list(row) for row in rows]).astype(np.uint8)


RINGS = picture(
    "1111111000",
    "1222221000",
    "1211121011",
    "1213121011",
    "1211121000",
    "1222221002",
    "1111111000",
)


def test_regions_are_those_of_scipy_by_class_and_reading_order():
    classes = np.random.default_rng(0).integers(1, 4, (40, 50), dtype=np.uint8)
    labels, owners = instances(classes, [1, 3])
    assert labels.dtype == np.int32
    assert not labels[classes == 2].any()
    last = 0
    for number in (1, 3):
        expected, count = ndimage.label(classes == number)
        np.testing.assert_array_equal(np.where(classes == number, labels - last, 0), expected)
        assert (owners[last : last + count] == number).all()
        last += count
    assert last == len(owners)


def test_small_regions_are_left_out_and_numbers_have_no_gaps():
    labels, owners = instances(RINGS, [1, 2, 3], min_size=4)
    assert owners.tolist() == [1, 1, 1, 2]
    assert np.unique(labels).tolist() == [0, 1, 2, 3, 4]
    assert labels[3, 3] == 0
    assert labels[5, 9] == 0


def test_holes_are_filled_where_no_other_region_is():
    # The outer ring of 1 contains the ring of 2, that contains a 1 with a 3 in it.
    labels, owners = instances(RINGS, [1, 2, 3], fill_holes=True)
    assert owners.tolist() == [1, 1, 2, 2, 3]
    assert labels[3, 3] == 5
    assert (labels[RINGS == 2] >= 3).all()
    alone, owners = instances(RINGS, [1], fill_holes=True)
    assert (alone[:7, :7] == 1).all(), "one region, the inner one part of it"
    assert owners.tolist() == [1, 1]
    plain, _ = instances(RINGS, [1])
    assert plain[3, 3] == 0
    assert plain[1, 1] == 0


def test_a_disc_and_a_bar_measure_what_they_are():
    rows, columns = np.ogrid[:200, :300]
    classes = np.ones((200, 300), dtype=np.uint8)
    classes[(rows - 60) ** 2 + (columns - 80) ** 2 <= 40**2] = 2
    # A bar that falls to the right: 80 long and 10 wide, turned by 30° from the rows' direction.
    along, across = math.radians(30), math.radians(120)
    down, right = rows - 130, columns - 220
    inside = abs(down * math.cos(along) + right * math.sin(along)) <= 40
    classes[inside & (abs(down * math.cos(across) + right * math.sin(across)) <= 5)] = 3
    labels, owners = instances(classes, [2, 3])
    table = measure(labels, owners, {2: "disc", 3: "bar"}, (0.5, 0.5, "um"))
    assert (table["name"], table["class"], table["label"]) == (["disc", "bar"], [2, 3], [1, 2])
    # Pixels make the circle's rim uneven by less than one of them.
    assert table["equivalent_diameter"][0] == pytest.approx(80, abs=1)
    assert (table["centroid_row"][0], table["centroid_column"][0]) == pytest.approx((60, 80), abs=0.1)
    assert table["eccentricity"][0] < 0.1
    assert table["eccentricity"][1] == pytest.approx(math.sqrt(1 - (10 / 80) ** 2), abs=0.01)
    assert table["orientation"][1] == pytest.approx(30, abs=0.5)
    assert table["area_um2"][0] == table["area"][0] / 4
    assert table["equivalent_diameter_um"][0] == pytest.approx(table["equivalent_diameter"][0] / 2)
    assert table["centroid_y_um"][0] == pytest.approx((60 + 0.5) / 2, abs=0.1)


def test_pixels_need_not_be_square():
    labels, owners = instances(picture("2222", "2222"), [2])
    table = measure(labels, owners, {2: "a"}, (3.0, 0.5, "nm"))
    assert table["area_nm2"] == [8 * 1.5]
    assert (table["centroid_y_nm"], table["centroid_x_nm"]) == ([3.0], [1.0])
    assert "area_nm2" not in measure(labels, owners, {2: "a"})


def test_no_region_is_an_empty_table_with_its_columns():
    labels, owners = instances(picture("11", "11"), [2])
    table = measure(labels, owners, {2: "a"}, (1.0, 1.0, "um"))
    assert not any(table.values())
    assert {"label", "area", "orientation", "area_um2"} <= table.keys()
    with pytest.raises(ValueError, match="minimum size of 0"):
        instances(RINGS, [1], min_size=0)
