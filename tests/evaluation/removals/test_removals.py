# SPDX-License-Identifier: Apache-2.0
"""Removals remove what they say and nothing else, and every evaluation works on a backbone with one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BitImageProcessorPil

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.dense_features import OUTPUT, dense_features, patch_features
from evaluation.command import measured_backbone, record_parser
from evaluation.position.channel_probes import most_positional_channels
from evaluation.position.noise import noise_images
from evaluation.position.position_targets import position_targets
from evaluation.removals.blank_channels import channel_basis
from evaluation.removals.blank_svd import leading_directions
from evaluation.removals.fitting import COUNTS, REMOVALS, fit_removal, project_out, with_removal
from evaluation.removals.flips_and_turns import average_flips_and_turns
from evaluation.removals.rasa import rasa_basis
from tests.comparison import assert_close

WIDTH, SIZE = 64, 56


@pytest.fixture
def backbone(tmp_path, tiny_teacher):
    """A random DINOv2 with a position embedding, 64 channels wide."""
    tiny_teacher(hidden_size=WIDTH, num_attention_heads=2).save_pretrained(tmp_path / "model")
    BitImageProcessorPil().save_pretrained(tmp_path / "model")
    return load_backbone(tmp_path / "model")


def random_features(seed: int = 0, shape: tuple[int, ...] = (20, 28, 24)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_coordinates(seed: int = 0) -> np.ndarray:
    """Features in which two random directions hold row and column."""
    features = random_features(seed)
    directions = np.linalg.qr(np.random.default_rng(9).normal(size=(24, 24)))[0][:2].astype(np.float32)
    places = position_targets(20, 28).astype(np.float32).reshape(20, 28, 2) - 0.5
    return features - (features @ directions.T) @ directions + 9 * places @ directions


def linear_r2(features: np.ndarray) -> float:
    """R² of least squares from features to row and column, over all patches."""
    inputs = np.c_[features.reshape(-1, features.shape[-1]), np.ones(features.shape[0] * features.shape[1])]
    targets = position_targets(*features.shape[:2])
    # Where a direction was removed, float32 leaves rounding, which is not to be fitted.
    residual = targets - inputs @ np.linalg.lstsq(inputs, targets, rcond=1e-5)[0]
    return float(1 - (residual**2).sum() / ((targets - targets.mean(axis=0)) ** 2).sum())


def remove(basis: np.ndarray, features: np.ndarray) -> np.ndarray:
    return project_out(basis, lambda pixels: features, torch.empty(0))


def test_blanked_channels_are_zero_and_the_others_untouched():
    features = random_features()
    found = remove(channel_basis([7, 3], 24), features)
    assert (found[..., [3, 7]] == 0).all()
    kept = np.setdiff1d(np.arange(24), [3, 7])
    np.testing.assert_array_equal(found[..., kept], features[..., kept])


@pytest.mark.parametrize("channels", [[], [24], [-1]])
def test_channels_that_are_not_there_are_refused(channels):
    with pytest.raises(ValueError, match="0 to 23"):
        channel_basis(channels, 24)


@pytest.mark.parametrize(
    "basis",
    [channel_basis([1, 5], 24), leading_directions(random_features(1), 6), rasa_basis([with_coordinates()], 3)],
)
def test_projections_are_orthonormal_and_idempotent(basis):
    assert_close(basis @ basis.T, np.eye(len(basis)), 1e-5, "float32")
    once = remove(basis, random_features(2))
    assert_close(remove(basis, once), once, 1e-5, "float32")
    assert_close(once @ basis.T, np.zeros((20, 28, len(basis))), 1e-5, "float32")


def test_rasa_removes_coordinates():
    features = [with_coordinates(seed) for seed in range(4)]
    unseen = with_coordinates(5)
    assert linear_r2(unseen) > 0.99
    cleaned = remove(rasa_basis(features, COUNTS["rasa"]), unseen)
    # Random channels fit a little of anything: 24 channels and 560 patches, 4 %.
    assert linear_r2(cleaned) < 0.1
    assert (cleaned**2).sum() > 0.1 * (unseen**2).sum()


def test_rasa_equals_predictors_fitted_one_round_after_another():
    features = [with_coordinates(seed) for seed in range(3)]
    rest = np.concatenate([image.reshape(-1, 24) for image in features]).astype(np.float64)
    places = np.concatenate([position_targets(20, 28) - 0.5] * 3)
    for _ in range(3):
        # Franca's steps: two weight vectors, Gram-Schmidt, subtract the projections.
        row, column = np.linalg.lstsq(rest, places)[0].T
        row /= np.linalg.norm(row)
        column -= column @ row * row
        column /= np.linalg.norm(column)
        rest = rest - np.outer(rest @ row, row) - np.outer(rest @ column, column)
    found = np.concatenate([remove(rasa_basis(features, 3), image).reshape(-1, 24) for image in features])
    assert_close(found, rest, 1e-3, "float32 directions, features of about 5")


def test_rasa_leaves_features_without_coordinates_alone():
    quarter = random_features(shape=(5, 7, 24))
    half = np.concatenate([quarter, quarter[::-1]])
    symmetric = np.concatenate([half, half[:, ::-1]], axis=1)
    basis = rasa_basis([symmetric, np.ones((4, 4, 24), np.float32)], 9)
    assert basis.shape == (0, 24)
    np.testing.assert_array_equal(remove(basis, symmetric), symmetric)


def test_leading_directions_are_those_of_a_decomposition_by_hand():
    features = random_features() * np.linspace(3, 0.1, 24, dtype=np.float32)
    unit = (features / np.sqrt((features**2).sum(axis=-1, keepdims=True))).reshape(-1, 24).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(unit.T))
    expected = vectors[:, np.argsort(values)[::-1][:5]]
    found = leading_directions(features, 5)
    # Sign is free: compare the projectors.
    assert_close(found.T @ found, expected @ expected.T, 1e-4, "float32 SVD against float64 eigenvectors")


def test_blank_image_without_positions_removes_nothing():
    features = np.ones((6, 6, 24), np.float32) + random_features(shape=(6, 6, 24)) * 1e-6
    assert leading_directions(features, 4).shape == (0, 24)
    with pytest.raises(ValueError, match="allow 1 to 23"):
        leading_directions(features, 24)


def test_averaged_features_turn_with_the_image(backbone, random_pixels):
    pixels = random_pixels(1, 4, 6)

    def features_of(values):
        return patch_features(backbone, values)

    plain, found = features_of(pixels), average_flips_and_turns(features_of, pixels)
    assert found.shape == plain.shape
    for dimension in (1, 2):
        flipped = average_flips_and_turns(features_of, pixels.flip(dimension + 1))
        assert_close(flipped, np.flip(found, dimension).copy(), 1e-4, "float32, sums in another order")
        assert np.abs(features_of(pixels.flip(dimension + 1)) - np.flip(plain, dimension)).max() > 1e-2
    turned = average_flips_and_turns(features_of, torch.rot90(pixels, 1, (2, 3)))
    assert_close(turned, np.rot90(found, 1, (1, 2)).copy(), 1e-4, "float32, sums in another order")


def test_averaging_leaves_features_that_turn_with_the_image_alone():
    pixels = torch.randn(2, 3, 4, 6)
    found = average_flips_and_turns(lambda values: values.movedim(1, -1).numpy(), pixels)
    assert_close(found, pixels.movedim(1, -1), 1e-6, "float32")


def options_of(name: str) -> dict:
    return {
        "blank-channels": {"images": noise_images(2, SIZE), "count": 3},
        "flips-and-turns": {},
        "rasa": {"images": noise_images(2, SIZE), "count": 2},
        "blank-svd": {"count": 3},
    }[name]


@pytest.mark.parametrize("name", REMOVALS)
def test_every_removal_works_wherever_a_backbone_does(backbone, name):
    images = noise_images(2, 100, seed=3)
    removal = fit_removal(name, backbone, SIZE, **options_of(name))
    cleaned = replace(backbone, removal=removal)
    plain, found = (np.stack(list(dense_features(one, images, SIZE))) for one in (backbone, cleaned))
    assert found.shape == plain.shape
    assert found.dtype == np.float32
    assert np.abs(found - plain).max() > 1e-3
    batched = np.stack(list(dense_features(cleaned, images, SIZE, batch_size=2)))
    assert_close(batched, found, 1e-4, "matrix products of other shapes add up in another order")
    output = np.stack(list(dense_features(cleaned, images, SIZE, layers=[OUTPUT])))
    np.testing.assert_array_equal(output[:, 0], found)
    with pytest.raises(ValueError, match=rf"{name} is done to the output"):
        list(dense_features(cleaned, images, SIZE, layers=[1]))


def test_fitted_removals_do_what_their_parts_do(backbone):
    images = noise_images(2, SIZE)
    features = list(dense_features(backbone, images, SIZE))
    blanked = fit_removal("blank-channels", backbone, SIZE, images=images, count=3)
    assert blanked.parameters["channels"] == most_positional_channels(features, 3)
    assert blanked.parameters["fitted_on"]["images"] == 2
    (found,) = dense_features(replace(backbone, removal=blanked), images[:1], SIZE)
    assert (found[..., blanked.parameters["channels"]] == 0).all()
    given = fit_removal("blank-channels", backbone, SIZE, channels=[5, 2])
    assert given.parameters["channels"] == [5, 2]
    rasa = fit_removal("rasa", backbone, SIZE, images=images)
    (found,) = dense_features(replace(backbone, removal=rasa), images[:1], SIZE)
    assert_close(found, remove(rasa_basis(features, 9), features[0]), 1e-6, "the same sums")


@pytest.mark.parametrize(("name", "forwards"), [("flips-and-turns", 8), ("blank-channels", 1)])
def test_cost_is_measured_and_forwards_are_counted(backbone, name, forwards):
    options = {"channels": [1]} if name == "blank-channels" else {}
    removal = fit_removal(name, backbone, SIZE, **options)
    assert removal.forwards == forwards
    cleaned = with_removal(backbone, removal, SIZE)
    assert cleaned.removal.cost["seconds_per_image"] > 0
    assert cleaned.removal.cost["relative_seconds"] > 0
    passes = []
    backbone.model.register_forward_hook(lambda *_: passes.append(1))
    list(dense_features(cleaned, noise_images(1, SIZE), SIZE))
    assert len(passes) == forwards


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("magic", {}, "choose from blank-channels"),
        ("rasa", {}, "rasa needs images"),
        ("blank-channels", {}, "needs images or channels"),
        ("blank-channels", {"channels": [1], "count": 2}, "either channels, or images"),
        ("flips-and-turns", {"count": 2}, "takes nothing, not count"),
        ("blank-svd", {"count": 0}, "must be 1 or more"),
        ("blank-svd", {"count": 64}, "allow 1 to 15"),
        ("blank-channels", {"channels": [64]}, "0 to 63"),
    ],
)
def test_wrong_options_are_refused(backbone, name, options, message):
    with pytest.raises(ValueError, match=message):
        fit_removal(name, backbone, SIZE, **options)


def parse(backbone, *options):
    words = ["--model", backbone.source, "--size", SIZE, "--output", "record.json", *options]
    return record_parser("").parse_args(list(map(str, words)))


def test_options_of_a_command_choose_the_removal(backbone, tmp_path):
    assert measured_backbone(parse(backbone)).removal is None
    cleaned = measured_backbone(parse(backbone, "--removal", "blank-channels", "--removal-channels", 3, 7))
    assert cleaned.name == "model + blank-channels"
    facts = cleaned.removal.facts
    assert json.loads(json.dumps(facts)) == facts
    assert facts["parameters"]["channels"] == [3, 7]
    assert facts["cost"].keys() == {"seconds_per_image", "relative_seconds"}
    (tmp_path / "images").mkdir()
    noise_images(1, 70)[0].save(tmp_path / "images" / "noise.png")
    options = ("--removal", "rasa", "--removal-images", tmp_path / "images", "--removal-count", 1)
    assert measured_backbone(parse(backbone, *options)).removal.parameters["directions"] == 2
    with pytest.raises(ValueError, match="--removal-count needs --removal"):
        measured_backbone(parse(backbone, "--removal-count", 3))
    with pytest.raises(ValueError, match="blank-svd takes count, not channels"):
        measured_backbone(parse(backbone, "--removal", "blank-svd", "--removal-channels", 3))
