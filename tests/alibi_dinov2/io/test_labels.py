# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from alibi_dinov2.io.image_regions import ArrayImage
from alibi_dinov2.io.labels import as_label_maps, read_labels, to_labels, write_labels

SHAPE = (6, 8)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.float32])
def test_labels_of_any_type_become_bytes(dtype):
    labels = np.zeros(SHAPE, dtype=dtype)
    labels[2, 3] = 1
    found = to_labels(labels, SHAPE, "labels")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels.astype(int))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((8, 6)), r"shape \(8, 6\), its image \(6, 8\)"),
        (np.full(SHAPE, 0.5), "fractions or NaN"),
        (np.full(SHAPE, np.nan), "fractions or NaN"),
        (np.full(SHAPE, np.inf), "values from inf"),
        (np.full(SHAPE, -1), "values from -1"),
        (np.full(SHAPE, 256), "classes are 1 to 255"),
        (np.full(SHAPE, "a"), "labels are integers"),
        (np.zeros((*SHAPE, 3)), "one number for each pixel"),
    ],
)
def test_what_are_no_labels_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        to_labels(labels, SHAPE, "labels")


def test_labels_belong_to_images_and_slices():
    image, stack = ArrayImage(np.zeros(SHAPE)), ArrayImage(np.zeros((2, *SHAPE)))
    labels = np.ones(SHAPE, dtype=np.uint8)
    assert len(as_label_maps(labels, [image])) == 1
    found = as_label_maps([labels, np.stack([labels, 2 * labels])], [image, stack])
    assert [page.max() for page in found] == [1, 1, 2]
    with pytest.raises(ValueError, match="labels for 3 images, and 2 images"):
        as_label_maps([labels] * 3, [image] * 2)
    with pytest.raises(ValueError, match="The label image 2 has shape"):
        as_label_maps([labels, labels.T], [image, image])


