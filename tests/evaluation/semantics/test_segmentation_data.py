# SPDX-License-Identifier: Apache-2.0
"""Every layout gives the same images and classes; what does not fit together is refused by name."""

import io

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from evaluation.semantics.miou import VOID
from evaluation.semantics.segmentation_data import VOC_NAMES, Labels, describe, folder_samples, open_data, read_mask

RANDOM = np.random.default_rng(0)
IMAGES = [Image.fromarray(RANDOM.integers(0, 256, (20 + n, 30, 3), dtype=np.uint8)) for n in range(4)]
MASKS = [RANDOM.choice([0, 3, 8, 255], (20 + n, 30)).astype(np.uint8) for n in range(4)]
LABELS = Labels((0, 8), ("ground", "cat"), others_void=True)


def save_mask(mask: np.ndarray, path) -> None:
    """A palette image, as VOC's masks are."""
    picture = Image.fromarray(mask).convert("P")
    picture.putdata(mask.ravel().tolist())
    picture.putpalette(list(range(256)) * 3)
    picture.save(path)


@pytest.fixture
def write(tmp_path):
    """`write(image_folder, mask_folder, numbers, suffix)`: write some of the images and masks."""

    def write(images: str, masks: str, numbers, suffix: str = "png"):
        for folder in (images, masks):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            IMAGES[number].save(tmp_path / images / f"n{number}.{suffix}")
            save_mask(MASKS[number], tmp_path / masks / f"n{number}.png")
        return tmp_path

    return write


