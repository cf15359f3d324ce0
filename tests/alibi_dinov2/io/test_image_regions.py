# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from alibi_dinov2.io.image_regions import ArrayImage, as_images, read_reflected

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("top", "left", "height", "width"),
    [(2, 3, 4, 5), (-3, -4, 9, 9), (5, 10, 8, 8), (-20, -30, 60, 70), (40, 40, 3, 3)],
)
def test_regions_beyond_the_image_are_mirrored_like_numpy_does(top, left, height, width):
    margin = 80
    padded = np.pad(PIXELS, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    expected = padded[margin + top : margin + top + height, margin + left : margin + left + width]
    np.testing.assert_array_equal(read_reflected(ArrayImage(PIXELS), 0, top, left, height, width), expected)


def test_a_region_reads_no_more_than_it_needs():
    asked = []

    class Watched(ArrayImage):
        def read(self, index, rows, columns):
            asked.append((rows, columns))
            return super().read(index, rows, columns)

    read_reflected(Watched(PIXELS), 0, 2, -2, 3, 4)
    assert asked == [(slice(2, 5), slice(0, 2))]


def test_images_of_any_kind_and_number():
    several = as_images([PIXELS, PIXELS[..., 0].astype(np.uint16) * 257, Image.fromarray(PIXELS)])
    assert [image.shape for image in several] == [(9, 13)] * 3
    region = slice(0, 9), slice(0, 13)
    np.testing.assert_array_equal(several[0].read(0, *region), several[2].read(0, *region))
    np.testing.assert_array_equal(several[1].read(0, *region), np.repeat(PIXELS[..., :1], 3, axis=-1))
    assert len(as_images(PIXELS)) == 1
    assert as_images(several[0]) == [several[0]]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "There are no images"),
        (np.full((4, 4), np.nan), "16 NaN or infinite"),
        (np.zeros((4, 4, 2)), "1, 3 or 4 channels"),
        (np.full((4, 4), 70_000), "rescale it"),
    ],
)
def test_what_is_no_image_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        as_images(images)
