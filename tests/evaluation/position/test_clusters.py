# SPDX-License-Identifier: Apache-2.0
"""Clusters follow content or position, and the figures tell which."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from alibi_dinov2.features.backbone import Backbone, load_backbone
from evaluation.position.clusters import (
    ImageClusters,
    cluster_image,
    cluster_map,
    cluster_panel,
    count_classes,
    count_conflicts,
    fit_clusters,
    label_colours,
    mask_confusion,
    match_clusters,
    measure,
    summarise,
)
from evaluation.position.noise import noise_images
from evaluation.report.records import describe_images
from evaluation.semantics.miou import VOID, mean_iou
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor
from tests.drawn_panels import grid_of, pixel_at, texts_of

RANDOM = np.random.default_rng(0)
MAP = RANDOM.integers(0, 3, (8, 10))
SHIFT = (4, 5)


def explained(labels, rolled) -> tuple[float, float]:
    metrics = summarise([ImageClusters(labels, count_conflicts(labels, rolled, np.roll(labels, SHIFT, axis=(0, 1))))])
    return metrics["position_explains"], metrics["content_explains"]


def test_clusters_that_move_with_the_image_are_content():
    assert explained(MAP, np.roll(MAP, SHIFT, axis=(0, 1))) == (0, 1)


def test_clusters_that_stay_are_position():
    assert explained(MAP, MAP) == (1, 0)


def test_a_border_between_textures_is_content_although_position_predicts_it():
    halves = np.repeat([[0, 1]], 5, axis=1).repeat(8, axis=0)
    assert explained(halves, np.roll(halves, SHIFT, axis=(0, 1))) == (0, 1)


def test_a_mixture_is_divided_in_its_proportion():
    labels = RANDOM.integers(0, 3, (200, 200))
    carried = np.roll(labels, SHIFT, axis=(0, 1))
    position, content = explained(labels, np.where(RANDOM.random(labels.shape) < 0.3, labels, carried))
    # Some 27,000 patches in conflict: the standard error is 0.003.
    assert position == pytest.approx(0.3, abs=0.015)
    assert content == pytest.approx(1 - position)


def test_clusters_by_lot_side_with_neither_more_than_by_chance():
    labels = RANDOM.integers(0, 4, (200, 200))
    found = explained(labels, RANDOM.integers(0, 4, labels.shape))
    assert found == pytest.approx((0.25, 0.25), abs=0.015)


def test_conflicts_are_counted_patch_by_patch():
    labels = np.array([[0, 0, 1, 2]])
    # Moved right by one: 2 0 0 1. They differ at the first, third and fourth place.
    found = count_conflicts(labels, np.array([[2, 1, 1, 0]]), np.array([[2, 0, 0, 1]]))
    np.testing.assert_array_equal(found, [4, 3, 1, 1])


def test_images_count_by_their_patches():
    images = [ImageClusters(MAP, np.array(counts)) for counts in ([10, 8, 2, 6], [30, 2, 2, 0])]
    assert summarise(images) == {"in_conflict": 0.25, "position_explains": 0.4, "content_explains": 0.6}


def test_no_conflict_gives_no_fractions():
    assert summarise([ImageClusters(MAP, np.array([80, 0, 0, 0]))]) == {"in_conflict": 0}


@pytest.mark.parametrize("scale", [1, 1000])
def test_clusters_are_found_whatever_the_scale_of_a_channel(scale):
    truth = np.arange(60).reshape(6, 10) % 3
    features = np.eye(3)[truth] + RANDOM.normal(0, 0.05, (6, 10, 3))
    noise = scale * RANDOM.normal(size=(6, 10, 1))
    features = np.concatenate([features, noise], axis=-1).astype(np.float32)
    labels = cluster_map(fit_clusters(features, 3), features)
    np.testing.assert_array_equal(match_clusters(labels, truth, 3), truth)


def test_matching_is_one_to_one_and_left_over_clusters_take_their_largest_overlap():
    target = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2, VOID])
    labels = np.array([2, 2, 2, 3, 3, 0, 3, 1, 1, 1])
    np.testing.assert_array_equal(match_clusters(labels, target, 3), [0, 0, 0, 0, 0, 1, 0, 2, 2, 2])
    # One to one: the second cluster overlaps class 0 most as well, but that is taken by the larger.
    np.testing.assert_array_equal(match_clusters(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 0, 1]), 2),
                                  [0, 0, 0, 1, 1, 1])  # fmt: skip


def test_confusion_is_that_of_the_mask_at_its_own_size():
    mask = np.repeat(np.repeat(np.array([[0, 1], [2, 1]], dtype=np.uint8), 7, axis=0), 5, axis=1)
    mask[0, 0] = VOID
    confusion = mask_confusion(np.array([[2, 0], [1, 0]]), mask, 3)
    np.testing.assert_array_equal(confusion, np.diag([34, 70, 35]))
    assert mean_iou(mask_confusion(np.array([[2, 0], [0, 0]]), mask, 3)) == pytest.approx((1 + 70 / 105 + 0) / 3)


def test_classes_are_counted_without_void():
    assert count_classes([np.array([[0, VOID]], dtype=np.uint8), np.array([[2, 0]])]) == 3
    with pytest.raises(ValueError, match="no label but 255"):
        count_classes([np.full((2, 2), VOID, dtype=np.uint8)])


@pytest.fixture
def backbone(tmp_path):
    def make(model) -> Backbone:
        model.save_pretrained(tmp_path / "model")
        Dinov2AlibiImageProcessor().save_pretrained(tmp_path / "model")
        return load_backbone(tmp_path / "model")

    return make


def test_alibi_on_a_torus_is_all_content(backbone, tiny_model):
    image = noise_images(1, 112)[0].resize((140, 112))
    found = cluster_image(backbone(tiny_model()), image, 112, 3)
    assert found.labels.shape == (8, 10)
    patches, conflicts, with_position, with_content = found.conflicts
    assert patches == 3 * 80
    assert conflicts > 80
    # A patch halfway between two clusters may go to either by rounding.
    assert with_position <= 1
    assert with_content >= conflicts - 1


def test_a_strong_position_embedding_is_all_position(backbone, tiny_teacher):
    model = tiny_teacher(Dinov2Model, Dinov2Config, image_size=112)
    ramp = torch.linspace(-1, 1, 8)
    places = torch.stack(torch.meshgrid(ramp, ramp, indexing="ij"), dim=-1).reshape(64, 2)
    with torch.no_grad():
        model.embeddings.position_embeddings[0, 1:] = 1000 * places @ torch.randn(2, 48)
    metrics = summarise([cluster_image(backbone(model), noise_images(1, 112)[0], 112, 3)])
    assert metrics["position_explains"] > 0.95


def test_record_has_the_figures_and_the_settings(backbone, tiny_model):
    images = noise_images(2, 56)
    masks = [RANDOM.integers(0, 2, (56, 56)).astype(np.uint8) for _ in images]
    record, found = measure(backbone(tiny_model()), images, describe_images("noise", images), 56, 2, masks, seed=3)
    assert record["task"] == "clusters"
    assert record["metrics"] == summarise(found)
    assert record["metrics"].keys() == {"in_conflict", "position_explains", "content_explains", "miou"}
    assert record["parameters"]["clusters"] == 2
    assert record["parameters"]["restarts"] == 15
    assert record["seed"] == 3
    assert len(found) == 2


def test_panel_shows_clusters_in_the_colours_of_the_mask():
    mask = np.repeat([[0, 1]], 4, axis=1).repeat(8, axis=0)
    found = [ImageClusters(np.array([[5, 3]]), np.array([2, 1, 0, 1]))]
    figure = cluster_panel([Image.new("RGB", (8, 8))], [("model", found)], [mask])
    (row,) = grid_of(figure)
    first, second = (tuple(colour) for colour in label_colours(np.array([[0, 1]]))[0].tolist())
    assert first != second
    assert [pixel_at(figure, axes, 0.25, 0.5) for axes in row] == [(0, 0, 0), first, first]
    assert [pixel_at(figure, axes, 0.75, 0.5) for axes in row] == [(0, 0, 0), second, second]
    figures = "position 0.00, content 1.00"
    assert texts_of(figure) == ["image", "mask", "model", figures, "1 images:", figures]
    assert (label_colours(np.array([[VOID]])) == 0).all()


def test_constant_features_and_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="the same in all patches"):
        fit_clusters(np.ones((4, 4, 8), dtype=np.float32), 2)
    for count in (1, 17):
        with pytest.raises(ValueError, match=f"{count} clusters of 16 patches .* must be 2 to 16"):
            fit_clusters(RANDOM.normal(size=(4, 4, 8)), count)
