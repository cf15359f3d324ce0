# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from alibi_dinov2.features import deep_features
from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.deep_features import (
    DeepFeatures,
    Reduction,
    fit_reduction,
    interleaved,
    standardised,
)
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.features.feature_cache import FeatureCache, MemoryCache
from alibi_dinov2.io.image_regions import ArrayImage
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

PATCH, WINDOW, OVERLAP = 14, 56, 14


@pytest.fixture
def backbone(tiny_model):
    return Backbone(tiny_model(), Dinov2AlibiImageProcessor(), "tiny", "tiny")


@pytest.fixture
def deep(backbone):
    return DeepFeatures(backbone, components=3, window=WINDOW, overlap=OVERLAP, per_image=False)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_reduction_is_standardisation_and_principal_components():
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 6)) @ random.normal(size=(6, 6)) + random.normal(size=6)
    reduction = fit_reduction(features.astype(np.float32), 3)
    standard = (features - features.mean(0)) / features.std(0)
    _, _, axes = np.linalg.svd(standard, full_matrices=False)
    found, expected = reduction(features), standard @ axes[:3].T
    signs = np.sign((found * expected).sum(0))
    # Statistics are kept in float32.
    np.testing.assert_allclose(found * signs, expected, atol=1e-4)


def test_a_constant_channel_is_harmless():
    features = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    features[:, 2] = 7
    assert np.isfinite(fit_reduction(features, 3)(features)).all()


@pytest.mark.parametrize("components", [0, 5])
def test_impossible_components_are_refused(components):
    with pytest.raises(ValueError, match="1 to 4 can be had"):
        fit_reduction(np.zeros((9, 4), dtype=np.float32), components)


def rounded_features(backbone, pixels):
    """Features of a window, `(h, w, D)`, with as many digits as are kept."""
    return next(dense_features(backbone, [Image.fromarray(pixels)], WINDOW)).astype(np.float16).astype(np.float32)


def test_an_image_of_a_window_has_the_features_of_the_image(deep, backbone):
    pixels = picture(WINDOW, WINDOW)
    image = ArrayImage(pixels)
    reduction = deep.fit([image], MemoryCache())
    expected = reduction(rounded_features(backbone, pixels))
    np.testing.assert_allclose(deep.grid(image, 0, reduction, MemoryCache()), expected, atol=1e-4)


def test_windows_of_a_large_image_are_blended(deep, backbone):
    """Against loops over windows and patches."""
    pixels = picture(90, 120)
    image = ArrayImage(pixels)
    reduction = deep.fit([image], MemoryCache())
    padded = np.pad(pixels, ((0, 98 - 90), (0, 126 - 120), (0, 0)), mode="symmetric")
    total, weights = np.zeros((7, 9, 3)), np.zeros((7, 9, 1))
    for top in (0, 3):
        for left in (0, 3, 5):
            window = padded[top * PATCH :, left * PATCH :][:WINDOW, :WINDOW]
            features = rounded_features(backbone, window)
            for row in range(4):
                for column in range(4):
                    weight = np.prod([0.5 if place in (0, 3) else 1 for place in (row, column)])
                    total[top + row, left + column] += weight * reduction(features[row, column])
                    weights[top + row, left + column] += weight
    np.testing.assert_allclose(deep.grid(image, 0, reduction, MemoryCache()), total / weights, atol=1e-4)


def test_a_small_image_is_mirrored_out_to_a_window(deep):
    pixels = picture(20, 33)
    reduction = deep.fit([ArrayImage(picture(WINDOW, WINDOW, seed=1))], MemoryCache())
    small = deep.grid(ArrayImage(pixels), 0, reduction, MemoryCache())
    whole = np.pad(pixels, ((0, 36), (0, 23), (0, 0)), mode="symmetric")
    np.testing.assert_array_equal(small, deep.grid(ArrayImage(whole), 0, reduction, MemoryCache()))


def test_upsampling_is_bilinear_between_centres(deep):
    grid = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(grid).permute(2, 0, 1)[None], scale_factor=PATCH, mode="bilinear", align_corners=False
    )[0]
    found = deep.upsample(grid, (slice(0, 56), slice(0, 70)))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    block = slice(17, 40), slice(30, 31)
    np.testing.assert_array_equal(deep.upsample(grid, block), found[:, *block])


@pytest.mark.parametrize("shifts", [1, 2, 7])
def test_upsampling_puts_shifted_patches_where_they_were(backbone, shifts):
    deep = DeepFeatures(backbone, window=WINDOW, overlap=OVERLAP, shifts=shifts)
    # A patch that begins s pixels further down or right has its centre there, too; the value is that centre.
    centres = PATCH / 2 + np.arange(4 * shifts) * PATCH / shifts
    grid = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).astype(np.float32)
    found = deep.upsample(grid, (slice(7, 40), slice(10, 45)))
    np.testing.assert_allclose(found[0, :, 0], np.arange(7, 40) + 0.5, atol=1e-4)
    np.testing.assert_allclose(found[1, 0, :], np.arange(10, 45) + 0.5, atol=1e-4)


