# SPDX-License-Identifier: Apache-2.0
"""Further features: filters see what they are for, and views and components keep their places."""

import numpy as np
import pytest

from evaluation.segmentation.benchmark.contenders import fit
from evaluation.segmentation.benchmark.further_features import (
    FILTERS,
    PROJECTIONS,
    FurtherFilters,
    oriented,
    project,
    ranges,
    structure,
)
from evaluation.segmentation.benchmark.pixels import Seen

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