class Array:
    """Not an array, but NumPy can make one of it."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype=dtype)


@pytest.mark.parametrize("kind", [torch.from_numpy, Array, np.ndarray.tolist], ids=["tensor", "__array__", "list"])
@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("listed", [False, True])
def test_whatever_numpy_understands_is_an_array(kind, slices, listed):
    shape = (slices, *SHAPE) if slices > 1 else SHAPE
    labels = np.random.default_rng(0).integers(0, 3, shape, dtype=np.uint8)
    image = ArrayImage(np.zeros(shape))
    given = [kind(labels)] if listed else kind(labels)
    np.testing.assert_array_equal(as_label_maps(given, [image]), labels.reshape(-1, *SHAPE))
    pair = as_label_maps([kind(labels), labels], [image, image])
    np.testing.assert_array_equal(pair, np.concatenate([labels.reshape(-1, *SHAPE)] * 2))


@pytest.mark.parametrize("labels", [[[1, 2], [1]], "labels", [object()], {"labels": 1}])
def test_what_is_no_array_is_refused_in_our_words(labels):
    with pytest.raises(ValueError, match=r"cannot be read as an array|has shape|labels are integers"):
        as_label_maps(labels, [ArrayImage(np.zeros(SHAPE))])


def test_a_wrong_shape_has_one_remedy():
    labels = np.zeros((3, 6, 7), dtype=np.uint8)
    with pytest.raises(
        ValueError,
        match=r"has shape \(3, 6, 7\), but image 1 is a stack of 2 slices of 6×8 pixels .*"
        r"have the shape \(2, 6, 8\)\.$",
    ):
        as_label_maps(labels, [ArrayImage(np.zeros((2, *SHAPE)))])
    with pytest.raises(ValueError, match=r"but image 1 is one of 6×8 pixels .* have the shape \(6, 8\)\.$"):
        as_label_maps(labels, [ArrayImage(np.zeros(SHAPE))])


FILE_LABELS = np.random.default_rng(0).integers(0, 4, (50, 66), dtype=np.uint8)
LABEL_FILES = {
    "grey.png": Image.fromarray(FILE_LABELS),
    "rgb.png": Image.fromarray(np.stack([FILE_LABELS] * 3, axis=-1)),
    "rgba.png": Image.fromarray(np.stack([FILE_LABELS] * 3 + [FILE_LABELS * 0 + 255], axis=-1)),
    "palette.png": "palette",
    "palette.tif": "palette",
    "lzw.tif": "lzw",
    "uint8.tif": FILE_LABELS,
    "int16.tif": FILE_LABELS.astype(np.int16),
    "int64.tif": FILE_LABELS.astype(np.int64),
    "float.tif": FILE_LABELS.astype(np.float32),
}


@pytest.mark.parametrize("name", LABEL_FILES)
def test_labels_are_what_was_saved(tmp_path, name):
    source, path = LABEL_FILES[name], tmp_path / name
    if isinstance(source, np.ndarray):
        tifffile.imwrite(path, source, compression="zlib")
    elif source == "palette":
        image = Image.fromarray(FILE_LABELS, mode="P")
        image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
        image.save(path)
    elif source == "lzw":
        Image.fromarray(FILE_LABELS).save(path, compression="tiff_lzw")
    else:
        source.save(path)
    found = read_labels(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, FILE_LABELS)


def test_bits_become_zero_and_one(tmp_path):
    tifffile.imwrite(tmp_path / "bool.tif", FILE_LABELS > 1)
    Image.fromarray(FILE_LABELS > 1).save(tmp_path / "bool.png")
    for name in ("bool.tif", "bool.png"):
        np.testing.assert_array_equal(read_labels(tmp_path / name), FILE_LABELS > 1)


WRONG_FILES = {
    "fractions.tif": (FILE_LABELS + np.float32(0.5), "fractions"),
    "negative.tif": (FILE_LABELS.astype(np.int16) - 1, "values from -1 to 2"),
    "colours.tif": (np.arange(FILE_LABELS.size * 3, dtype=np.uint8).reshape(*FILE_LABELS.shape, 3), "has colours"),
    "many.tif": (FILE_LABELS.astype(np.uint16) * 9999, "values from"),
    "lossy.jpg": (FILE_LABELS, "of the format JPEG, which changes values"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_wrong_labels_are_named(tmp_path, name):
    array, message = WRONG_FILES[name]
    if name.endswith(".tif"):
        tifffile.imwrite(tmp_path / name, array)
    else:
        Image.fromarray(array).save(tmp_path / name)
    with pytest.raises(ValueError, match=message) as caught:
        read_labels(tmp_path / name)
    assert name in str(caught.value)


def test_labels_of_a_stack_have_its_pages(tmp_path):
    stack = np.stack([FILE_LABELS * 0, FILE_LABELS])
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(read_labels(tmp_path / "stack.tif"), stack)


UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_labels_are_turned_like_their_image(tmp_path, orientation):
    # By EXIF's definition: Pillow shears uncompressed TIFFs of the orientations 5 to 8.
    tifffile.imwrite(tmp_path / "labels.tif", FILE_LABELS, extratags=[("Orientation", 3, 1, orientation, True)])
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.tif"), UPRIGHT[orientation](FILE_LABELS))


def test_bytes_are_read_like_files_under_the_name_given(tmp_path):
    for name in ("labels.png", "labels.tif"):
        write_labels(tmp_path / name, FILE_LABELS)
        np.testing.assert_array_equal(read_labels((tmp_path / name).read_bytes(), "mask 3"), FILE_LABELS)
    with pytest.raises(ValueError, match="mask 3 cannot be read"):
        read_labels(b"no image", "mask 3")


@pytest.mark.parametrize(
    ("name", "shape"), [("a.png", (5, 7)), ("a.tif", (5, 7)), ("a.tiff", (3, 5, 7)), ("b.tif", (4, 6, 3))]
)
def test_written_labels_come_back_unchanged(tmp_path, name, shape):
    labels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_labels(tmp_path / name, labels)
    np.testing.assert_array_equal(read_labels(tmp_path / name), labels)
    first = (tmp_path / name).read_bytes()
    write_labels(tmp_path / name, read_labels(tmp_path / name))
    assert (tmp_path / name).read_bytes() == first


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("a.jpg", LABELS_2D := np.zeros((5, 7), np.uint8)),
        ("a.png", LABELS_2D[None]),
        ("a.tif", LABELS_2D.astype(int)),
        ("a.tif", LABELS_2D[0]),
    ],
)
def test_labels_that_would_not_come_back_are_not_written(tmp_path, name, labels):
    with pytest.raises(ValueError, match=r"written as|were given"):
        write_labels(tmp_path / name, labels)
    assert not list(tmp_path.iterdir())
