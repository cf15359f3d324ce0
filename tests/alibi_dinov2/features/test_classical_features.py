# SPDX-License-Identifier: Apache-2.0
"""Classical features are what scikit-image and SciPy call by their names, wherever in an image a pixel lies."""

import json
import re
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage
from skimage.feature import hessian_matrix, hessian_matrix_eigvals
from skimage.filters import sobel

from alibi_dinov2.features.classical_features import ClassicalFeatures, line_kernels

SMALL = ClassicalFeatures(sigmas=(1, 2.5), membrane=True)  # its halo is 12
MEMBRANE = ("sum", "mean", "std", "median", "max", "min")
# Values are at most 1 and float32 rounds them at 6e-8; projections add up 361 products, and their sum is up to 30.
ROUNDING = {"rtol": 2e-6, "atol": 2e-6}


def noise(height: int, width: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def named(features: ClassicalFeatures, image: np.ndarray) -> dict[str, np.ndarray]:
    """Features of an image by name."""
    values = features(image)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    names = features.names(image.shape[2])
    assert values.shape == (*image.shape[:2], len(names))
    assert len(set(names)) == len(names)
    return {name: values[..., index] for index, name in enumerate(names)}


def reference(features: ClassicalFeatures, plane: np.ndarray) -> dict[str, np.ndarray]:
    """The features of a plane `(H, W)` of 0 to 255, in float64, one at a time from the plane reflected far enough."""
    border = features.halo + 5
    wide = np.pad(plane / 255, border, mode="symmetric")
    found = {"intensity": wide}
    for sigma in features.sigmas:
        blur = ndimage.gaussian_filter(wide, sigma)
        hessian = hessian_matrix(blur, sigma=0, use_gaussian_derivatives=False, order="rc")
        eigenvalues = hessian_matrix_eigvals(hessian)
        found |= {f"gaussian_{sigma:g}": blur, f"sobel_{sigma:g}": sobel(blur)}
        found |= {f"hessian_{axes}_{sigma:g}": entry for axes, entry in zip(("yy", "xy", "xx"), hessian, strict=True)}
        found |= {f"eigenvalue_{1 + index}_{sigma:g}": eigenvalues[index] for index in (0, 1)}
    for narrow, wider in combinations(features.sigmas, 2):
        found[f"difference_{narrow:g}_{wider:g}"] = found[f"gaussian_{narrow:g}"] - found[f"gaussian_{wider:g}"]
    lines = [ndimage.correlate(wide, line_kernel(6 * turn)) for turn in range(30)]
    for name in MEMBRANE:
        found[f"membrane_{name}"] = getattr(np, name)(lines, axis=0)
    return {name: values[border:-border, border:-border] for name, values in found.items()}


def line_kernel(degrees: float) -> np.ndarray:
    """A line through the middle of `(19, 19)`, by the distance of each pixel from it and from its ends."""
    kernel = np.zeros((19, 19))
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    for row, column in np.ndindex(19, 19):
        along = (row - 9) * cosine + (column - 9) * sine
        across = (column - 9) * cosine - (row - 9) * sine
        kernel[row, column] = max(0, 1 - abs(across)) * min(1, max(0, 10 - abs(along)))
    return kernel / kernel.sum()


@pytest.mark.parametrize("shape", [(45, 38), (3, 20), (1, 1)])
def test_features_are_those_of_a_slow_reference(shape):
    image = noise(*shape)
    found, expected = named(SMALL, image), reference(SMALL, image[..., 0])
    assert {name.removeprefix("grey_") for name in found} == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name.removeprefix("grey_")], **ROUNDING, err_msg=name)


def test_settings_of_the_paper_are_the_default_and_membranes():
    features = ClassicalFeatures(membrane=True)
    assert ClassicalFeatures().names(1) == features.names(1)[:-6]
    assert features.sigmas == (1, 2, 4, 8, 16)
    # Intensity, 7 of each of 5 blurs, 10 pairs, 6 projections.
    assert len(features.names(1)) == 1 + 7 * 5 + 10 + 6
    assert features.names(1)[0] == "grey_intensity"
    assert {"red_hessian_xy_16", "green_difference_1_16", "blue_membrane_median"} < set(features.names(3))
    found, expected = named(features, noise(40, 30)), reference(features, noise(40, 30)[..., 0])
    for name, values in expected.items():
        np.testing.assert_allclose(found[f"grey_{name}"], values, **ROUNDING, err_msg=name)


def test_lines_are_turned_by_six_degrees():
    kernels = line_kernels()
    assert kernels.shape == (30, 19, 19)
    np.testing.assert_allclose(kernels, [line_kernel(6 * turn) for turn in range(30)], atol=1e-7)
    np.testing.assert_array_equal(np.flatnonzero(kernels[0].sum(axis=0)), [9])
    np.testing.assert_allclose(kernels[15], kernels[0].T, atol=1e-7)


def test_membrane_projections_see_lines():
    image = np.zeros((41, 41, 1), dtype=np.uint8)
    image[:, 20] = 255
    found = named(SMALL, image)
    assert found["grey_membrane_max"][20, 20] == pytest.approx(1, abs=1e-6)
    assert found["grey_membrane_min"][20, 20] == pytest.approx(1 / 19, abs=1e-6)
    assert found["grey_membrane_max"][20, 25] < 0.2


