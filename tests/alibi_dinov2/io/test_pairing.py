# SPDX-License-Identifier: Apache-2.0
"""Which files belong together, and what their results are called."""

import unicodedata
from pathlib import Path

import pytest

from alibi_dinov2.io.pairing import named_paths, pair_by_name, result_names


@pytest.fixture
def files(tmp_path):
    """`files(*names)`: empty files below a new folder, which is given back."""

    def make(folder, *names):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / folder

    return make


def test_pairs_are_of_one_name_but_for_the_suffix(files):
    images = files("images", "a.png", "b.tif", "sub/a.jpg")
    labels = files("labels", "sub/a.png", "a.tif")
    pairs, alone = pair_by_name([images], [labels])
    assert pairs == [(images / "a.png", labels / "a.tif"), (images / "sub/a.jpg", labels / "sub/a.png")]
    assert alone == [images / "b.tif"]


@pytest.mark.parametrize(("one", "other"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_unicode_normal_forms_are_equal(files, one, other):
    name = "Gefüge é.png"
    images = files("images", unicodedata.normalize(one, name), "plain.png")
    labels = files("labels", unicodedata.normalize(other, name))
    ((image, label),), alone = pair_by_name([images], [labels])
    assert image.parent == images
    assert label.parent == labels
    assert [path.name for path in alone] == ["plain.png"]


def test_two_normal_forms_of_one_name_are_two_files_of_one_name(files):
    twice = [files(form, unicodedata.normalize(form, "é.png")) for form in ("NFC", "NFD")]
    with pytest.raises(ValueError, match="are both called"):
        named_paths(twice)
    with pytest.raises(ValueError, match="would both be called"):
        result_names([Path(unicodedata.normalize(form, "é.png")) for form in ("NFC", "NFD")])


def test_hidden_files_are_none(files):
    images = files("images", "a.png", "._a.png", ".DS_Store", ".cache/b.png")
    labels = files("labels", "a.png", "._a.png", "._c.png")
    assert pair_by_name([images], [labels]) == ([(images / "a.png", labels / "a.png")], [])
    assert named_paths([files(".hidden", "a.png")]), "a folder that was named is meant, whatever its name"


def test_a_single_image_goes_with_a_single_file(files):
    one = [files("images", "a.png") / "a.png"], [files("labels", "other.tif") / "other.tif"]
    assert pair_by_name(*one) == ([(one[0][0], one[1][0])], [])


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (["a.png"], ["a.png", "b.png"], r"b\.png: there is no image of the same name.*remove the masks"),
        (["a.png"], [f"{number}.png" for number in range(8)], r"4\.png and 3 more: there is no image"),
        (["a.png", "a.tif"], ["a.png"], "differ in the suffix only; images and masks"),
    ],
)
def test_what_does_not_fit_is_named(files, images, masks, message):
    with pytest.raises(ValueError, match=message):
        pair_by_name([files("images", *images)], [files("masks", *masks)], "masks")


def test_results_are_named_like_images_if_that_is_unambiguous():
    names = [Path("a.png"), Path("b.png"), Path("b.TIF"), Path("sub/a.png")]
    assert list(result_names(names).values()) == [
        Path("a.tif"),
        Path("b.png.tif"),
        Path("b.TIF.tif"),
        Path("sub/a.tif"),
    ]
    with pytest.raises(ValueError, match="would both be called"):
        result_names([Path("a.png"), Path("a.PNG")])
