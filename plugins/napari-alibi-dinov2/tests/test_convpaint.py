# SPDX-License-Identifier: Apache-2.0
"""Our features in the released Convpaint."""

import numpy as np
import pytest
from drawing import IMAGE
from napari_alibi_dinov2.samples import read
from napari_alibi_dinov2.settings import HUB_ID
from PIL import Image

from alibi_dinov2 import dense_features, load_backbone

pytest.importorskip("napari_convpaint", reason="Convpaint is not installed")
from napari_alibi_dinov2 import convpaint
from napari_alibi_dinov2.convpaint import AlibiFeatures
from napari_convpaint.convpaint_model import ConvpaintModel


def test_it_is_among_convpaints_feature_extractors():
    assert ConvpaintModel.get_fe_models_types()[HUB_ID] is AlibiFeatures
    assert "vgg16" in ConvpaintModel.get_fe_models_types()  # and takes nobody's place


def test_convpaint_learns_and_segments_a_shipped_image_with_it():
    image = read("superalloy_spot3_0d_3.png")[:336, :336]
    bright, dark = np.percentile(image, (95, 5))
    strokes = np.zeros_like(image)
    strokes[(image >= bright) & (np.indices(image.shape)[0] < 170)] = 1
    strokes[(image <= dark) & (np.indices(image.shape)[0] < 170)] = 2
    model = ConvpaintModel(HUB_ID)
    model.train(image, strokes)
    classes = model.segment(image)
    assert classes.shape == image.shape
    assert set(np.unique(classes)) == {1, 2}
    # Where no stroke was, bright is one class and dark the other more often than not, with random weights as these are.
    below = np.indices(image.shape)[0] >= 170
    assert (classes[below & (image >= bright)] == 1).mean() > 0.5
    assert (classes[below & (image <= dark)] == 2).mean() > 0.5


def test_features_are_those_of_the_package(model_folder):
    pixels = IMAGE[:84, :112]
    found = AlibiFeatures(HUB_ID).extract_features_from_plane(np.repeat(pixels[None] / 255, 3, axis=0))
    (wanted,) = dense_features(load_backbone(model_folder), [Image.fromarray(pixels)], size=84)
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), wanted, atol=1e-3)


def test_a_large_image_is_seen_in_windows_of_one_size(monkeypatch):
    seen = []
    original = convpaint.patch_features
    monkeypatch.setattr(
        convpaint, "patch_features", lambda backbone, values: seen.append(values.shape) or original(backbone, values)
    )
    found = AlibiFeatures(HUB_ID).extract_features_from_plane(np.zeros((3, 14 * 50, 14 * 40), dtype=np.float32))
    assert found.shape == (48, 50, 40)
    assert set(seen) == {(1, 3, 518, 518)}
    assert len(seen) == 4
    assert np.isfinite(found).all()
