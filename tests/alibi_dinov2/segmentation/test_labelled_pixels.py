# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from alibi_dinov2.segmentation.labelled_pixels import choose_pixels, find_classes

SHAPE = (6, 8)


def test_classes_may_leave_out_numbers_and_occur_in_one_image_only():
    first, second = np.zeros(SHAPE, dtype=np.uint8), np.zeros(SHAPE, dtype=np.uint8)
    first[0], second[0] = 3, 1
    assert find_classes([first, second]).tolist() == [1, 3]


@pytest.mark.parametrize(("value", "message"), [(0, "mark nothing"), (2, "mark only class 2")])
def test_fewer_than_two_classes_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        find_classes([np.full(SHAPE, value, dtype=np.uint8)])


def test_too_many_labelled_pixels_are_thinned_evenly():
    labels = [np.ones((40, 50), dtype=np.uint8), np.full((40, 50), 2, dtype=np.uint8)]
    labels[1][0, :3] = 3
    chosen = choose_pixels(labels, 400, seed=1)
    classes = np.concatenate([image[tuple(places.T)] for image, places in zip(labels, chosen, strict=True)])
    counts = np.bincount(classes, minlength=4)
    assert counts.tolist() == [0, 200, 199, 1]
    again = choose_pixels(labels, 400, seed=1)
    assert all(np.array_equal(one, other) for one, other in zip(chosen, again, strict=True))
    assert not np.array_equal(chosen[0], choose_pixels(labels, 400, seed=2)[0])
    everything = choose_pixels(labels, 4000, seed=1)
    np.testing.assert_array_equal(everything[1], np.argwhere(labels[1]))
