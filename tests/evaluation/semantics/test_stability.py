# SPDX-License-Identifier: Apache-2.0
"""Views show the same content where they are compared, and a feature that depends on the place alone is found out."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from alibi_dinov2.features.backbone import Backbone
from evaluation.position.noise import noise_images
from evaluation.report.card import by_model, results_table
from evaluation.report.records import describe_images
from evaluation.semantics.stability import (
    BORDER,
    compare,
    cosines,
    longest_token,
    main,
    measure,
    move_of,
    phases_of_patches,
    same_phase,
    square,
    views,
)
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

SIZE, PATCH = 140, 14


@pytest.fixture
def image():
    """A smooth picture, as JPEG and resizing like them."""
    return noise_images(1, 30)[0].resize((400, 300), Image.Resampling.BICUBIC)


def test_views_show_the_same_where_they_are_compared(image):
    seen = {
        name: np.asarray(view).astype(int) for name, view in views(image, SIZE, PATCH, np.random.default_rng(0)).items()
    }
    assert {view.shape for view in seen.values()} == {(SIZE, SIZE, 3)}
    here, move = seen["here"], move_of(SIZE, PATCH) * PATCH
    np.testing.assert_array_equal(here[move:, move:], seen["moved"][:-move, :-move])
    np.testing.assert_array_equal(here[:, 7:], seen["half_patch"][:, :-7])
    noise = seen["noise"] - here
    inner = noise[(here > 20) & (here < 235)]
    assert inner.std() == pytest.approx(4, rel=0.05)
    assert inner.mean() == pytest.approx(0, abs=0.2)
    assert 0 < np.abs(seen["jpeg"] - here).mean() < 5


def test_features_of_the_content_are_perfectly_stable_and_those_of_the_place_are_not():
    random = np.random.default_rng(0)
    content = random.normal(size=(13, 13, 6))
    stable = dict.fromkeys(("here", "noise", "jpeg"), content[:10, :10]) | {"moved": content[3:, 3:]}
    stable["half_patch"] = (content[:10, :10] + content[:10, 1:11]) / 2
    found = compare(stable, 3, random)
    for name in ("moved", "moved_border", "moved_inside", "half_patch", "noise", "jpeg"):
        assert found[name] == pytest.approx(1), name
    assert abs(found["any_two"]) < 0.2
    placed = stable | {"moved": content[:10, :10]}
    assert abs(compare(placed, 3, random)["moved"]) < 0.3


def test_what_a_seam_does_shows_in_the_border_alone():
    content = np.random.default_rng(0).normal(size=(13, 13, 6))
    here, moved = content[:10, :10].copy(), content[3:, 3:].copy()
    moved[:BORDER] *= -1
    here[:, -BORDER:] *= -1
    found = compare(
        dict.fromkeys(("here", "half_patch", "noise", "jpeg"), here) | {"moved": moved}, 3, np.random.default_rng(0)
    )
    assert found["moved_inside"] == pytest.approx(1)
    assert found["moved_border"] < 0.5


def test_cosines_are_those_of_the_definition():
    first, second = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    expected = first[1, 2] @ second[1, 2] / np.linalg.norm(first[1, 2]) / np.linalg.norm(second[1, 2])
    assert cosines(first, second)[1, 2] == pytest.approx(expected)
    assert cosines(np.zeros((2, 3)), np.ones((2, 3))).tolist() == [0, 0]


def test_neighbours_are_of_one_phase_and_void_is_none():
    mask = np.zeros((6, 8), dtype=int)
    mask[:, 4:] = 1
    mask[4:, 6:] = 255
    phases = phases_of_patches(mask, 2)
    assert phases.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, -1]]
    mask[0, 0] = 1
    assert phases_of_patches(mask, 2)[0, 0] == -1
    features = np.stack([phases == 1, phases == 0, phases == -1], axis=-1).astype(float)
    # Pairs to the right: 3 in the left phase, 2 in the right; below each other: 4 and 3.
    assert same_phase(features, phases) == [1.0] * 12
    assert same_phase(features, np.arange(12).reshape(3, 4)) == []


def test_rolled_windows_would_be_alike_for_the_torus_model_but_windows_are_not_rolled(tiny_model, image):
    """A moved window has other content at its far border, so that even a model without position gives less than 1."""
    backbone = Backbone(tiny_model(), Dinov2AlibiImageProcessor(), "tiny", "tiny")
    metrics = measure(backbone, [image], describe_images("one", [image]), SIZE)["metrics"]
    assert 0.2 < metrics["moved_centred"] < 0.99999
    assert metrics["noise"] > metrics["any_two"]
    assert metrics["jpeg"] > metrics["any_two"]


def test_the_teachers_place_makes_its_features_less_stable(tiny_teacher, tiny_model, image):
    teacher = tiny_teacher()
    with torch.no_grad():
        teacher.embeddings.position_embeddings.mul_(30)  # a random one is small beside the content
    found = {}
    for name, model in (("teacher", teacher), ("student", tiny_model())):
        backbone = Backbone(model, Dinov2AlibiImageProcessor(), name, name)
        found[name] = measure(backbone, [image], describe_images("one", [image]), SIZE)["metrics"]["moved_centred"]
    assert found["student"] > found["teacher"] + 0.1


def test_what_all_images_have_at_a_place_is_no_part_of_placeless_figures(tiny_teacher):
    """Images of noise have nothing in common but what the teacher adds at each place."""
    images, metrics = noise_images(6, 154), {}
    for strength in (0.0, 3.0):
        teacher = tiny_teacher()
        embeddings = teacher.embeddings.position_embeddings
        side = round((embeddings.shape[1] - 1) ** 0.5)
        rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
        ramps = torch.randn(2, embeddings.shape[2], generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            embeddings[0, 1:] = strength * torch.stack([rows.flatten(), columns.flatten()], dim=1) @ ramps
        backbone = Backbone(teacher, Dinov2AlibiImageProcessor(), "teacher", "teacher")
        metrics[strength] = measure(backbone, images, describe_images("noise", images), SIZE)["metrics"]
    for name in ("moved", "half_patch"):
        centred, placeless = (
            abs(metrics[3.0][f"{name}_{kind}"] - metrics[0.0][f"{name}_{kind}"]) for kind in ("centred", "placeless")
        )
        assert centred > 0.05, name
        assert placeless < centred / 2, name
    assert "moved_placeless" not in measure(backbone, images[:1], describe_images("one", images[:1]), SIZE)["metrics"]


def test_a_token_of_high_norm_is_found(tiny_teacher, image):
    found = {}
    for factor in (1, 1000):
        teacher = tiny_teacher()
        with torch.no_grad():
            teacher.embeddings.position_embeddings[0, 7].mul_(factor)
        backbone = Backbone(teacher, Dinov2AlibiImageProcessor(), "teacher", "teacher")
        found[factor] = longest_token(backbone, square(image, SIZE), SIZE)
        pixels = backbone.processor(square(image, SIZE), do_resize=False, do_center_crop=False, return_tensors="pt")
        with torch.no_grad():
            tokens = teacher(**pixels, output_hidden_states=True).hidden_states[-1][0, -((SIZE // PATCH) ** 2) :]
        lengths = tokens.norm(dim=-1).numpy()
        # Sums of float32 in another order.
        assert found[factor] == pytest.approx(lengths.max() / np.median(lengths), rel=1e-4)
    assert found[1] < 3 < 10 < found[1000]


def test_square_is_the_centre(image):
    assert square(image, 300).tobytes() == image.crop((50, 0, 350, 300)).tobytes()


@pytest.fixture
def folder(tmp_path, tiny_model, image):
    tiny_model().save_pretrained(tmp_path / "model")
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path / "model")
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    image.save(tmp_path / "images" / "a.png")
    Image.fromarray((np.indices((300, 400))[1] > 200).astype(np.uint8)).save(tmp_path / "masks" / "a.png")
    return tmp_path


def words(folder, *more):
    options = [
        "--model",
        folder / "model",
        "--images",
        folder / "images",
        "--size",
        SIZE,
        "--output",
        folder / "r.json",
    ]
    return list(map(str, [*options, *more]))


def test_command_writes_a_record_that_the_table_knows(folder):
    with pytest.raises(SystemExit) as ended:
        main(words(folder, "--masks", folder / "masks"))
    assert not ended.value.code
    record = json.loads((folder / "r.json").read_text())
    assert 0 < record["metrics"]["same_phase"] <= 1
    assert {"same_phase_centred", "longest_token", "longest_token_std"} <= record["metrics"].keys()
    assert "another crop position" in results_table(by_model([record]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--size", 100), "The size is 100; it must be a multiple of the patch size, 14 pixels, of 8 patches or more"),
        (("--images", "nowhere"), "nowhere is not a folder"),
        (("--masks", "nowhere"), "nowhere"),
    ],
)
def test_wrong_input_is_named(folder, capsys, more, message):
    with pytest.raises(SystemExit) as ended:
        main(words(folder, *more))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (folder / "r.json").exists()
