# SPDX-License-Identifier: Apache-2.0
"""Features as files for ilastik, read the way that it reads them."""

import json

import numpy as np
import pytest
from PIL import Image

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.features.feature_files import export_features
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

h5py = pytest.importorskip("h5py", reason="h5py is not installed")


@pytest.fixture
def backbone(tiny_model):
    return Backbone(tiny_model(), Dinov2AlibiImageProcessor(), "tiny", "tiny")


def written(backbone, tmp_path, array, **options):
    """The data set and its axes, after an image has gone through `export_features`."""
    source, target = tmp_path / "image.png", tmp_path / "image.h5"
    Image.fromarray(array).save(source)
    export_features(backbone, {source: source}, {source: target}, 56, **options)
    with h5py.File(target) as file:
        # ilastik takes the only data set of a file, and its axes from the attribute, which is vigra's JSON.
        (name,) = file
        tags = json.loads(file[name].attrs["axistags"])["axes"]
        assert all(tag["typeFlags"] == (1 if tag["key"] == "c" else 2) for tag in tags)
        return file[name][:], "".join(tag["key"] for tag in tags)


def test_ilastik_gets_rows_columns_and_channels_of_the_images_size(backbone, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 84), dtype=np.uint8)
    found, axes = written(backbone, tmp_path, pixels, pixels=True, components=3)
    assert axes == "yxc"
    assert found.shape == (70, 84, 3)
    assert found.dtype == np.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_stands_before_its_features(backbone, tmp_path, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (56, 56, channels), dtype=np.uint8)
    found, _ = written(backbone, tmp_path, pixels[..., 0] if channels == 1 else pixels, pixels=True, image_too=True)
    np.testing.assert_allclose(found[..., :channels] * 255, pixels, atol=1e-4)
    (features,) = dense_features(backbone, [Image.fromarray(pixels.squeeze())], 56)
    # Bilinear between the middles of patches, an axis after the other.
    middles, places = np.arange(4) * 14 + 6.5, np.arange(56)
    for channel in (0, 47):
        rows = np.stack([np.interp(places, middles, column) for column in features[..., channel].T], axis=1)
        wanted = np.stack([np.interp(places, middles, row) for row in rows])
        np.testing.assert_allclose(found[..., channels + channel], wanted, atol=1e-4)


def test_the_image_does_not_stand_beside_patches(backbone, tmp_path):
    with pytest.raises(ValueError, match="features of pixels, too"):
        written(backbone, tmp_path, np.zeros((56, 56), dtype=np.uint8), image_too=True)
