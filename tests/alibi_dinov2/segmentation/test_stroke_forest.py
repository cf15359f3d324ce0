# SPDX-License-Identifier: Apache-2.0
"""Views of the features earn trees by what they predict of images left out; trees see parts of the strokes."""

import numpy as np
import pytest

from alibi_dinov2.segmentation import stroke_forest
from alibi_dinov2.segmentation.pixel_classifiers import fit_classifier, load_classifier
from alibi_dinov2.segmentation.stroke_forest import MOST, TREES, USUAL, fit_trees, grow, mixture_weights, shares_of

LEVEL, TEXTURE = np.arange(3), np.arange(3, 6)
VIEWS = [np.arange(6), LEVEL, TEXTURE]


def two_images(count=60, seed=0, shift=6.0):
    """Pixels of two classes in two images. Three features tell the classes apart but shift from one image to the next
    by more than that; three others tell them less clearly but alike in both."""
    random = np.random.default_rng(seed)
    images, classes = np.repeat([0, 1], count), np.tile([0, 1], count)
    features = random.normal(size=(2 * count, 6)).astype(np.float32)
    features[:, LEVEL] = 0.3 * features[:, LEVEL] + (3 * classes + shift * images)[:, None]
    features[:, TEXTURE] += 1.5 * classes[:, None]
    return features, classes, images


def counts_of(seen) -> list[int]:
    return [sum(np.array_equal(view, other) for other in seen) for view in VIEWS]


def test_view_that_does_not_hold_in_another_image_gets_few_trees():
    features, classes, images = two_images(300)
    trees, seen = fit_trees(features, classes, images, VIEWS, 0)
    everything, level, texture = counts_of(seen)
    assert len(trees) == len(seen) == TREES == everything + level + texture
    assert texture > 2 * level
    alike = two_images(300, shift=0)
    _, level, texture = counts_of(fit_trees(*alike, VIEWS, 0)[1])
    assert level > 1.5 * texture


def test_third_image_is_classified_better_for_it():
    features, classes, images = two_images()
    new, truth, _ = two_images(seed=1)
    new[:, LEVEL] -= 6

    def accuracy(**given):
        found = fit_classifier("stroke-forest", features, classes, 2, threads=1, **given).predict_proba(new)
        return (found.argmax(axis=1) == truth).mean()

    with_views = accuracy(images=images, views=VIEWS)
    assert with_views > 0.85
    assert with_views > accuracy(images=images) + 0.1


@pytest.mark.parametrize("images", [None, np.zeros(120, dtype=int), np.tile([0, 1], 60)], ids=["none", "one", "class"])
def test_views_are_alike_where_nothing_can_be_left_out(images):
    features, classes, _ = two_images()
    # Of the last kind, each image has one class: the other would be unknown.
    assert counts_of(fit_trees(features, classes, images, VIEWS, 0)[1]) in ([33, 34, 33], [33, 33, 34], [34, 33, 33])


def test_weights_make_the_labels_most_likely():
    random = np.random.default_rng(0)
    likely = random.uniform(0.2, 0.9, (3, 2000))
    likely[2] *= 0.5
    classes = random.integers(0, 2, 2000)
    weights = mixture_weights(likely, classes, USUAL.prior)
    assert weights.sum() == pytest.approx(1)

    def objective(tried):
        of_pixel = 1 / np.bincount(classes)[classes] * 2000 / 2 / stroke_forest.STROKE
        return np.log(tried @ likely) @ of_pixel + USUAL.prior * np.log(tried).sum()

    for _ in range(200):
        other = np.maximum(weights + random.normal(0, 0.05, 3), 1e-3)
        assert objective(weights) >= objective(other / other.sum()) - 1e-3  # what the steps of the search leave


def test_all_classes_count_the_same_in_the_weights():
    classes = np.repeat([0, 1], [900, 100])
    likely = np.stack([np.where(classes == 0, 0.9, 0.1), np.where(classes == 0, 0.1, 0.9)])
    np.testing.assert_allclose(mixture_weights(likely, classes, USUAL.prior), [0.5, 0.5], atol=1e-6)


def test_tree_sees_as_many_pixels_of_each_class_and_few():
    random = np.random.default_rng(0)
    features, classes = random.normal(size=(1000, 2)).astype(np.float32), np.repeat([0, 1], [900, 100])
    for tree in grow(features, classes, 3, random, USUAL):
        # Pixels drawn twice are two of them.
        np.testing.assert_allclose(tree.tree_.value[0, 0], 0.5, atol=1e-12)
        assert tree.tree_.n_node_samples[0] == USUAL.share * 1000
    (tree,) = grow(*(np.repeat(array, 10, axis=0) for array in (features, classes)), 1, random, USUAL)
    assert tree.tree_.n_node_samples[0] == 2 * MOST


def test_shares_add_up():
    for weights in ([1, 1, 1], [0.999, 0.001, 0], [0.2, 0.5, 0.3]):
        counts = shares_of(100, np.array(weights))
        assert counts.sum() == 100
        np.testing.assert_allclose(counts, 100 * np.array(weights) / np.sum(weights), atol=1)


def test_forest_of_views_is_saved_and_loaded(tmp_path):
    features, classes, images = two_images()
    found = fit_classifier("stroke-forest", features, classes, 2, threads=1, images=images, views=VIEWS)
    trees, seen = fit_trees(features, classes, images, VIEWS, 0)
    new, _, _ = two_images(seed=2)
    expected = np.mean([tree.predict(new[:, view]) for tree, view in zip(trees, seen, strict=True)], axis=0)
    np.testing.assert_allclose(found.predict_proba(new), expected, atol=1e-6)  # float32
    found.save(tmp_path)
    loaded = load_classifier("stroke-forest", tmp_path, threads=1)
    np.testing.assert_array_equal(loaded.predict_proba(new), found.predict_proba(new))


def test_images_of_other_pixels_are_refused():
    features, classes, images = two_images()
    with pytest.raises(ValueError, match="one number each"):
        fit_classifier("stroke-forest", features, classes, 2, images=images[:-1], views=VIEWS)
