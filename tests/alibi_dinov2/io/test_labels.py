# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from alibi_dinov2.io.image_regions import ArrayImage
from alibi_dinov2.io.labels import as_label_maps, choose_pixels, find_classes, to_labels

SHAPE = (6, 8)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.float32])
def test_labels_of_any_type_become_bytes(dtype):
    labels = np.zeros(SHAPE, dtype=dtype)
    labels[2, 3] = 1
    found = to_labels(labels, SHAPE, "labels")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels.astype(int))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((8, 6)), r"shape \(8, 6\), its image \(6, 8\)"),
        (np.full(SHAPE, 0.5), "fractions or NaN"),
        (np.full(SHAPE, np.nan), "fractions or NaN"),
        (np.full(SHAPE, np.inf), "values from inf"),
        (np.full(SHAPE, -1), "values from -1"),
        (np.full(SHAPE, 256), "classes are 1 to 255"),
        (np.full(SHAPE, "a"), "labels are integers"),
        (np.zeros((*SHAPE, 3)), "one number for each pixel"),
    ],
)
def test_what_are_no_labels_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        to_labels(labels, SHAPE, "labels")


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


def test_labels_belong_to_images_and_slices():
    class Stack(ArrayImage):
        slices = 2

    image, stack = ArrayImage(np.zeros(SHAPE)), Stack(np.zeros(SHAPE))
    labels = np.ones(SHAPE, dtype=np.uint8)
    assert len(as_label_maps(labels, [image])) == 1
    assert [found.max() for found in as_label_maps([labels, np.stack([labels, 2 * labels])], [image, stack])] == [
        1,
        1,
        2,
    ]
    with pytest.raises(ValueError, match="labels for 2 images, and 1 images"):
        as_label_maps([labels, labels], [image])
    with pytest.raises(ValueError, match="Image 1 has 2 slices, its labels 1"):
        as_label_maps([labels], [stack])
    with pytest.raises(ValueError, match="The label image 2 has shape"):
        as_label_maps([labels, labels.T], [image, image])
