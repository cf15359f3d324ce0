# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from PIL import Image

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.feature_cache import MemoryCache
from alibi_dinov2.features.multi_scale_features import MultiScaleFeatures, Place
from alibi_dinov2.io.image_regions import ArrayImage
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

PATCH = 14
SETTINGS = {"components": 3, "window": 56, "overlap": 14}


@pytest.fixture
def backbone(tiny_model):
    return Backbone(tiny_model(), Dinov2AlibiImageProcessor(), "tiny", "tiny")


def picture(height: int, width: int, seed: int = 0) -> ArrayImage:
    return ArrayImage(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def whole(image: ArrayImage) -> tuple[slice, slice]:
    return slice(0, image.shape[0]), slice(0, image.shape[1])


@pytest.mark.parametrize("shape", [(90, 120), (40, 300)])
def test_a_scale_is_the_image_made_smaller(backbone, shape):
    image = picture(*shape)
    half = ArrayImage(np.asarray(Image.fromarray(image.read(0, *whole(image))).reduce(2)))
    small, features = DeepFeatures(backbone, **SETTINGS), MultiScaleFeatures.of(backbone, **SETTINGS, scales=(2,))
    reduction = small.fit([half], MemoryCache())
    (grid,) = features.grid(image, 0, features.fit([image], MemoryCache()), MemoryCache())
    # The same windows, pixel for pixel, and so the same patches and components.
    np.testing.assert_array_equal(grid, small.grid(half, 0, reduction, MemoryCache()))
    (found,) = features.upsample([grid], whole(image))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(grid).permute(2, 0, 1)[None], scale_factor=2 * PATCH, mode="bilinear", align_corners=False
    )[0]
    np.testing.assert_allclose(found, expected[:, : shape[0], : shape[1]], atol=1e-5)


def test_scales_do_not_know_of_each_other(backbone):
    image = picture(91, 133)
    both = MultiScaleFeatures.of(backbone, **SETTINGS, shifts=2, scales=(1, 3))
    parts = [MultiScaleFeatures.of(backbone, **SETTINGS, shifts=2, scales=(scale,)) for scale in (1, 3)]
    found = both.upsample(both.grid(image, 0, both.fit([image], MemoryCache()), MemoryCache()), whole(image))
    for planes, alone in zip(found, parts, strict=True):
        grids = alone.grid(image, 0, alone.fit([image], MemoryCache()), MemoryCache())
        (expected,) = alone.upsample(grids, whole(image))
        np.testing.assert_array_equal(planes, expected)


def test_windows_that_do_not_cover_a_region_do_not_matter_to_it(backbone):
    image = picture(200, 330)
    features = MultiScaleFeatures.of(backbone, **SETTINGS, per_image=False)
    reductions, random = features.fit([image], MemoryCache()), np.random.default_rng(0)
    given = {place: features.window_at(image, 0, place, MemoryCache(0)) for place in features.places(image.shape)}

    def upsampled(places, block):
        def windows(number):
            return ((place.row, place.column, given[place]) for place in sorted(places) if place.number == number)

        return np.concatenate([*features.upsample(features.blend(image.shape, windows, reductions), block)])

    for _ in range(8):
        top, left = (int(random.integers(0, side - 20)) for side in image.shape)
        block = (slice(top, top + 20), slice(left, left + 20))
        needed = features.covering(image.shape, np.array([[top, left]]), np.array([[top + 19, left + 19]]))
        assert {place.number for place in needed} == {0, 1}
        assert len(needed) < len(given)
        np.testing.assert_array_equal(upsampled(needed, block), upsampled(given, block))


def test_middles_are_in_pixels(backbone):
    features = MultiScaleFeatures.of(backbone, **SETTINGS)
    assert features.middle(Place(0, 3, 0)) == (3 * PATCH + 28, 28)
    assert features.middle(Place(1, 3, 0)) == (2 * (3 * PATCH + 28), 56)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), "at least one"),
        ((2, 1), "each larger than the one before"),
        ((1, 1), "each larger"),
        ((0, 1), "scale is 0"),
        ((0.5,), "scale is 0.5"),
    ],
)
def test_impossible_scales_are_refused(backbone, scales, message):
    with pytest.raises(ValueError, match=message):
        MultiScaleFeatures.of(backbone, **SETTINGS, scales=scales)
