# SPDX-License-Identifier: Apache-2.0
"""Pictures show what the features hold, and the same thing in the same colour."""

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from evaluation.noise import noise_images
from evaluation.pca import align_components, colours, pca_panel, pca_row, principal_components
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

FEATURES = np.random.default_rng(0).normal(size=(6, 9, 20)) * np.linspace(3, 0.1, 20)


def test_components_are_those_of_scikit_learn_up_to_sign():
    found = principal_components(FEATURES).reshape(-1, 3)
    expected = PCA(3, whiten=True).fit_transform(FEATURES.reshape(-1, 20))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-8)


def test_aligning_undoes_order_and_sign():
    components = principal_components(FEATURES)
    np.testing.assert_array_equal(align_components(components[..., [2, 0, 1]] * (-1, 1, -1), components), components)


def test_colours_use_the_full_range():
    picture = colours(principal_components(FEATURES))
    assert picture.dtype == np.uint8
    assert picture.shape == (6, 9, 3)
    assert picture.min() == 0
    assert picture.max() == 255


def test_constant_features_make_a_picture():
    assert (colours(np.ones((4, 4, 3))) == 0).all()


def test_row_shows_image_and_maps_side_by_side():
    image = Image.new("RGB", (90, 60), (10, 20, 30))
    row = pca_row(image, [FEATURES, FEATURES], height=60)
    assert row.size == (3 * 90 + 2 * 6, 60)
    assert row.getpixel((40, 30)) == (10, 20, 30)
    pixels = np.asarray(row)
    np.testing.assert_array_equal(pixels[:, 96:186], pixels[:, 192:282])


def test_too_few_patches_are_refused():
    with pytest.raises(ValueError, match="1×2 patches of 20 channels have no 3 components"):
        principal_components(FEATURES[:1, :2])


def test_panel_has_a_row_per_image(tmp_path, tiny_model):
    tiny_model().save_pretrained(tmp_path / "model")
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path / "model")
    paths = []
    for number, image in enumerate(noise_images(2, 70)):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    pca_panel([tmp_path / "model"], paths, 56, tmp_path / "panel.png", "cpu")
    panel = Image.open(tmp_path / "panel.png")
    assert panel.size == (2 * 259 + 6, 24 + 2 * (259 + 6))
