# SPDX-License-Identifier: Apache-2.0
"""Pictures show what the features hold, and the same thing in the same colour."""

import numpy as np
import pytest
from skimage.filters import threshold_otsu
from sklearn.decomposition import PCA
from sklearn.preprocessing import scale

from alibi_dinov2.pictures.feature_colours import (
    align_components,
    colours,
    feature_colours,
    foreground_patches,
    otsu_threshold,
    principal_components,
    relative_spread,
)

FEATURES = np.random.default_rng(0).normal(size=(6, 9, 20)) * np.linspace(3, 0.1, 20)
OTHERS = np.random.default_rng(1).normal(size=(4, 5, 20)) * np.linspace(3, 0.1, 20) + 1


@pytest.fixture
def photograph():
    """Features `(12, 16, 8)` of a rectangle of other features than what is round it, and where it is."""
    random = np.random.default_rng(0)
    inside = np.zeros((12, 16), dtype=bool)
    inside[3:10, 5:12] = True
    return np.where(inside[..., None], np.eye(8)[0], np.eye(8)[1]) + random.normal(0, 0.05, (12, 16, 8)), inside


@pytest.mark.parametrize("standardise", [False, True])
def test_components_are_those_of_scikit_learn_up_to_sign(standardise):
    (found,) = principal_components([FEATURES], standardise)
    patches = FEATURES.reshape(-1, 20)
    expected = PCA(3, whiten=True).fit_transform(scale(patches) if standardise else patches)
    np.testing.assert_allclose(np.abs(found.reshape(-1, 3)), np.abs(expected), atol=1e-8)


def test_shared_components_are_those_of_all_patches_in_their_places():
    first, second = principal_components([FEATURES, OTHERS])
    assert first.shape == (6, 9, 3)
    assert second.shape == (4, 5, 3)
    patches = np.concatenate([FEATURES.reshape(-1, 20), OTHERS.reshape(-1, 20)])
    expected = PCA(3, whiten=True).fit_transform(patches)
    np.testing.assert_allclose(np.abs(second[2, 3]), np.abs(expected[54 + 13]), atol=1e-8)
    np.testing.assert_allclose(np.abs(first[5, 8]), np.abs(expected[53]), atol=1e-8)


def test_otsus_threshold_parts_values_best():
    values = np.random.default_rng(0).normal(size=200) + np.repeat([0, 3], 100)
    threshold = otsu_threshold(values)

    def variance_between(split):
        below, above = values[values <= split], values[values > split]
        return len(below) * len(above) * (below.mean() - above.mean()) ** 2

    assert variance_between(threshold) == max(variance_between(split) for split in np.sort(values)[:-1])
    # A bin of scikit-image's histogram.
    assert threshold == pytest.approx(threshold_otsu(values, nbins=1000), abs=2 * np.ptp(values) / 1000 + 0.05)


def test_otsus_threshold_keeps_equal_values_together():
    assert otsu_threshold(np.array([1, 0, 1, 0, 0, 1])) == 0
    assert otsu_threshold(np.full(5, 2.0)) == 2


@pytest.mark.parametrize("sign", [1, -1])
def test_foreground_is_the_object_whatever_the_sign(photograph, sign):
    features, inside = photograph
    np.testing.assert_array_equal(foreground_patches([sign * features]).reshape(12, 16), inside)
    (components,) = principal_components([sign * features], foreground=True)
    np.testing.assert_array_equal(np.isfinite(components).all(axis=-1), inside)
    (picture,) = colours([components])
    assert (picture[~inside] == 0).all()


def test_aligning_undoes_order_and_sign():
    components = principal_components([FEATURES, OTHERS])
    turned = [array[..., [2, 0, 1]] * (-1, 1, -1) for array in components]
    for found, expected in zip(align_components(turned, components), components, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_aligning_takes_grids_of_other_sizes_and_backgrounds():
    (components,) = principal_components([FEATURES])
    finer = np.repeat(np.repeat(components, 2, axis=0), 2, axis=1)
    masked = components.copy()
    masked[0] = np.nan
    (found,) = align_components([finer[..., [1, 2, 0]] * -1], [masked])
    np.testing.assert_array_equal(found, finer)


def test_colours_use_the_full_range():
    (picture,) = colours(principal_components([FEATURES]))
    assert picture.dtype == np.uint8
    assert picture.shape == (6, 9, 3)
    assert picture.min() == 0
    assert picture.max() == 255


def test_shared_colours_mean_the_same_in_all_pictures():
    maps = [np.tile(np.linspace(*ends, 50)[:, None, None], (1, 2, 3)) for ends in ((0, 1), (0.5, 1.5))]
    first, second = colours(maps)
    # Both contain 0.5 to 1; the steps of 1/49 put the nearest value half a step away, 255/49/1.5/2 grey levels.
    assert abs(int(first[49, 0, 0]) - int(second[24, 0, 0])) <= 2


def test_constant_features_are_grey_and_not_noise_in_full_contrast():
    rounding = 1 + 1e-6 * np.random.default_rng(0).normal(size=(5, 5, 20))
    (picture,) = colours(principal_components([rounding]))
    assert (picture == 128).all()


def test_pictures_of_two_models_with_the_same_features_are_equal():
    mirrored = -FEATURES[..., ::-1]
    ((first,), (second,)) = feature_colours([[FEATURES], [mirrored]])
    # Rounding to 8 bits of numbers that differ in the last digits.
    assert np.abs(first.astype(int) - second).max() <= 1


def test_spread_is_relative():
    patches = np.array([[3.0, 1.0], [3.0, -1.0]])
    assert relative_spread(patches) == pytest.approx((1 / 10) ** 0.5)
    assert relative_spread(7 * patches) == pytest.approx(relative_spread(patches))
    assert relative_spread(np.zeros((4, 2))) == 0


def test_too_few_patches_are_refused():
    with pytest.raises(ValueError, match="2 patches of 20 channels have no 3 components"):
        principal_components([FEATURES[:1, :2]])
