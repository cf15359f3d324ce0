# SPDX-License-Identifier: Apache-2.0
"""Arranged images hold the same patches; a model without position cannot tell them apart, one with the bias can."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from alibi_dinov2.features.backbone import Backbone
from evaluation.position.noise import noise_images
from evaluation.report.records import describe_images
from evaluation.semantics.arrangement import (
    IN_PLACE,
    PATTERNS,
    QUESTIONS,
    SHUFFLED,
    Settings,
    by_patch,
    draw_arrangements,
    draw_set,
    features_of_orders,
    main,
    measure,
    prepare,
    probe,
    relative_change,
)
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

SMALL = Settings(grid=8, sets=4, orders=4, test_orders=1, source=140)


@pytest.fixture
def micrographs():
    """Four images of slight noise, two dark and two bright, of each to fit and to test on."""
    return [
        image.point(lambda value, dark=number % 2: (60 if dark else 180) + value // 8)
        for number, image in enumerate(noise_images(4, 150))
    ]


@pytest.fixture
def backbone(tiny_model):
    """`backbone(dtype, **overrides)`: a tiny model as a backbone."""

    def make(dtype=torch.float32, **overrides) -> Backbone:
        return Backbone(tiny_model(**overrides).to(dtype), Dinov2AlibiImageProcessor(), "tiny", "tiny")

    return make


def arranged_of(images, seed=0):
    random = np.random.default_rng(seed)
    return draw_arrangements(draw_set([np.asarray(image) for image in images], (14, 14), 8, random), 8, random)


def orders_of(backbone, micrographs, seed=0):
    random = np.random.default_rng(seed)
    patch_set = draw_set(prepare(micrographs, (14, 14), SMALL), (14, 14), SMALL.grid, random)
    return features_of_orders(backbone, patch_set, SMALL, random)


def patches_in(pixels):
    """The patches of an image in an order that does not depend on where they are."""
    rows, columns = pixels.shape[0] // 14, pixels.shape[1] // 14
    patches = pixels.reshape(rows, 14, columns, 14, 3).swapaxes(1, 2).reshape(rows * columns, -1)
    return sorted(patch.tobytes() for patch in patches)


def test_all_arrangements_of_a_set_hold_the_same_patches(micrographs):
    arranged = arranged_of(micrographs)
    assert set(arranged) == {name for names in QUESTIONS.values() for name in names}
    for names in (PATTERNS, (IN_PLACE, SHUFFLED)):
        contents = [patches_in(arranged[name].pixels) for name in names]
        assert all(content == contents[0] for content in contents)
    for one in arranged.values():
        assert sorted(one.order.ravel()) == list(range(64))
    # Numbers say where a patch is: those of the same number show the same.
    first, second = (arranged[name] for name in ("checkerboard", "halves"))
    for number in (0, 31, 63):
        (row, column), (other_row, other_column) = (np.argwhere(one.order == number)[0] for one in (first, second))
        np.testing.assert_array_equal(
            first.pixels[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14],
            second.pixels[other_row * 14 : other_row * 14 + 14, other_column * 14 : other_column * 14 + 14],
        )


def test_patterns_are_what_they_are_called(micrographs):
    images = [np.full((150, 150, 3), value, dtype=np.uint8) for value in (50, 200)]
    for seed in range(6):
        arranged = arranged_of(images, seed)
        kinds = {name: (arranged[name].order < 32).astype(int) for name in PATTERNS}
        assert all(kind.sum() == 32 for kind in kinds.values())
        across, along, board, blocks, halves = (kinds[name] for name in PATTERNS)
        assert (across == across[:, :1]).all()
        assert (along == along[:1]).all()
        assert (board != np.roll(board, 1, axis=0)).all()
        assert (board != np.roll(board, 1, axis=1)).all()
        # Neighbours of the other kind, over right and lower neighbours on the torus: 4 cuts of 8 each a direction.
        cuts = {name: sum((kind != np.roll(kind, 1, axis)).sum() for axis in (0, 1)) for name, kind in kinds.items()}
        assert [cuts[name] for name in PATTERNS] == [32, 32, 128, 32, 16]
        assert (blocks != np.roll(blocks, 4, axis=0)).all()
        assert (halves == halves[:1]).all() or (halves == halves[:, :1]).all()


def test_patches_are_shuffled_within_their_neighbourhood_only(micrographs):
    arranged = arranged_of(micrographs, 1)
    order, shuffled = arranged[IN_PLACE].order, arranged[SHUFFLED].order
    np.testing.assert_array_equal(order, np.arange(64).reshape(8, 8))
    assert (order != shuffled).mean() > 0.7
    for row in (0, 4):
        for column in (0, 4):
            parts = [array[row : row + 4, column : column + 4] for array in (order, shuffled)]
            assert set(parts[0].ravel()) == set(parts[1].ravel())


def test_features_come_back_in_the_order_of_the_patches():
    order = np.random.default_rng(0).permutation(12).reshape(3, 4)
    features = np.stack([order, order * 10], axis=-1)
    assert by_patch(features, order).tolist() == [[number, number * 10] for number in range(12)]


def test_a_model_without_position_gives_a_patch_the_same_feature_in_every_arrangement(backbone, micrographs):
    """Exactly: in double precision nothing but rounding is left, and with the bias it is another feature."""
    for entry in orders_of(backbone(torch.float64, position_encoding="none"), micrographs):
        for question in QUESTIONS:
            # float64, rounded to float32 at the end: 6e-8 of each channel at most.
            assert relative_change(entry, question) < 1e-7
    for entry in orders_of(backbone(alibi_slope=5.0), micrographs):
        for question in QUESTIONS:
            assert relative_change(entry, question) > 1e-3


def test_all_orders_of_a_set_hold_the_same_patches_elsewhere(micrographs):
    random = np.random.default_rng(0)
    patch_set = draw_set([np.asarray(image) for image in micrographs], (14, 14), 8, random)
    first, second = (draw_arrangements(patch_set, 8, random) for _ in range(2))
    for name in first.keys() - {IN_PLACE}:
        assert patches_in(first[name].pixels) == patches_in(second[name].pixels)
        assert (first[name].order != second[name].order).any()


def test_bias_of_distances_tells_patterns_and_no_directions(backbone, micrographs):
    """With a strong bias; the features of two arrangements that mirror each other in the diagonal are alike for it."""
    micrographs = micrographs[:2]  # a dark one and a bright one in every set
    dataset = describe_images("noise", micrographs)
    many = replace(SMALL, sets=12, orders=10, test_orders=2)
    alibi = measure(backbone(alibi_slope=5.0), micrographs, dataset, many)["metrics"]
    nope = measure(backbone(position_encoding="none"), micrographs, dataset, many)["metrics"]
    assert alibi["patterns"] > 0.5
    # 12 sets of 64 answers: a standard error of .02 if answers were independent, which those of a set are not.
    assert alibi["stripes"] == pytest.approx(1 / 2, abs=0.1)
    assert nope["patterns"] == pytest.approx(1 / 3, abs=0.1)
    assert nope["stripes"] == pytest.approx(1 / 2, abs=0.1)
    assert nope["shuffles"] == pytest.approx(1 / 2, abs=0.1)
    assert nope["change_patterns"] < 1e-5 < alibi["change_patterns"]


def test_probe_tells_what_can_be_told_and_guesses_the_rest():
    random = np.random.default_rng(0)
    patches = random.normal(size=(640, 10)) * np.linspace(10, 0.1, 10)

    def told(shift):
        noise = [random.normal(size=(2, 640, 10)) * 0.01 for _ in range(6)]
        orders = [{IN_PLACE: patches + one[0], SHUFFLED: patches + one[1] + shift * np.eye(10)[9]} for one in noise]
        return probe(orders, "shuffles", 2, np.random.default_rng(1))

    # Two standard deviations of the smallest channel, a fiftieth of the largest; a normal distribution gives .84.
    assert told(0.2) == pytest.approx(0.84, abs=0.05)
    assert told(0.0) == pytest.approx(0.5, abs=0.07)


def test_probe_is_tested_on_patches_and_orders_that_it_was_not_fitted_on():
    """Features that say which patch it is and which order, and nothing else, tell nothing."""
    random = np.random.default_rng(0)
    patches = random.normal(size=(640, 4))
    of_order = random.normal(size=(8, 2, 4))
    orders = [{IN_PLACE: patches + one[0], SHUFFLED: patches + one[1]} for one in of_order]
    told = [probe([*orders[:4], orders[4 + number]], "shuffles", 1, random) for number in range(4)]
    assert np.mean(told) < 0.8
    assert probe([orders[0], orders[0]], "shuffles", 1, random) > np.mean(told)


@pytest.fixture
def folder(tmp_path, tiny_model, micrographs):
    for name, overrides in (("alibi", {}), ("nope", {"position_encoding": "none"})):
        tiny_model(**overrides).save_pretrained(tmp_path / name)
        Dinov2AlibiImageProcessor().save_pretrained(tmp_path / name)
    (tmp_path / "steel").mkdir()
    for number, image in enumerate(micrographs):
        image.save(tmp_path / "steel" / f"{number}.png")
    return tmp_path


def words(folder, *more):
    options = [
        "--models",
        folder / "alibi",
        folder / "nope",
        "--images",
        folder / "steel",
        "--grid",
        8,
        "--source",
        140,
    ]
    options += ["--sets", 2, "--orders", 3, "--test-orders", 1]
    options += ["--output-folder", folder / "records", "--figure", folder / "figure.png", *more]
    return list(map(str, options))


def test_command_writes_a_record_per_model_and_a_picture(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words(folder))
    assert not ended.value.code
    with Image.open(folder / "figure.png") as picture:
        assert picture.format == "PNG"
    for name in ("alibi", "nope"):
        record = json.loads((folder / "records" / f"arrangement-steel-{name}-112.json").read_text())
        assert {*QUESTIONS, *(f"change_{question}" for question in QUESTIONS)} <= record["metrics"].keys()
        assert record["parameters"]["grid"] == 8
        assert str(folder) not in json.dumps(record)
    assert "change_shuffles" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--grid", 12), "The grid is 12; it must be a multiple of 8"),
        (("--source", 98), "7×7 patches at 98 pixels; the grid needs 8 a side"),
        (("--test-orders", 3), "2 sets of 3 orders, 3 of them to test on"),
        (("--sets", 0), "There are 0 sets"),
        (("--images", "nowhere"), "nowhere is not a folder"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(folder, capsys, more, message):
    with pytest.raises(SystemExit) as ended:
        main(words(folder, *more))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (folder / "figure.png").exists()


def test_too_few_images_and_overlapping_patches_are_refused(micrographs, backbone):
    with pytest.raises(ValueError, match="There are 1 images; patches of two are arranged"):
        measure(backbone(), micrographs[:1], describe_images("few", micrographs[:1]), SMALL)
    with pytest.raises(ValueError, match="overlap"):
        measure(backbone(patch_stride=7), micrographs, describe_images("noise", micrographs), SMALL)