def as_parquet(folder, split: str, numbers) -> None:
    def content(image: Image.Image) -> dict:
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    rows = {
        "photo": [content(IMAGES[number]) for number in numbers],
        "annotation": [content(Image.fromarray(MASKS[number])) for number in numbers],
    }
    folder.mkdir(exist_ok=True)
    Dataset.from_dict(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")


@pytest.mark.parametrize("layout", ["splits", "val", "one folder", "VOC", "parquet"])
def test_layouts_give_the_same_data(write, tmp_path, layout, monkeypatch):
    options = {}
    folder = tmp_path
    if layout in ("splits", "val"):
        name = "validation" if layout == "splits" else "val"
        for split, numbers in (("train", (0, 1, 2)), (name, (3,))):
            write(f"{split}/images", f"{split}/masks", numbers)
    elif layout == "one folder":
        write("images", "masks", range(4))
        options["train_names"] = ["n0", "n1", "n2"]
    elif layout == "VOC":
        write("JPEGImages", "SegmentationClass", range(4), "jpg")
        lists = tmp_path / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("n0\nn1\nn2\n")
        (lists / "val.txt").write_text("n3\n")
    else:
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        folder = tmp_path / "table"
        as_parquet(folder, "train", (0, 1, 2))
        as_parquet(folder, "validation", (3,))
        options["columns"] = ("photo", "annotation")
    train, validation = open_data(folder, LABELS, **options)
    assert (len(train), len(validation)) == (3, 1)
    assert train.split == "train"
    pairs = [train.pair(0), train.pair(1), train.pair(2), validation.pair(0)]
    for (image, mask), expected, values in zip(pairs, IMAGES, MASKS, strict=True):
        if layout != "VOC":
            np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
        np.testing.assert_array_equal(mask, np.where(values == 8, 1, np.where(values == 0, 0, VOID)))
        assert mask.dtype == np.uint8


def test_ade20k_leaves_0_out(tmp_path, write):
    for split, number in (("training", 0), ("validation", 1)):
        write(f"images/{split}", f"annotations/{split}", [number], "jpg")
        values = np.clip(MASKS[number], 0, 150)
        save_mask(values, tmp_path / "annotations" / split / f"n{number}.png")
    train, validation = open_data(tmp_path)
    assert len(train.labels) == 150
    expected = np.clip(MASKS[1], 0, 150).astype(int) - 1
    np.testing.assert_array_equal(validation.mask(0), np.where(expected < 0, VOID, expected))


def test_voc_has_its_21_classes(write):
    folder = write("JPEGImages", "SegmentationClass", range(2), "jpg")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("n0\n")
    with pytest.raises(FileNotFoundError, match=r"val\.txt"):
        open_data(folder)
    (lists / "val.txt").write_text("n1\nn2\n")
    with pytest.raises(ValueError, match=r"n2\.jpg is missing, although .*val\.txt has it"):
        open_data(folder)
    (lists / "val.txt").write_text("n1\n")
    train, _ = open_data(folder)
    assert train.labels.class_names == VOC_NAMES
    np.testing.assert_array_equal(train.mask(0), MASKS[0])


def test_fingerprint_covers_images_masks_and_classes(write, tmp_path):
    write("train/images", "train/masks", (0, 1))
    write("val/images", "val/masks", (2, 3))

    def fingerprint(labels=LABELS):
        return describe(open_data(tmp_path, labels)[1]).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(Labels((0, 3), others_void=True)) != first
    IMAGES[0].resize((30, 22)).save(tmp_path / "val" / "images" / "n2.png")
    second = fingerprint()
    assert second != first
    mask = MASKS[2].copy()
    mask[0, 0] = 8 if mask[0, 0] != 8 else 0
    save_mask(mask, tmp_path / "val" / "masks" / "n2.png")
    assert fingerprint() not in (first, second)


def test_nothing_is_read_before_it_is_asked_for(write, tmp_path):
    write("train/images", "train/masks", (0, 1))
    write("val/images", "val/masks", (2,))
    (tmp_path / "train" / "images" / "n1.png").write_bytes(b"no image")
    train, _ = open_data(tmp_path, LABELS)
    train.pair(0)
    with pytest.raises(ValueError, match=r"n1\.png cannot be read as an image"):
        describe(train)


def test_mask_of_another_size_is_refused_by_name(write, tmp_path):
    write("train/images", "train/masks", (0,))
    write("val/images", "val/masks", (1,))
    save_mask(MASKS[0][:-1], tmp_path / "train" / "masks" / "n0.png")
    with pytest.raises(ValueError, match=r"masks/n0\.png has 30×19 pixels, its image 30×20"):
        describe(open_data(tmp_path, LABELS)[0])


def test_unknown_labels_are_refused_by_name(write, tmp_path):
    write("train/images", "train/masks", (0,))
    write("val/images", "val/masks", (1,))
    with pytest.raises(ValueError, match=r"masks/n0\.png has unknown labels: 3\. The classes are 0, 8"):
        describe(open_data(tmp_path, Labels((0, 8)))[0])


@pytest.mark.parametrize("what", ["image", "mask"])
def test_missing_partner_is_refused_by_name(write, tmp_path, what):
    write("images", "masks", (0, 1))
    (tmp_path / f"{what}s" / "n1.png").unlink()
    with pytest.raises(ValueError, match=rf"n1\.png: there is no {what} of the same name"):
        folder_samples(tmp_path / "images", tmp_path / "masks")


def test_two_files_of_one_name_are_refused(write, tmp_path):
    write("images", "masks", (0,))
    IMAGES[0].save(tmp_path / "images" / "n0.jpg")
    with pytest.raises(ValueError, match=r"n0\.jpg and .*n0\.png differ in the suffix only"):
        folder_samples(tmp_path / "images", tmp_path / "masks")


def test_masks_must_be_labels(tmp_path):
    IMAGES[0].save(tmp_path / "colours.png")
    with pytest.raises(ValueError, match=r"colours\.png has colours; labels are one number for each pixel"):
        read_mask(tmp_path / "colours.png", "colours.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "colours.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image"):
        read_mask(tmp_path / "broken.png", "broken.png")
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png", "bits.png"), [[1, 0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": (0,)}, "give 2 or more classes"),
        ({"values": (0, 1, 1)}, "each value once"),
        ({"values": (0, 255)}, r"\[255\] is void"),
        ({"values": (0, 300)}, "values in a mask are 0 to 255"),
        ({"values": (0, 1), "names": ("a",)}, "1 names for 2 classes"),
    ],
)
def test_classes_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Labels(**options)


def test_folders_without_splits_or_classes_are_refused(write, tmp_path):
    write("images", "masks", range(3))
    with pytest.raises(ValueError, match="has no splits: name some, not all, of its 3 images"):
        open_data(tmp_path, LABELS)
    with pytest.raises(ValueError, match="has no images n7; images are n0, n1"):
        open_data(tmp_path, LABELS, train_names=["n7"])
    with pytest.raises(ValueError, match=r"classes of .* are not known"):
        open_data(tmp_path, train_names=["n0"])


def test_tables_without_columns_or_splits_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    as_parquet(tmp_path / "table", "train", (0,))
    with pytest.raises(ValueError, match="table has train; it needs train and one of validation, val, test"):
        open_data(tmp_path / "table", LABELS)
    as_parquet(tmp_path / "table", "validation", (1,))
    with pytest.raises(ValueError, match="table train has no column image, mask; it has photo, annotation"):
        open_data(tmp_path / "table", LABELS)
