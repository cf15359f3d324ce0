# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from alibi_dinov2.io.image_regions import ArrayImage, as_images, fit_contrast, read_reflected
from tests.alibi_dinov2.io.grey_levels import expected_rgb

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
    np.testing.assert_array_equal(several[1].read(0, *region), expected_rgb(PIXELS[..., 0].astype(np.uint16) * 257))
    assert len(as_images(PIXELS)) == 1
    assert as_images(several[0]) == [several[0]]


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "1", "LA", "I;16"])
def test_pillow_images_have_the_colours_that_pillow_shows(mode):
    deep = PIXELS[..., 0].astype(np.uint16) * 257
    picture = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
    expected = expected_rgb(deep) if mode == "I;16" else np.asarray(picture.convert("RGB"))
    (image,) = as_images(picture)
    np.testing.assert_array_equal(image.read(0, slice(None), slice(None)), expected)


def test_one_contrast_for_a_series_keeps_dark_images_dark():
    dark, bright = PIXELS[..., 0].astype(np.uint16), PIXELS[..., 0].astype(np.uint16) * 16
    contrast = fit_contrast(as_images([dark, bright]))
    images = as_images([dark, bright], contrast)
    for image, pixels in zip(images, (dark, bright), strict=True):
        expected = expected_rgb(pixels, np.stack([dark, bright]))
        np.testing.assert_array_equal(image.read(0, slice(None), slice(None)), expected)
    with pytest.raises(ValueError, match=r"values of uint16 .*uint8 .*one contrast is for images of one kind"):
        fit_contrast(as_images([dark, PIXELS]))


def test_an_array_of_slices_is_a_stack():
    grey, colour = np.stack([PIXELS[..., 0], PIXELS[..., 1]]), np.stack([PIXELS, PIXELS[::-1]])
    for stack, expected in ((grey, np.repeat(grey[..., None], 3, axis=-1)), (colour, colour)):
        (image,) = as_images(stack)
        assert (image.slices, image.shape) == (2, (9, 13))
        for index in range(2):
            np.testing.assert_array_equal(image.read(index, slice(1, 4), slice(2, 9)), expected[index, 1:4, 2:9])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "There are no images"),
        (np.full((4, 4), np.nan), "16 NaN or infinite"),
        (np.zeros((4, 4, 2)), r"shape \(4, 4, 2\) is no image; give .* with 1, 3 or 4 channels"),
        (np.zeros((2, 3, 4, 4, 5)), "is no image"),
        (np.zeros(4), "is no image"),
        (np.zeros((0, 4)), "is no image"),
        (np.zeros((4, 4), np.complex64), "its values are of complex64; they must be real"),
    ],
)
def test_what_is_no_image_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        as_images(images)
