# SPDX-License-Identifier: Apache-2.0
"""What the command makes of values and channels: one contrast for a segmenter, found at `fit`, saved and told."""

import numpy as np
import pytest
import tifffile

from alibi_dinov2.cli import main_parser
from alibi_dinov2.io.tiled_tiff import read_page
from tests.alibi_dinov2.io.vendor_files import velox_image

SIDES = (90, 100)


def halves(dark: int, bright: int, seed: int = 0, dtype=np.uint16) -> np.ndarray:
    """Noise around a dark value at the left and around a bright one at the right."""
    noise = np.random.default_rng(seed).normal(0, (bright - dark) / 20, SIDES)
    return (noise + np.where(np.arange(SIDES[1]) < SIDES[1] // 2, dark, bright)).astype(dtype)


@pytest.fixture
def run(tmp_path, capsys):
    """`run(*words)`: exit status and what was printed, with a segmenter of classical features."""

    def command(*words) -> tuple[int, str]:
        arguments = main_parser().parse_args(list(map(str, words)))
        status = arguments.command(arguments)
        captured = capsys.readouterr()
        return status or 0, captured.out + captured.err

    labels = np.zeros(SIDES, np.uint8)
    labels[10:60, 10:30], labels[10:60, 70:90] = 1, 2
    for folder in ("train", "labels", "images"):
        (tmp_path / folder).mkdir()
    tifffile.imwrite(tmp_path / "labels" / "one.tif", labels)
    return command


def fit(run, tmp_path, *words) -> str:
    places = ("--images", tmp_path / "train", "--labels", tmp_path / "labels", "--output", tmp_path / "segmenter")
    status, said = run("fit", "--no-deep", *places, "--cache", tmp_path / "cache", *words)
    assert status == 0
    return said


def predict(run, tmp_path) -> tuple[int, str]:
    places = ("--segmenter", tmp_path / "segmenter", "--images", tmp_path / "images", "--output", tmp_path / "out")
    return run("predict", *places, "--cache", tmp_path / "cache", "--no-overlay")


def test_twelve_bits_keep_the_contrast_that_was_found_at_fit(run, tmp_path):
    tifffile.imwrite(tmp_path / "train" / "one.tif", halves(300, 900))
    # All of it is as bright as the bright half was: stretched by itself it would be half dark.
    tifffile.imwrite(tmp_path / "images" / "bright.tif", halves(880, 920, 1))
    # From one image a forest cannot know that brightness is what counts.
    assert "auto: uint16" in fit(run, tmp_path, "--classifier", "xgboost")
    assert "auto: uint16" in run("info", tmp_path / "segmenter")[1]
    assert predict(run, tmp_path)[0] == 0
    assert (read_page(tmp_path / "out" / "bright.tif", 0) == 2).mean() > 0.95


def test_values_of_another_type_are_refused_unless_each_image_has_its_own_contrast(run, tmp_path):
    tifffile.imwrite(tmp_path / "train" / "one.tif", halves(300, 900))
    tifffile.imwrite(tmp_path / "images" / "other.tif", halves(30, 90, 1, np.float32))
    fit(run, tmp_path)
    status, said = predict(run, tmp_path)
    assert status == 1
    assert "other.tif" in said
    assert "Choose the contrast per-image" in said


@pytest.mark.parametrize("contrast", ["per-image", "0,1000"])
def test_other_contrasts_are_chosen_by_name_or_range(run, tmp_path, contrast):
    tifffile.imwrite(tmp_path / "train" / "one.tif", halves(300, 900))
    tifffile.imwrite(tmp_path / "images" / "other.tif", halves(320, 880, 1, np.float32))
    fit(run, tmp_path, "--contrast", contrast)
    assert predict(run, tmp_path)[0] == 0
    found = read_page(tmp_path / "out" / "other.tif", 0)
    assert (found[:, :40] == 1).mean() > 0.95
    assert (found[:, 60:] == 2).mean() > 0.95


def test_the_channel_that_was_chosen_is_seen_again(run, tmp_path):
    nothing = np.full(SIDES, 7, np.uint16)
    for place, seed in (("train/one.tif", 0), ("images/two.tif", 1)):
        stack = np.stack([nothing, halves(300, 900, seed)])
        tifffile.imwrite(tmp_path / place, stack, imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(ValueError, match="channels 0, 1; choose one"):
        fit(run, tmp_path)
    fit(run, tmp_path, "--channel", "1")
    assert predict(run, tmp_path)[0] == 0
    found = read_page(tmp_path / "out" / "two.tif", 0)
    assert (found[:, :40] == 1).mean() > 0.95
    assert (found[:, 60:] == 2).mean() > 0.95


def test_the_series_that_was_chosen_is_seen_again(run, tmp_path):
    h5py = pytest.importorskip("h5py")
    for place, seed in (("train/one.emd", 0), ("images/two.emd", 1)):
        with h5py.File(tmp_path / place, "w") as file:
            velox_image(file, "aa", np.zeros((*SIDES, 1), np.float32), "Fe")
            velox_image(file, "bb", halves(300, 900, seed)[..., None], "HAADF")
    with pytest.raises(ValueError, match=r"0: Fe .* 1: HAADF .* choose one with `series`"):
        fit(run, tmp_path)
    fit(run, tmp_path, "--series", "HAADF")
    assert "HAADF" in run("info", tmp_path / "segmenter")[1]
    assert predict(run, tmp_path)[0] == 0
    found = read_page(tmp_path / "out" / "two.tif", 0)
    assert (found[:, :40] == 1).mean() > 0.95
    assert (found[:, 60:] == 2).mean() > 0.95