def test_shifted_windows_are_windows_of_the_moved_image(backbone):
    deep = DeepFeatures(backbone, window=WINDOW, overlap=OVERLAP, shifts=2)
    pixels = picture(WINDOW, WINDOW)
    ((row, column, features),) = deep.windows(ArrayImage(pixels), 0, MemoryCache())
    assert (row, column, features.shape) == (0, 0, (8, 8, 48))
    moved = np.pad(pixels, ((0, 7), (0, 7), (0, 0)), mode="symmetric")[7:, 7:]
    np.testing.assert_array_equal(features[1::2, 1::2], rounded_features(backbone, moved))
    np.testing.assert_array_equal(features[::2, ::2], rounded_features(backbone, pixels))


def test_components_are_standardised_in_each_image(backbone):
    deep = DeepFeatures(backbone, components=3, window=WINDOW, overlap=OVERLAP)
    images = [ArrayImage(picture(90, 60, seed)) for seed in (0, 1)]
    reduction = deep.fit(images, MemoryCache())
    plain = replace(deep, per_image=False)
    for image in (*images, ArrayImage(picture(30, 40, seed=2))):
        rows, columns = (-(-side // PATCH) for side in image.shape)
        inside = deep.grid(image, 0, reduction, MemoryCache())[:rows, :columns]
        np.testing.assert_allclose(inside.mean((0, 1)), 0, atol=1e-5)
        np.testing.assert_allclose(inside.std((0, 1)), 1, atol=1e-4)
        unchanged = plain.grid(image, 0, reduction, MemoryCache())[:rows, :columns]
        np.testing.assert_allclose(inside, (unchanged - unchanged.mean((0, 1))) / unchanged.std((0, 1)), atol=1e-4)
    blank = deep.grid(ArrayImage(np.full((56, 56), 90, dtype=np.uint8)), 0, reduction, MemoryCache())
    assert np.isfinite(blank).all()


def test_what_varies_by_rounding_only_is_not_blown_up():
    features = np.array([[1.0, 1.0], [1.0 + 1e-6, 3.0]])
    np.testing.assert_allclose(standardised(features, features), [[0, -1], [0, 1]], atol=1e-5)


def test_interleaving_one_is_nothing():
    features = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(interleaved([features], 1), features)


def test_a_window_goes_through_the_backbone_once(deep, monkeypatch, tmp_path):
    seen = []

    def watched(backbone, images, size):
        seen.append(size)
        return dense_features(backbone, images, size)

    monkeypatch.setattr(deep_features, "dense_features", watched)
    pixels = picture(90, 60)
    image = ArrayImage(pixels)
    for cache in (MemoryCache(), FeatureCache(tmp_path / "cache")):
        seen.clear()
        reduction = deep.fit([image], cache)
        first = deep.grid(image, 0, reduction, cache)
        np.testing.assert_array_equal(deep.grid(ArrayImage(pixels.copy()), 0, reduction, cache), first)
        assert seen == [WINDOW] * 4


def test_any_backbone_will_do(tiny_teacher):
    teacher = tiny_teacher(Dinov2Model, Dinov2Config)
    deep = DeepFeatures(Backbone(teacher, Dinov2AlibiImageProcessor(), "tiny", "tiny"), 2, WINDOW, OVERLAP)
    image = ArrayImage(picture(60, 60))
    reduction = deep.fit([image], MemoryCache())
    assert deep.grid(image, 0, reduction, MemoryCache()).shape == (5, 5, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 13}, "A window of 13 pixels"),
        ({"overlap": 28}, "overlap by less than half"),
        ({"overlap": -1}, "overlap by less than half"),
        ({"shifts": 3}, "must divide"),
        ({"shifts": 0}, "must divide"),
    ],
)
def test_impossible_settings_are_refused(backbone, settings, message):
    with pytest.raises(ValueError, match=message):
        DeepFeatures(backbone, **({"window": WINDOW, "overlap": OVERLAP} | settings))


def test_few_patches_are_drawn_from_large_images(deep, monkeypatch):
    monkeypatch.setattr(deep_features, "MAX_PATCHES", 60)
    counted = []
    monkeypatch.setattr(
        deep_features,
        "fit_reduction",
        lambda features, components: counted.append(len(features)) or Reduction(*[features] * 3),
    )
    deep.fit([ArrayImage(picture(200, 200))], MemoryCache())
    assert 30 < counted[0] < 120
