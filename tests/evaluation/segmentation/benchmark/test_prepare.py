# SPDX-License-Identifier: Apache-2.0
"""Downloads of every source become data sets of one form; made sets have exact masks and come from their seed."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from evaluation.segmentation.benchmark import prepare
from evaluation.segmentation.benchmark.sets import open_set, open_sets
from evaluation.segmentation.benchmark.sources import EMPS_ARTICLE, HORSE, SOURCES, Candidate
from evaluation.segmentation.benchmark.synthetic import RECIPES, make_image
from evaluation.semantics.miou import VOID

COUNT = 4


def disc(number: int, size=(40, 52)) -> np.ndarray:
    """A mask with a disc somewhere."""
    rows, columns = np.indices(size)
    return ((rows - 14 - number) ** 2 + (columns - 16 - 3 * number) ** 2 < 60).astype(np.uint8)


def write(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_download(folder, name: str) -> list[np.ndarray]:
    """A tiny download in the form of its source, and the masks that it should become, in order."""
    truths = []
    for number in range(COUNT):
        mask = disc(number)
        image = np.where(mask[..., None] > 0, [90, 30, 150], [230, 200, 240]).astype(np.uint8)
        if name in ("superalloy", "em_vnc"):
            mask[:8] = 2
            stem = SOURCES[name].train[number % 3] if name == "superalloy" and number < 3 else f"{number}"
            write(folder / "images" / f"{stem}.png", image)
            write(folder / "masks" / f"{stem}.png", mask)
        elif name == "particles":
            write(folder / "images" / f"{number}.png", image)
            write(folder / "segmaps" / f"{number}.png", mask.astype(np.uint16) * 300)
        elif name in ("tissue", "fluorescence"):
            if name == "fluorescence":
                image = np.repeat(image[..., :1], 3, axis=-1)
            write(folder / "stage1_train" / f"{name}{number}" / "images" / "image.png", image)
            half = np.arange(mask.shape[1]) < 20
            for part, region in enumerate((half, ~half)):
                write(folder / f"stage1_train/{name}{number}/masks/{part}.png", (mask * region * 255).astype(np.uint8))
        elif name == "cracks":
            mask[0, 0] = VOID
            values = np.where(mask == VOID, 3, mask + 1)
            (folder / "groundTruth").mkdir(parents=True, exist_ok=True)
            savemat(folder / "groundTruth" / f"{number}.mat", {"groundTruth": {"Segmentation": values}})
            write(folder / "image" / f"{number}.jpg", image)
        elif name == "horses":
            values = np.where(mask > 0, HORSE, 15).astype(np.uint8)
            values[:, 0] = mask[:, 0] = VOID
            part = folder / ("train" if number % 2 else "validation")
            write(part / "images" / f"{number}.jpg", image)
            write(part / "masks" / f"{number}.png", values)
        truths.append(mask)
    if name == "particles":
        rows = [f"{number}.png,{EMPS_ARTICLE}\n" for number in range(COUNT)] + ["other.png,another article\n"]
        (folder / "metadata.csv").write_text("filename,doi\n" + "".join(rows))
    return truths


@pytest.mark.parametrize("name", SOURCES)
def test_download_becomes_a_data_set(tmp_path, monkeypatch, name):
    monkeypatch.setattr(prepare, "TRAIN", 2)
    source = SOURCES[name]
    truths = write_download(tmp_path / "downloads" / source.folder, name)
    if name in ("tissue", "fluorescence"):  # both are in one download and must be told apart
        write_download(tmp_path / "downloads" / source.folder, {"tissue": "fluorescence"}.get(name, "tissue"))
    (line,) = prepare.prepare(tmp_path / "downloads", tmp_path / "data", [name])
    assert line == f"{name}: 2 images to draw on, {1 if name == 'superalloy' else 2} to test on"
    found = open_set(tmp_path / "data" / name)
    assert found.facts.classes == source.classes
    assert found.facts.licence == source.licence
    masks = [data.pair(index)[1] for data in (found.train, found.test) for index in range(len(data))]
    for mask in masks:
        assert any(np.array_equal(mask, truth) for truth in truths)
    assert len({mask.tobytes() for mask in masks}) == len(masks)


def test_missing_download_is_named_and_left_out(tmp_path):
    (tmp_path / "downloads").mkdir()
    for downloads in (tmp_path / "downloads", None):
        (line,) = prepare.prepare(downloads, tmp_path / "data", ["particles"])
        assert line.startswith("particles: left out")
        assert "github.com/by256/emps" in line
    assert not (tmp_path / "data").exists()


def test_download_without_enough_of_a_class_is_refused(tmp_path):
    write_download(tmp_path / "emps", "particles")
    for path in (tmp_path / "emps" / "segmaps").iterdir():
        Image.fromarray(np.zeros((40, 52), dtype=np.uint16)).save(path)
    with pytest.raises(ValueError, match="show enough of background, particle"):
        list(prepare.prepare(tmp_path, tmp_path / "data", ["particles"]))
    assert not (tmp_path / "data").exists()


def test_centre_is_cut_out_of_image_and_mask_alike():
    image = np.random.default_rng(0).integers(0, 256, (700, 300, 3), dtype=np.uint8)
    cut = prepare.centre(Candidate("a", image, image[..., 0]))
    assert cut.mask.shape == (512, 300)
    np.testing.assert_array_equal(cut.mask, image[94:606, :, 0])
    np.testing.assert_array_equal(cut.image[..., 0], cut.mask)


@pytest.mark.parametrize("name", RECIPES)
def test_made_images_come_from_their_seed_and_have_every_class(name):
    recipe = RECIPES[name]
    image, mask = make_image(recipe, 3)
    np.testing.assert_array_equal(image, make_image(recipe, 3)[0])
    assert (image != make_image(recipe, 4)[0]).mean() > 0.5
    assert image.dtype == np.uint8
    assert prepare.shares(mask, len(recipe.classes)).min() > prepare.LEAST
    assert prepare.shares(mask, len(recipe.classes)).sum() == pytest.approx(1)


def test_classes_of_coatings_follow_position_and_those_of_a_tomogram_do_not():
    for name, recipe in RECIPES.items():
        masks = np.stack([make_image(recipe, seed)[1] for seed in range(4)])
        rows = masks.mean(axis=(0, 2))
        assert (np.ptp(rows) > 1.5) == recipe.by_position, name


def test_command_makes_what_needs_no_download(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        prepare.main(["--output", str(tmp_path / "data"), "--sets", "made-layers", "tissue"])
    assert ended.value.code == 0
    assert "made-layers: 5 images to draw on, 8 to test on\ntissue: left out" in capsys.readouterr().out
    (made,) = open_sets(tmp_path / "data")
    assert made.facts.by_position
    assert (len(made.train), len(made.test)) == (5, 8)


def test_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="Make some with"):
        open_sets(tmp_path)
    with pytest.raises(FileNotFoundError, match="no data set of the benchmark"):
        open_sets(tmp_path, ["rocks"])
    list(prepare.prepare(None, tmp_path, ["made-ct"]))
    facts = tmp_path / "made-ct" / "facts.json"
    for wrong in ("{", "[]", json.dumps({"classes": ["pore"]})):
        facts.write_text(wrong)
        with pytest.raises(ValueError, match="damaged or was edited"):
            open_set(tmp_path / "made-ct")
