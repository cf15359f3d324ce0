# SPDX-License-Identifier: Apache-2.0
"""Further features: filters see what they are for, and views and components keep their places."""

import numpy as np
import pytest
import torch
from PIL import Image

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.features.feature_cache import FeatureCache
from evaluation.segmentation.benchmark.contenders import fit
from evaluation.segmentation.benchmark.further_features import (
    FILTERS,
    PROJECTIONS,
    FurtherFilters,
    FurtherLayer,
    StandardisedGrey,
    of_first_layers,
    oriented,
    project,
    ranges,
    structure,
)
from evaluation.segmentation.benchmark.pixels import Seen, SegmenterFeatures
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

STRIPES = np.tile(0.5 + 0.5 * np.sin(2 * np.pi * np.arange(64) / 8), (48, 1))
SPOTS = np.random.default_rng(0).random((48, 64))
FLAT = np.full((48, 64), 0.5)


@pytest.mark.parametrize("name", FILTERS)
def test_filters_give_finite_planes_of_the_image(name):
    for image in (STRIPES, SPOTS, FLAT):
        planes = FILTERS[name](image)
        assert {plane.shape for plane in planes} == {image.shape}
        assert np.isfinite(planes).all()


def test_filters_see_what_they_are_for():
    middle = (24, 32)
    largest, smallest = oriented(STRIPES)[2:4]  # of a wavelength of 8 pixels
    assert largest[middle] > 5 * smallest[middle]
    first, second = structure(STRIPES)[2:4]
    assert first[middle] > 100 * abs(second[middle])
    assert ranges(STRIPES)[1][middle] == pytest.approx(1)
    assert ranges(FLAT)[3][middle] == 0 < ranges(SPOTS)[3][middle]


class Made:
    """Three classical features, of which the first is the brightness, and two deep ones."""

    facts = "made"

    def __call__(self, images, places, drawn):
        features = [np.arange(5 * len(where), dtype=np.float32).reshape(-1, 5) for where in places]
        return Seen(features, [np.arange(5), np.arange(1, 5), np.array([3, 4])])


def test_further_features_come_last_and_join_the_views_they_belong_to():
    images = [np.repeat((image * 255).astype(np.uint8)[..., None], 3, axis=-1) for image in (STRIPES, SPOTS)]
    places = [np.array([[1, 2], [40, 60], [47, 63]])] * 2
    filtered = FurtherFilters(Made(), "medians")(images, places, 1)
    assert [view.tolist() for view in filtered.views] == [list(range(8)), list(range(1, 8)), [3, 4]]
    np.testing.assert_array_equal(filtered.features[0][:, :5], Made()(images, places, 1).features[0])
    median = FILTERS["medians"](images[1].mean(axis=-1) / 255)[1]
    np.testing.assert_allclose(filtered.features[1][:, 6], median[tuple(places[1].T)], rtol=1e-6)  # float32


def test_a_model_of_the_first_layers_ends_there(tiny_model):
    backbone = Backbone(tiny_model(), Dinov2AlibiImageProcessor(), "tiny", "tiny")
    first, image = of_first_layers(backbone, 2), Image.fromarray((SPOTS[:42, :56] * 255).astype(np.uint8))
    (found,) = dense_features(first, [image], 42)
    (layer,) = dense_features(backbone, [image], 42, layers=[2])
    assert len(backbone.model.encoder.layer) > 2
    with torch.inference_mode():
        expected = backbone.model.layernorm(torch.from_numpy(layer[0])).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32


@pytest.fixture
def segmenter_features(tiny_model, tmp_path):
    backbone = Backbone(tiny_model(), Dinov2AlibiImageProcessor(), "tiny", "tiny")
    settings = {"window": 56, "overlap": 14, "components": 4}
    return SegmenterFeatures(backbone, ClassicalFeatures((1, 2)), FeatureCache(tmp_path), settings)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("instead", [True, False])
def test_standardised_grey_levels_know_neither_brightness_nor_contrast(segmenter_features, channels, instead):
    random = np.random.default_rng(0)
    dark = random.integers(10, 60, (48, 64, channels)).repeat(3 // channels, axis=2).astype(np.uint8)
    images, places = [dark, 3 * dark + 20], [np.argwhere(SPOTS > 0.9)] * 2
    seen = StandardisedGrey(segmenter_features, instead)(images, places, 2)
    own = segmenter_features(images, places, 2)
    np.testing.assert_array_equal(seen.features[0][:, : own.features[0].shape[1]], own.features[0])
    *views, new = seen.views
    assert [view.tolist() for view in views] == [
        view.tolist() for view in (own.views[:1] + own.views[2:] if instead else own.views)
    ]
    count = len(segmenter_features.classical.names(channels))
    assert len(new) == count + 8  # beside four components at each scale
    # Half precision of what is standardised, whose largest values are some 3.
    np.testing.assert_allclose(seen.features[0][:, new[-count:]], seen.features[1][:, new[-count:]], atol=0.02)


def test_an_earlier_layer_is_in_every_view(segmenter_features):
    images, places = (
        [(image * 255).astype(np.uint8)[..., None].repeat(3, 2) for image in (STRIPES, SPOTS)],
        [np.argwhere(SPOTS > 0.9)] * 2,
    )
    seen, own = (features(images, places, 1) for features in (FurtherLayer(segmenter_features, 2), segmenter_features))
    added = np.arange(own.features[0].shape[1], seen.features[0].shape[1])
    assert len(added) == 9
    for view, before in zip(seen.views, own.views, strict=True):
        np.testing.assert_array_equal(view, np.append(before, added))


@pytest.mark.parametrize("name", PROJECTIONS)
def test_components_from_labels_take_the_place_of_deep_features(name):
    random = np.random.default_rng(0)
    classes = np.arange(90) % 3
    features = random.normal(size=(90, 24)).astype(np.float32)
    features[:, 20:23] += 3 * np.eye(3)[classes]  # among deep ones
    views = [np.arange(24), np.arange(1, 24), np.arange(4, 24)]
    transform, changed = project(name, features, classes, views)
    new = transform(features)
    np.testing.assert_array_equal(new[:, :4], features[:, :4])
    assert [view[0] for view in changed] == [0, 1, 4]
    assert all(view[-1] == new.shape[1] - 1 for view in changed)
    assert new.shape[1] == 4 + {"PLS": 9, "LDA on strokes": 2}[name]
    images = np.arange(90) // 45
    found = fit(name, features, classes, 3, 0, images, views)(features)
    assert (found.argmax(axis=1) == classes).mean() > 0.9
