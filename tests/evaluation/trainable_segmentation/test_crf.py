# SPDX-License-Identifier: Apache-2.0
"""The field removes speckles, keeps edges of the image, and says what it needs."""

import sys

import numpy as np
import pytest

from evaluation.trainable_segmentation.crf import CRFSettings, refine


@pytest.fixture
def needs_library():
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is not installed; pip install -e '.[crf]'")


@pytest.fixture
def speckled():
    """A dark and a bright region, `(30, 44)`; their classes; probabilities of which a tenth favour a wrong class."""
    random = np.random.default_rng(0)
    truth = np.zeros((30, 44), dtype=int)
    truth[:, 20:] = 1
    image = np.clip(np.where(truth, 190, 60)[..., None] + random.normal(0, 4, (30, 44, 3)), 0, 255).astype(np.uint8)
    wrong = random.random((30, 44)) < 0.1
    labels = np.where(wrong, (truth + 1) % 3, truth)
    probabilities = np.full((30, 44, 3), 0.1, dtype=np.float32)
    np.put_along_axis(probabilities, labels[..., None], 0.8, axis=-1)
    return image, truth, probabilities


def accuracy(probabilities, truth):
    return (probabilities.argmax(axis=-1) == truth).mean()


@pytest.mark.usefixtures("needs_library")
def test_speckles_go_and_the_edge_stays(speckled):
    image, truth, probabilities = speckled
    before = probabilities.copy()
    refined = refine(probabilities, image)
    assert refined.dtype == np.float32
    assert refined.shape == probabilities.shape
    np.testing.assert_allclose(refined.sum(axis=-1), 1, atol=1e-5)  # float32
    assert accuracy(probabilities, truth) < 0.93
    assert accuracy(refined, truth) == 1
    np.testing.assert_array_equal(probabilities, before)


@pytest.mark.usefixtures("needs_library")
def test_field_is_that_of_the_paper(speckled):
    from pydensecrf import densecrf

    image, _, probabilities = speckled
    field = densecrf.DenseCRF2D(44, 30, 3)
    energy = np.stack([-np.log(probabilities[..., index]).ravel() for index in range(3)])
    field.setUnaryEnergy(energy)
    field.addPairwiseGaussian(
        sxy=(1, 1), compat=10, kernel=densecrf.FULL_KERNEL, normalization=densecrf.NORMALIZE_SYMMETRIC
    )
    field.addPairwiseBilateral(
        sxy=(30, 30),
        srgb=(13, 13, 13),
        rgbim=image,
        compat=10,
        kernel=densecrf.FULL_KERNEL,
        normalization=densecrf.NORMALIZE_SYMMETRIC,
    )
    expected = np.array(field.inference(10)).reshape(3, 30, 44).transpose(1, 2, 0)
    np.testing.assert_array_equal(refine(probabilities, image), expected)


@pytest.mark.usefixtures("needs_library")
@pytest.mark.parametrize("settings", [CRFSettings(iterations=0), CRFSettings(smoothness_weight=0, appearance_weight=0)])
def test_without_iterations_or_weights_probabilities_stay(settings, speckled):
    image, _, probabilities = speckled
    probabilities[3, 4] = (1, 0, 0)
    # What is 0 counts as 1e-5.
    np.testing.assert_allclose(refine(probabilities, image, settings), probabilities, atol=3e-5)


@pytest.mark.usefixtures("needs_library")
def test_appearance_decides_where_only_the_image_tells(speckled):
    image, truth, _ = speckled
    # Sure on one patch of each region, undecided elsewhere; halfway between them is not where the regions meet.
    probabilities = np.full((30, 44, 2), 0.5, dtype=np.float32)
    probabilities[5:25, 2:8] = (0.99, 0.01)
    probabilities[5:25, 22:28] = (0.01, 0.99)
    assert accuracy(refine(probabilities, image), truth) > 0.99
    blank = np.zeros_like(image)
    assert accuracy(refine(probabilities, blank), truth) < 0.99


@pytest.mark.usefixtures("needs_library")
def test_views_of_arrays_are_taken(speckled):
    image, _, probabilities = speckled
    expected = refine(probabilities[:, ::2].copy(), image[:, ::2].copy())
    np.testing.assert_array_equal(refine(probabilities[:, ::2].astype(np.float64), image[:, ::2]), expected)


@pytest.mark.parametrize(
    ("shape", "image", "message"),
    [
        ((4, 5), np.zeros((4, 5, 3), np.uint8), r"\(4, 5\); they must be \(H, W, K\)"),
        ((4, 5, 1), np.zeros((4, 5, 3), np.uint8), r"\(4, 5, 1\); they must be"),
        ((0, 5, 2), np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 2\); they must be"),
        ((4, 5, 2), np.zeros((5, 4, 3), np.uint8), r"uint8 of shape \(5, 4, 3\).*\(4, 5, 3\)"),
        ((4, 5, 2), np.zeros((4, 5), np.uint8), r"uint8 of shape \(4, 5\)"),
        ((4, 5, 2), np.zeros((4, 5, 3)), "float64 of shape"),
    ],
)
def test_other_shapes_and_types_are_refused(shape, image, message):
    with pytest.raises(ValueError, match=message):
        refine(np.full(shape, 0.5, dtype=np.float32), image)


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1])
def test_what_is_no_probability_is_refused(value):
    probabilities = np.full((4, 5, 2), 0.5, dtype=np.float32)
    probabilities[1, 2, 0] = value
    with pytest.raises(ValueError, match="must be 0 to 1 and not NaN"):
        refine(probabilities, np.zeros((4, 5, 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smoothness_sigma": 0}, "standard deviations"),
        ({"colour_sigma": float("nan")}, "standard deviations"),
        ({"appearance_sigma": -3}, "standard deviations"),
        ({"appearance_weight": -1}, "Weights and iterations"),
        ({"iterations": -1}, "Weights and iterations"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CRFSettings(**change)


def test_missing_library_says_how_to_get_it(monkeypatch, speckled):
    image, _, probabilities = speckled
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(ValueError, match=r"pydensecrf2, which is missing: pip install -e '\.\[crf\]'"):
        refine(probabilities, image)
