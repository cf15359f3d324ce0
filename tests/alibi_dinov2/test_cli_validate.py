# SPDX-License-Identifier: Apache-2.0
"""`alibi-dinov2 validate` as users run it, and what `fit` warns of."""

import sys

import numpy as np
import pytest
from PIL import Image

from alibi_dinov2 import cli

LABELS = np.zeros((80, 96), dtype=np.uint8)
LABELS[10:70, 10:14], LABELS[10:70, 80:84] = 1, 3
PORES, GRAINS = (int(np.count_nonzero(number == LABELS)) for number in (1, 3))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`run(command, *words)`: run a command on images dark at the left and bright at the right, on whose labels grains
    are marked in two of three; its exit status and what it printed to both streams."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for number, name in enumerate(("one", "two", "three")):
        noise = np.random.default_rng(number).integers(0, 60, LABELS.shape, dtype=np.uint8)
        noise[:, 48:] += 150
        Image.fromarray(noise).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(LABELS * (LABELS == 1) if name == "one" else LABELS).save(tmp_path / "labels" / f"{name}.png")

    def command(name, *words):
        shared = ("--no-deep", "--classifier", "logistic-regression", "--cache", tmp_path / "cache")
        names = ("--class-names", "pore", "grain")
        data = ("--images", tmp_path / "images", "--labels", tmp_path / "labels")
        line = ["alibi-dinov2", name, *shared, *names, *data, *words]
        monkeypatch.setattr(sys, "argv", list(map(str, line)))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capsys.readouterr()

    return command


def test_tables_are_printed_and_drawn(tmp_path, run):
    status, said, complaints = run("validate", "--figure", tmp_path / "confusion.png")
    assert status == 0, complaints
    assert f"Leaving out one image at a time, {3 * PORES + 2 * GRAINS} labelled pixels, 100.0% of them right." in said
    rows = [line.split() for line in said.splitlines()]
    assert ["pore", str(3 * PORES), *["1.000"] * 4] in rows
    assert ["pore", str(3 * PORES), "0"] in rows
    assert ["grain", "0", str(2 * GRAINS)] in rows
    assert ["three.png", str(PORES + GRAINS), "1.000"] in rows
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.width == picture.height > 200
    _, said, _ = run("validate", "--by", "stroke", "--folds", 2)
    assert "Leaving out one stroke of each class at a time" in said


def test_a_class_on_one_image_alone_is_told(tmp_path, run):
    (tmp_path / "labels" / "two.png").unlink()
    _, said, complaints = run("validate")
    # Without the image that has grains, all that is left is pores.
    assert f"{PORES} labelled pixels, 100.0% of them right" in said
    assert f"Not counted: {GRAINS} pixels of grain" in said
    assert "without labels, left out" in complaints
    status, _, complaints = run("fit", "--output", tmp_path / "segmenter")
    assert status == 0
    assert "warning: Class 3 (grain) has labels on one image alone, of 2 that have some" in complaints
    assert "labelled_pixels.py" not in complaints, "a line of code is no help"


def test_wrong_input_is_refused(tmp_path, run):
    for words, message in (
        (("--folds", 1), "takes 2 or more"),
        (("--by", "pixel"), "invalid choice: 'pixel'"),
        (("--class-names", "pore"), "There are 1 class names"),
        (("--images", tmp_path / "none"), "none"),
    ):
        status, said, complaints = run("validate", *words)
        assert (status, said) == (2, "")
        assert message in complaints
