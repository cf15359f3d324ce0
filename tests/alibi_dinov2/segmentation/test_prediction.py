# SPDX-License-Identifier: Apache-2.0
"""From files to class maps by processes that share the work, of which some are killed."""

import csv
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from alibi_dinov2.io.pairing import named_paths
from alibi_dinov2.io.tiled_tiff import read_description
from alibi_dinov2.segmentation.prediction import Outputs, predict_files, result_paths
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from alibi_dinov2.segmentation.uncertainty import uncertainty
from tests.alibi_dinov2.segmentation.materials import CLASSICAL, IMAGE, LABELS, materials

ALL = Outputs(probabilities="float32", uncertainty=True, instances=True, min_size=5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a quick segmenter, `saved`, and images, `images`: two files and a stack."""
    folder = tmp_path_factory.mktemp("prediction")
    settings = {"classical": CLASSICAL, "classifier": "logistic-regression", "class_names": ["smooth", "rough"]}
    TrainableSegmenter(**settings).fit(IMAGE, LABELS).save(folder / "saved")
    (folder / "images").mkdir()
    for number in (1, 2):
        Image.fromarray(materials(number)[0]).save(folder / "images" / f"{number}.png")
    stack = np.stack([materials(number)[0] for number in (3, 4, 5)])
    tifffile.imwrite(folder / "images" / "stack.tif", stack, photometric="minisblack")
    return folder


def predict(saved, output, outputs=Outputs(overlay=False)):  # noqa: B008 - it cannot change
    """Descriptions of the class maps, or errors, by the names of images."""
    paths = named_paths([saved / "images"])
    segmenter = TrainableSegmenter.load(saved / "saved")
    return dict(predict_files(segmenter, paths, result_paths(paths, output), outputs))


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_all_results_are_of_the_segmenters_probabilities(saved, tmp_path):
    found = predict(saved, tmp_path, ALL)
    assert {name.as_posix() for name in found} == {"1.png", "2.png", "stack.tif"}
    segmenter = TrainableSegmenter.load(saved / "saved")
    stack = tifffile.imread(saved / "images" / "stack.tif")
    expected = segmenter.predict_proba(stack)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "stack.tif"), segmenter.predict(stack))
    probabilities = tifffile.imread(tmp_path / "stack.probabilities.tif")
    np.testing.assert_array_equal(probabilities, np.moveaxis(expected, -1, 1))
    uncertain = tifffile.imread(tmp_path / "stack.uncertainty.tif")
    np.testing.assert_allclose(uncertain / 255, uncertainty(expected), atol=0.5 / 255 + 1e-6)
    labels, classes = tifffile.imread(tmp_path / "stack.instances.tif"), tifffile.imread(tmp_path / "stack.tif")
    table = rows(tmp_path / "stack.instances.csv")
    for index in range(3):
        of_slice = [row for row in table if row["slice"] == str(index)]
        assert len(of_slice) == labels[index].max()
        for row in of_slice:
            region = labels[index] == int(row["label"])
            assert int(row["area"]) == region.sum() >= 5
            assert set(np.unique(classes[index][region])) == {int(row["class"])}
    places = rows(tmp_path / "stack.uncertainty.csv")
    assert {row["slice"] for row in places} == {"0", "1", "2"}
    assert all(0 <= int(row["row"]) < 80 and 0 <= int(row["column"]) < 96 for row in places)
    with Image.open(tmp_path / "stack.png") as picture:
        assert picture.width >= 96
        assert picture.height > 80, "no legend"


def test_probabilities_may_be_bytes_and_are_made_when_they_are_asked_for(saved, tmp_path):
    predict(saved, tmp_path)
    before = contents(tmp_path)
    predict(saved, tmp_path, Outputs(overlay=False, probabilities="uint8"))
    found = tifffile.imread(tmp_path / "1.probabilities.tif")
    assert found.dtype == np.uint8
    expected = TrainableSegmenter.load(saved / "saved").predict_proba(materials(1)[0])
    np.testing.assert_allclose(found / 255, np.moveaxis(expected, -1, 0), atol=0.5 / 255 + 1e-6)
    assert {name: content for name, content in contents(tmp_path).items() if name in before} == before
    predict(saved, tmp_path, Outputs(overlay=False, probabilities="float32"))
    assert tifffile.imread(tmp_path / "1.probabilities.tif").dtype == np.float32


def test_regions_are_counted_again_when_they_are_asked_for_otherwise(saved, tmp_path, monkeypatch):
    predict(saved, tmp_path, Outputs(overlay=False, instances=True))
    many = len(rows(tmp_path / "1.instances.csv"))
    monkeypatch.setattr(TrainableSegmenter, "predict_blocks", None)  # the class map is there
    predict(saved, tmp_path, Outputs(overlay=False, instances=True, min_size=20, of_classes=(2,)))
    few = rows(tmp_path / "1.instances.csv")
    assert 0 < len(few) < many
    assert {row["name"] for row in few} == {"rough"}
    found = predict(saved, tmp_path, Outputs(instances=True, of_classes=(9,)))
    assert all("has no class [9]; it has [1, 2]" in str(error) for error in found.values())


def test_no_result_is_written_over_anothers(saved, tmp_path):
    predict(saved, tmp_path)
    before = contents(tmp_path)
    other = tmp_path / "other images"
    other.mkdir()
    Image.fromarray(materials(6)[0]).save(other / "1.tif")
    names = result_paths(named_paths([other]), tmp_path)
    assert [path.name for path in names.values()] == ["1.tif.tif"], "1.tif is the result of 1.png"
    segmenter = TrainableSegmenter.load(saved / "saved")
    dict(predict_files(segmenter, named_paths([other]), names, Outputs()))
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    for foreign in ("2.png", "2.uncertainty.csv", "2.instances.csv", "2.tif"):
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / foreign).write_text("a user's own")
        found = predict(saved, tmp_path / "new")
        (message,) = [str(error) for error in found.values() if isinstance(error, ValueError)]
        assert f"{foreign} is there and is no result of this command" in message
        assert (tmp_path / "new" / foreign).read_text() == "a user's own"
        (tmp_path / "new" / foreign).unlink()


def test_results_of_two_images_never_have_one_name(tmp_path):
    from pathlib import Path

    with pytest.raises(ValueError, match=r"would both have a result a\.probabilities\.tif"):
        result_paths([Path("a.png"), Path("a.probabilities.png")], tmp_path)


def test_a_full_disk_is_gone_on_from(saved, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    predict(saved, whole, ALL)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tifffile.FileHandle, "write", full)
        with pytest.raises(OSError, match=r"cannot be written .*No space left.*goes on from"):
            predict(saved, tmp_path / "out", ALL)
    assert not list((tmp_path / "out").glob("[!.]*"))
    predict(saved, tmp_path / "out", ALL)
    assert contents(tmp_path / "out") == contents(whole)


PROGRAM = """
import sys
from pathlib import Path
from alibi_dinov2.io.pairing import named_paths
from alibi_dinov2.io.partial_result import PartialResult
from alibi_dinov2.segmentation.prediction import Outputs, predict_files, result_paths
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter

folder, output = map(Path, sys.argv[1:])
original = PartialResult.write


def write(self, index, number, rows, columns, parts):
    print(self.path.name, index, number, flush=True)
    sys.stdin.readline()  # the test lets it go on
    original(self, index, number, rows, columns, parts)


PartialResult.write = write
paths = named_paths([folder / "images"])
outputs = Outputs(probabilities="float32", uncertainty=True, instances=True, min_size=5)
dict(predict_files(TrainableSegmenter.load(folder / "saved"), paths, result_paths(paths, output), outputs))
"""


def start(saved, output) -> subprocess.Popen:
    """A process that says which block it is about to write, and waits."""
    command = [sys.executable, "-c", PROGRAM, str(saved), str(output)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_share_the_work_and_a_killed_one_loses_nothing(saved, tmp_path):
    predict(saved, tmp_path / "alone", ALL)
    out = tmp_path / "out"
    with start(saved, out) as first, start(saved, out) as second:
        at = [process.stdout.readline().split() for process in (first, second)]
        assert at[0] != at[1], "both are at the same slice"
        first.send_signal(signal.SIGKILL)
        first.wait()
        seen = [tuple(at[1])]
        second.stdin.write("\n" * 20)
        second.stdin.flush()
        seen += [tuple(line.split()) for line in second.stdout]
        assert second.wait() == 0, second.stderr.read()
    assert len(seen) == len(set(seen)) == 5, "a block was written twice, or not at all"
    assert tuple(at[0]) in seen, "what the killed one was at was not taken again"
    assert contents(out) == contents(tmp_path / "alone")


def test_two_at_once_on_one_image_both_end_well(saved, tmp_path):
    predict(saved, tmp_path / "alone", ALL)
    with start(saved, tmp_path / "out") as first, start(saved, tmp_path / "out") as second:
        for process in (first, second):
            process.stdin.write("\n" * 20)
            process.stdin.flush()
        for process in (first, second):
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_a_process_that_has_nothing_to_do_waits_for_the_others(saved, tmp_path):
    out = tmp_path / "out"
    with start(saved, out) as other:
        name, _, _ = other.stdout.readline().split()
        began = time.monotonic()
        segmenter = TrainableSegmenter.load(saved / "saved")
        paths = named_paths([saved / "images"])
        # With the settings of the other process: other results of the same name would be refused.
        results = predict_files(segmenter, paths, result_paths(paths, out), replace(ALL, overlay=False))
        for number, (finished, found) in enumerate(results, 1):
            assert isinstance(found, dict)
            assert (finished.with_suffix(".tif").name != name) or other.poll() is not None
            if number == 2:
                other.kill()
                other.wait()
        assert time.monotonic() - began < 60
    assert {read_description(path)["image"] for path in out.glob("*.tif")} == {"1.png", "2.png", "stack.tif"}
    assert not list(out.glob(".*"))
