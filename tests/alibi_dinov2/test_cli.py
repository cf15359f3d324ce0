# SPDX-License-Identifier: Apache-2.0
"""The commands of trainable segmentation as users run them: what they write, what they skip, what they refuse."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from PIL import Image
from safetensors.numpy import load_file

from alibi_dinov2 import cli
from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_image
from alibi_dinov2.io.open_image import open_image
from alibi_dinov2.io.partial_result import PartialResult
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

SIZE = (96, 80)  # width and height


def halves(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Dark noise at the left and bright noise at the right."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width), dtype=np.uint8)
    noise[:, width // 2 :] += 150
    return noise


LABELS = np.zeros(SIZE[::-1], dtype=np.uint8)
LABELS[10:70, 10:14], LABELS[10:70, 80:84] = 1, 3


@pytest.fixture
def folder(tmp_path, tiny_model):
    """A folder with a backbone, an image with labels, and images to segment: a file of each kind and a stack."""
    tiny_model().save_pretrained(tmp_path / "model")
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path / "model")
    for part in ("train", "labels", "images", "images/sub"):
        (tmp_path / part).mkdir()
    Image.fromarray(halves(*SIZE[::-1])).save(tmp_path / "train" / "one.png")
    Image.fromarray(LABELS).save(tmp_path / "labels" / "one.png")
    Image.fromarray(halves(*SIZE[::-1], 1)).save(tmp_path / "images" / "a.png")
    tifffile.imwrite(tmp_path / "images" / "a.tif", halves(*SIZE[::-1], 2))
    pages = np.stack([halves(*SIZE[::-1], seed) for seed in (3, 4, 5)])
    tifffile.imwrite(tmp_path / "images" / "sub" / "stack.tif", pages, photometric="minisblack", compression="zlib")
    return tmp_path


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """`run(*words)`: run a command; its exit status and what it printed to both streams."""

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["alibi-dinov2", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capsys.readouterr()

    return command


@pytest.fixture
def fit(folder, run):
    """`fit(*words)`: fit a quick segmenter."""

    def command(*words, features=("--model", "model", "--no-classical")):
        features = [folder / word if word == "model" else word for word in features]
        data = ("--images", folder / "train", "--labels", folder / "labels", "--cache", folder / "cache")
        quick = ("--classifier", "logistic-regression", "--output", folder / "segmenter")
        return run("fit", *data, *quick, *features, *words)

    return command


@pytest.fixture
def predict(folder, run):
    """`predict(*words)`: segment the images."""

    def command(*words, images="images"):
        places = ("--segmenter", folder / "segmenter", "--images", folder / images, "--output", folder / "out")
        return run("predict", *places, "--cache", folder / "cache", *words)

    return command


def table(folder) -> list[dict[str, str]]:
    with open(folder / "out" / "fractions.csv", newline="") as file:
        return list(csv.DictReader(file))


def results(folder) -> list[str]:
    return sorted(path.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("*") if path.is_file())


def test_images_of_all_kinds_are_segmented_drawn_and_counted(folder, fit, predict):
    status, said, _ = fit("--class-names", "pore", "grain")
    assert status == 0
    assert f"2 classes from {(LABELS > 0).sum()} pixels of 1 images" in said
    status, said, _ = predict()
    assert status == 0
    maps = {"a.png": "a.png.tif", "a.tif": "a.tif.tif", "sub/stack.tif": "sub/stack.tif"}
    pictures = [name.removesuffix(".tif") + ".png" for name in maps.values()]
    assert results(folder) == sorted([*maps.values(), *pictures, "fractions.csv"]), "one overwrote another"
    segmenter = TrainableSegmenter.load(folder / "segmenter")
    rows = iter(table(folder))
    for name, result in maps.items():
        found = tifffile.imread(folder / "out" / result)
        with open_image(folder / "images" / name) as image:
            found = found.reshape(image.slices, *image.shape)
            for index, page in enumerate(found):
                pixels = image.read(index, slice(None), slice(None))
                # Cached features have half precision.
                assert (page == segmenter.predict(pixels)).mean() > 0.99
                for number, of_class in ((1, "pore"), (3, "grain")):
                    row, count = next(rows), int((page == number).sum())
                    assert (row["file"], row["slice"], row["class"]) == (name, str(index), str(number))
                    assert (row["name"], row["pixels"]) == (of_class, str(count))
                    assert float(row["fraction"]) == pytest.approx(count / page.size, abs=1e-6)
    assert next(rows, None) is None
    assert "sub/stack.tif  pore" in said
    with Image.open(folder / "out" / "sub" / "stack.png") as picture:
        assert picture.width >= SIZE[0]
        assert picture.height > SIZE[1], "no legend"


def test_bright_and_dark_are_told_apart_by_classical_features(folder, fit, predict):
    assert fit(features=("--no-deep",))[0] == 0
    assert predict("--no-overlay")[0] == 0
    found = tifffile.imread(folder / "out" / "a.png.tif")
    # Blurred by 16 pixels, the border is not sharp.
    assert (found[:, :30] == 1).all()
    assert (found[:, 66:] == 3).all()
    assert not list((folder / "out").rglob("*.png"))


def test_what_is_done_is_not_done_again(folder, fit, predict, monkeypatch):
    fit()
    predict()
    contents = {name: (folder / "out" / name).read_bytes() for name in results(folder)}
    (folder / "out" / "a.png.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(TrainableSegmenter, "predict_blocks", None)
        assert predict()[0] == 0
    assert {name: (folder / "out" / name).read_bytes() for name in results(folder)} == contents
    # Another image of the same name is segmented.
    Image.fromarray(halves(*SIZE[::-1])[:, ::-1]).save(folder / "images" / "a.png")
    predict()
    assert (folder / "out" / "a.png.tif").read_bytes() != contents["a.png.tif"]
    assert (folder / "out" / "a.png.png").read_bytes() != contents["a.png.png"]
    assert (folder / "out" / "a.tif.tif").read_bytes() == contents["a.tif.tif"]


def test_one_bad_image_does_not_lose_the_others(folder, fit, predict):
    fit()
    (folder / "images" / "b.png").write_text("no image")
    stack = folder / "images" / "sub" / "stack.tif"
    stack.write_bytes(stack.read_bytes()[:5000])
    tifffile.imwrite(folder / "images" / "nan.tif", np.full(SIZE, np.nan, np.float32))
    status, said, complaints = predict()
    assert status == 1
    assert {row["file"] for row in table(folder)} == {"a.png", "a.tif"}
    for name, reason in (("b.png", "cannot be read"), ("stack.tif", "truncated"), ("nan.tif", "7680 NaN or infinite")):
        assert [line for line in complaints.splitlines() if name in line and reason in line]
    assert "a.png" in said
    assert not (folder / "out" / "nan.tif").exists()


def test_killed_prediction_goes_on_to_the_same_pixels(folder, fit, predict, monkeypatch):
    fit()
    (folder / "large").mkdir()
    Image.fromarray(halves(1030, 1100)).save(folder / "large" / "large.png")
    places = {"--segmenter": "segmenter", "--images": "large", "--output": "out", "--cache": "cache"}
    words = [word for option, name in places.items() for word in (option, folder / name)]
    process = subprocess.Popen(
        [sys.executable, "-m", "alibi_dinov2.cli", "predict", *map(str, words)], stderr=subprocess.DEVNULL
    )
    journal = folder / "out" / ".large.tif.partial" / "0.json"
    while not journal.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "out" / "large.tif").exists(), "killed too late to tell"
    done = json.loads(journal.read_text())
    assert 1 <= len(done) < 9
    written = []
    with monkeypatch.context() as patch:
        write = PartialResult.write
        patch.setattr(PartialResult, "write", lambda *block: (written.append(block[1:3]), write(*block)))
        assert predict(images="large")[0] == 0
    assert len(written) == 9 - len(done), "what was done was done again"
    resumed = (folder / "out" / "large.tif").read_bytes()
    assert results(folder) == ["fractions.csv", "large.png", "large.tif"], "something is left of what was killed"
    for name in ("large.tif", "large.png"):
        (folder / "out" / name).unlink()
    predict(images="large")
    assert (folder / "out" / "large.tif").read_bytes() == resumed


def test_full_disk_says_what_to_do_and_is_gone_on_from(folder, fit, predict, monkeypatch):
    fit()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        status, _, complaints = predict()
    assert status == 2
    assert "No space left on device). Make room on the disk" in complaints
    assert not [name for name in results(folder) if not name.startswith(".")]
    assert predict()[0] == 0
    assert len(table(folder)) == 2 * 5
    # Only the table is left to be written.
    (folder / "out" / "fractions.csv").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "fractions.csv cannot be written" in predict()[2]
    assert predict()[0] == 0
    assert len(table(folder)) == 2 * 5


@pytest.mark.filterwarnings("ignore:bfloat16 may be slower")
def test_a_backbone_computes_with_the_numbers_that_it_was_fitted_with(folder, run, fit, predict):
    assert fit("--dtype", "bfloat16")[0] == 0
    assert "dtype    bfloat16" in run("info", folder / "segmenter")[1]
    (folder / "model").rename(folder / "moved")
    assert predict("--model", folder / "moved")[0] == 0


def test_info_prints_what_a_segmenter_holds(folder, fit, run):
    fit("--class-names", "pore", "grain")
    status, said, _ = run("info", folder / "segmenter")
    assert status == 0
    for fact in (
        "1 pore, 3 grain",
        "logistic-regression",
        "../model",
        "numpy",
        "classical features  none",
        "scales              1 2",
    ):
        assert fact in said


def test_images_without_labels_are_named_and_left_out(folder, fit):
    Image.fromarray(halves(*SIZE[::-1], 1)).save(folder / "train" / "two.png")
    status, _, complaints = fit()
    assert status == 0
    assert "without labels, left out" in complaints
    assert "two.png" in complaints


def test_a_single_image_goes_with_a_single_file_of_labels(folder, fit):
    (folder / "labels" / "one.png").rename(folder / "labels" / "one_labels.png")
    status, _, complaints = fit()
    assert status == 2
    assert "one_labels.png: there is no image of the same name" in complaints
    files = ("--images", folder / "train" / "one.png", "--labels", folder / "labels" / "one_labels.png")
    assert fit(*files)[0] == 0


def test_some_slices_of_a_stack_may_have_labels(folder, fit):
    for part, pages in (("train", [halves(*SIZE[::-1]), halves(*SIZE[::-1], 1)]), ("labels", [LABELS * 0, LABELS])):
        (folder / part / "one.png").unlink()
        tifffile.imwrite(folder / part / "one.tif", np.stack(pages), photometric="minisblack")
    assert fit()[0] == 0


WRONG_FITS = {
    "size": (LABELS[:, :-1], (), r"one.png has shape (80, 95), "),
    "one class": (LABELS * (LABELS == 1), (), "The labels mark only class 1"),
    "nothing": (LABELS * 0, (), "The labels mark nothing"),
    "names": (LABELS, ("--class-names", "one"), "There are 1 class names"),
    "no features": (LABELS, ("--no-deep",), "not allowed with argument"),
    "classifier": (LABELS, ("--classifier", "svm"), "invalid choice: 'svm'"),
}


@pytest.mark.parametrize("case", WRONG_FITS)
def test_wrong_labels_and_options_leave_no_segmenter(folder, fit, case):
    labels, words, message = WRONG_FITS[case]
    Image.fromarray(labels).save(folder / "labels" / "one.png")
    status, _, complaints = fit(*words)
    assert status == 2
    assert message in complaints
    assert not (folder / "segmenter").exists()


def test_wrong_predictions_lose_nothing(folder, fit, predict, run):
    fit()
    (folder / "out").mkdir()
    tifffile.imwrite(folder / "out" / "a.png.tif", LABELS)
    status, _, complaints = predict()
    assert status == 1
    assert "a.png.tif is there and is no result of this command" in complaints
    np.testing.assert_array_equal(tifffile.imread(folder / "out" / "a.png.tif"), LABELS)
    words = ("--segmenter", folder / "segmenter", "--images", folder / "images")
    before = (folder / "images" / "a.tif").read_bytes()
    assert "would be mixed up with it" in run("predict", *words, "--output", folder / "images")[2]
    assert (folder / "images" / "a.tif").read_bytes() == before
    assert (
        "holds no segmenter" in run("predict", "--segmenter", folder, "--images", folder, "--output", folder / "x")[2]
    )
    (folder / "empty").mkdir()
    assert "contains no image" in predict(images="empty")[2]
    (folder / "model").rename(folder / "moved")
    assert "cannot be loaded" in predict()[2]
    assert predict("--model", folder / "moved")[0] == 1, "the foreign a.png.tif is still there"


def test_results_within_the_folder_of_images_are_no_images(folder, fit, run):
    fit()
    words = ("--images", folder / "images", "--output", folder / "images" / "out", "--cache", folder / "cache")
    for _ in range(2):
        status, said, _ = run("predict", "--segmenter", folder / "segmenter", *words)
        assert status == 0
        assert "out/" not in said


def test_the_table_grows_with_every_call(folder, fit, predict):
    fit()
    assert predict(images="images/sub")[0] == 0
    before = table(folder)
    assert {row["file"] for row in before} == {"stack.tif"}
    assert predict(images="train")[0] == 0
    assert {row["file"] for row in table(folder)} == {"one.png", "stack.tif"}
    assert [row for row in table(folder) if row["file"] == "stack.tif"] == before
    (folder / "out" / "fractions.csv").write_text("a user's own")
    status, _, complaints = predict()
    assert status == 2
    assert "fractions.csv is no table of this command" in complaints
    assert (folder / "out" / "fractions.csv").read_text() == "a user's own"


def test_channels_that_are_no_colours_are_asked_for(folder, fit, predict):
    fit()
    two = np.stack([halves(*SIZE[::-1]), halves(*SIZE[::-1], 1)])
    tifffile.imwrite(folder / "images" / "two.tif", two, imagej=True, metadata={"axes": "CYX"})
    status, _, complaints = predict()
    assert status == 1
    assert "two.tif has the channels 0, 1; choose one" in complaints
    assert not (folder / "out" / "two.tif").exists()


@pytest.mark.parametrize("kind", ["safetensors", "npy", "h5"])
def test_features_are_those_of_the_backbone(folder, run, kind):
    if kind == "h5":
        h5py = pytest.importorskip("h5py", reason="needs h5py")
    words = ("--images", folder / "images", "--size", 56, "--format", kind, "--output", folder / "features")
    assert run("features", "--model", folder / "model", *words)[0] == 0
    names = {"a.png": f"a.png.{kind}", "a.tif": f"a.tif.{kind}", "sub/stack.tif": f"sub/stack.{kind}"}
    backbone = load_backbone(folder / "model")
    for name, result in names.items():
        path = folder / "features" / result
        if kind == "h5":
            with h5py.File(path) as file:
                found = file["features"][()]
        else:
            found = np.load(path) if kind == "npy" else load_file(path)["features"]
        (expected,) = dense_features(backbone, [read_image(folder / "images" / name)], 56)
        first = found if found.ndim == 3 else found[0]
        assert found.shape[:-3] == ((3,) if "stack" in name else ())
        # The slices of a stack may go through the model together, which changes the order of sums.
        np.testing.assert_allclose(first, expected, atol=1e-4)


def test_features_of_pixels_have_common_components(folder, run):
    words = ("--images", folder / "images", "--size", 56, "--components", 2, "--pixels", "--format", "npy")
    assert run("features", "--model", folder / "model", *words, "--output", folder / "features")[0] == 0
    assert np.load(folder / "features" / "a.png.npy").shape == (*SIZE[::-1], 2)
    assert np.load(folder / "features" / "sub" / "stack.npy").shape == (3, *SIZE[::-1], 2)


def test_pca_draws_a_column_for_each_model_and_size(folder, run):
    words = ("--images", folder / "images", "--output", folder / "panel.png", "--size")
    widths = []
    for sizes in ((56,), (56, 84)):
        status, said, _ = run("pca", "--models", folder / "model", *words, *sizes)
        assert status == 0
        assert "3 images" in said
        with Image.open(folder / "panel.png") as picture:
            widths.append(picture.width)
    assert widths[0] < widths[1]
    status, _, complaints = run("pca", "--models", folder / "model", folder / "model", *words, 56)
    assert status == 2
    assert "Models of the same name" in complaints