@pytest.mark.parametrize("features", [SMALL, ClassicalFeatures(sigmas=(4,), membrane=True), ClassicalFeatures((0.5,))])
def test_crops_have_the_features_of_the_whole(features):
    image, halo = noise(90, 80, 3), features.halo
    whole, crop = features(image), features(image[20:70, 10:65])
    inside = crop[halo:-halo, halo:-halo]
    assert inside.size
    np.testing.assert_allclose(inside, whole[20:70, 10:65][halo:-halo, halo:-halo], **ROUNDING)
    # At a border of the image itself nothing is lost.
    np.testing.assert_allclose(features(image[:50])[:-halo], whole[: 50 - halo], **ROUNDING)


@pytest.mark.parametrize("features", [SMALL, ClassicalFeatures((0.5,)), ClassicalFeatures((0.5,), True)])
def test_halo_is_as_wide_as_it_has_to_be(features):
    image, halo = noise(61, 61), features.halo
    changed = image.copy()
    changed[30, 30] ^= 128
    differs = (features(image) != features(changed)).any(axis=-1)
    rows, columns = np.nonzero(differs)
    assert max(abs(rows - 30).max(), abs(columns - 30).max()) <= halo
    # The outermost weights of a Gaussian may be lost in rounding.
    assert max(abs(rows - 30).max(), abs(columns - 30).max()) >= halo - 2


def test_default_halo():
    assert ClassicalFeatures().halo == 66
    assert ClassicalFeatures(sigmas=(0.5,), membrane=True).halo == 9
    assert ClassicalFeatures(sigmas=(0.5,)).halo == 4


@pytest.mark.parametrize("turn", [np.rot90, np.flipud, np.fliplr])
def test_features_turn_with_the_image(turn):
    image = noise(37, 41, 3)
    found, turned = named(SMALL, image), named(SMALL, turn(image))
    for name, values in found.items():
        if turn is np.rot90:
            name = re.sub("_(xx|yy)_", lambda axes: {"_xx_": "_yy_", "_yy_": "_xx_"}[axes[0]], name)
        sign = -1 if "_xy_" in name else 1
        np.testing.assert_allclose(turned[name], sign * turn(values), **ROUNDING, err_msg=name)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_constant_image_has_no_structure(value):
    for name, values in named(ClassicalFeatures(membrane=True), np.full((30, 25, 3), value, dtype=np.uint8)).items():
        if any(kind in name for kind in ("intensity", "gaussian")):
            np.testing.assert_allclose(values, value / 255, rtol=1e-6)
        elif "membrane" not in name:
            np.testing.assert_array_equal(values, 0, err_msg=name)
        else:
            level = {"sum": 30 * value / 255, "std": 0}.get(name.split("_")[-1], value / 255)
            np.testing.assert_allclose(values, level, **ROUNDING, err_msg=name)


def test_each_channel_has_the_features_of_a_grey_image():
    image = noise(33, 20, 3)
    grey = [SMALL(image[..., channel, None]) for channel in range(3)]
    np.testing.assert_allclose(SMALL(image), np.concatenate(grey, axis=-1), **ROUNDING)
    bare = [name.removeprefix("grey_") for name in SMALL.names(1)]
    assert SMALL.names(3) == [f"{colour}_{name}" for colour in ("red", "green", "blue") for name in bare]


def test_image_is_left_as_it_was():
    image = noise(20, 20)
    image.flags.writeable = False
    np.testing.assert_array_equal(SMALL(image), SMALL(np.asfortranarray(image)))
    np.testing.assert_array_equal(image, noise(20, 20))


def test_membrane_projections_can_be_left_out():
    plain = ClassicalFeatures(SMALL.sigmas)
    count = len(plain.names(1))
    assert plain.names(1) == SMALL.names(1)[:count]
    np.testing.assert_array_equal(plain(noise(30, 30)), SMALL(noise(30, 30))[..., :count])


def test_settings_survive_json():
    assert ClassicalFeatures(**json.loads(json.dumps(asdict(SMALL)))) == SMALL


@pytest.mark.parametrize("sigmas", [(), (0, 1), (-1,), (2, 1), (1, 1), (1, float("inf")), (float("nan"),), "12"])
def test_wrong_sigmas_are_refused(sigmas):
    with pytest.raises(ValueError, match="give at least one, positive and finite, each larger than the one before"):
        ClassicalFeatures(sigmas=sigmas)


@pytest.mark.parametrize(
    "image",
    [
        noise(9, 9)[..., 0],
        noise(9, 9, 2),
        noise(9, 9, 4),
        noise(9, 9) / 255,
        noise(9, 9).astype(np.uint16),
        noise(0, 9),
    ],
)
def test_wrong_images_are_refused(image):
    with pytest.raises(ValueError, match="it must be uint8") as error:
        SMALL(image)
    assert str(image.shape) in str(error.value)
    assert str(image.dtype) in str(error.value)


def test_wrong_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="has 4 channels; it must be 1"):
        SMALL.names(4)


def test_level_is_what_grows_with_the_brightness():
    image = noise(40, 30, 3) // 2
    level = SMALL.level(3)
    darker, brighter = SMALL(image), SMALL(image + np.uint8(64))
    difference = np.abs(brighter - darker).reshape(-1, len(level)).min(axis=0)
    spread = [name.endswith("membrane_std") for name in SMALL.names(3)]  # of what is seen through lines, not of level
    np.testing.assert_array_equal(difference > 0.2, level & ~np.array(spread))


def test_wrong_membrane_is_refused():
    with pytest.raises(ValueError, match="membrane is 'no'; it must be True or False"):
        ClassicalFeatures(membrane="no")
