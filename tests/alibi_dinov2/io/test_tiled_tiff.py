# SPDX-License-Identifier: Apache-2.0
"""A class map that is written in blocks comes out whole, whatever happens on the way."""

import errno
import os
import resource
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image

from alibi_dinov2.io import tiled_tiff
from alibi_dinov2.io.labels import read_labels
from alibi_dinov2.io.tiled_tiff import TiledPrediction, read_description
from alibi_dinov2.io.tiles import blocks

SHAPE, BLOCK = (300, 410), 128
CLASSES = np.random.default_rng(0).integers(1, 4, (2, *SHAPE), dtype=np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
DESCRIPTION = {"identity": "first", "names": ["Gefüge", "pore"]}


def write_blocks(prediction: TiledPrediction, maps: np.ndarray, limit: int = 1000) -> int:
    """Write at most `limit` of the blocks that are not done; return how many."""
    written = 0
    for index in range(prediction.slices):
        for number, block in enumerate(blocks(prediction.shape, BLOCK)):
            if written < limit and not prediction.done(index, number):
                prediction.write(index, number, *block, maps[index][block])
                written += 1
    return written


def complete(prediction: TiledPrediction) -> None:
    write_blocks(prediction, CLASSES)
    prediction.finish(DESCRIPTION, COLOURS)


def whole_file(path, slices=2) -> bytes:
    complete(TiledPrediction(path, slices, SHAPE, "first"))
    return path.read_bytes()


@pytest.mark.parametrize("slices", [1, 2])
def test_file_has_the_classes_the_colours_and_the_description(tmp_path, slices):
    path = tmp_path / "new" / "map.tif"
    whole_file(path, slices)
    np.testing.assert_array_equal(tifffile.imread(path).reshape(slices, *SHAPE), CLASSES[:slices])
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert (page.tile, page.compression.name, page.photometric.name) == ((256, 256), "ADOBE_DEFLATE", "PALETTE")
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), CLASSES[0])
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), COLOURS[CLASSES[0]])
    np.testing.assert_array_equal(read_labels(path).reshape(slices, *SHAPE), CLASSES[:slices])
    assert read_description(path) == DESCRIPTION
    assert list(path.parent.iterdir()) == [path]


def test_counts_are_of_each_slice(tmp_path):
    prediction = TiledPrediction(tmp_path / "map.tif", 2, SHAPE, "first")
    write_blocks(prediction, CLASSES)
    expected = [np.bincount(page.ravel(), minlength=256) for page in CLASSES]
    np.testing.assert_array_equal(prediction.counts(), expected)


def test_stopped_run_goes_on_to_the_same_bytes(tmp_path):
    expected = whole_file(tmp_path / "map.tif")
    path = tmp_path / "again.tif"
    assert write_blocks(TiledPrediction(path, 2, SHAPE, "first"), CLASSES, limit=5) == 5
    assert not path.exists()
    resumed = TiledPrediction(path, 2, SHAPE, "first")
    assert write_blocks(resumed, CLASSES) == 2 * len(blocks(SHAPE, BLOCK)) - 5
    resumed.finish(DESCRIPTION, COLOURS)
    assert path.read_bytes() == expected


@pytest.mark.parametrize("change", ["identity", "shape", "slices", "journal", "classes", "torn journal"])
def test_what_was_begun_otherwise_counts_for_nothing(tmp_path, change):
    path = tmp_path / "map.tif"
    begun = TiledPrediction(path, 2, SHAPE, "first")
    write_blocks(begun, CLASSES, limit=5)
    if change == "journal":
        (begun.folder / tiled_tiff.JOURNAL).unlink()
    if change == "torn journal":
        os.truncate(begun.folder / tiled_tiff.JOURNAL, 40)
    if change == "classes":
        os.truncate(begun.folder / tiled_tiff.CLASSES, 1000)
    shape = SHAPE[::-1] if change == "shape" else SHAPE
    slices = 1 if change == "slices" else 2
    prediction = TiledPrediction(path, slices, shape, "second" if change == "identity" else "first")
    assert not any(prediction.done(0, number) for number in range(20))
    assert not prediction.counts()[:, 1:].any()


def test_incomplete_map_is_not_finished(tmp_path):
    prediction = TiledPrediction(tmp_path / "map.tif", 2, SHAPE, "first")
    write_blocks(prediction, CLASSES, limit=1)
    with pytest.raises(ValueError, match=rf"lacks {2 * SHAPE[0] * SHAPE[1] - BLOCK**2} pixels"):
        prediction.finish(DESCRIPTION, COLOURS)
    assert not (tmp_path / "map.tif").exists()


def test_classes_that_do_not_fit_are_refused(tmp_path):
    prediction = TiledPrediction(tmp_path / "map.tif", 1, SHAPE, "first")
    for classes in (CLASSES[0, :5, :6].astype(np.int64), CLASSES[0, :4, :6]):
        with pytest.raises(ValueError, match="do not fit"):
            prediction.write(0, 0, slice(0, 5), slice(0, 6), classes)
    assert not prediction.done(0, 0)


@pytest.mark.parametrize("when", ["block", "journal", "final file"])
def test_full_disk_leaves_no_file_and_is_gone_on_from(tmp_path, monkeypatch, when):
    path = tmp_path / "map.tif"
    prediction = TiledPrediction(path, 2, SHAPE, "first")
    write_blocks(prediction, CLASSES, limit=3)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if when == "block":
            patch.setattr(tiled_tiff.os, "fsync", full)
        elif when == "journal":
            patch.setattr(tiled_tiff, "write_json", full)
        else:
            write_blocks(prediction, CLASSES)
            patch.setattr(tifffile.FileHandle, "write", full)
        with pytest.raises(OSError, match=r"map\.tif cannot be written .*No space left.*goes on from"):
            complete(prediction)
    assert [entry.name for entry in tmp_path.iterdir()] == [".map.tif.partial"]
    resumed = TiledPrediction(path, 2, SHAPE, "first")
    assert len(resumed.finished) == (2 * len(blocks(SHAPE, BLOCK)) if when == "final file" else 3)
    complete(resumed)
    np.testing.assert_array_equal(tifffile.imread(path), CLASSES)


LIMITED = """
import resource, sys
import numpy as np
from alibi_dinov2.io.tiled_tiff import TiledPrediction
prediction = TiledPrediction(sys.argv[1], 1, (512, 512), "first")
classes = np.random.default_rng(0).integers(1, 255, (512, 512), dtype=np.uint8)
if not prediction.done(0, 0):
    prediction.write(0, 0, slice(0, 512), slice(0, 512), classes)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
prediction.finish({}, np.zeros((256, 3), np.uint8))
"""


def test_real_limit_of_a_file_leaves_no_file(tmp_path):
    path = tmp_path / "map.tif"

    def run(limit):
        command = [sys.executable, "-c", LIMITED, str(path), str(limit)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    result = run(100_000)
    assert "cannot be written" in result.stderr.splitlines()[-1]
    assert [entry.name for entry in tmp_path.iterdir()] == [".map.tif.partial"]
    result = run(resource.RLIM_INFINITY)
    assert result.returncode == 0, result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.tif"]
    assert tifffile.imread(path).shape == (512, 512)


def test_large_map_is_a_bigtiff_and_takes_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tiled_tiff, "MAX_CLASSIC_BYTES", 10**6)
    side, path = 4096, tmp_path / "map.tif"
    prediction = TiledPrediction(path, 1, (side, side), "first")
    tracemalloc.start()
    strip = np.ones((512, side), dtype=np.uint8)
    for number, top in enumerate(range(0, side, 512)):
        prediction.write(0, number, slice(top, top + 512), slice(0, side), strip)
    prediction.finish({}, COLOURS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A strip of 2 MiB, and `bincount`'s 8-byte copy of 256 rows, 8 MiB; not the 16 MiB of the map.
    assert peak < 14 * 2**20
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        assert (file.asarray() == 1).all()


def test_other_files_have_no_description(tmp_path):
    tifffile.imwrite(tmp_path / "other.tif", CLASSES[0], description="[1, 2]", metadata=None)
    tifffile.imwrite(tmp_path / "plain.tif", CLASSES[0])
    (tmp_path / "text.tif").write_text("no TIFF")
    for name in ("other.tif", "text.tif", "none.tif"):
        assert read_description(tmp_path / name) is None
    assert "identity" not in (read_description(tmp_path / "plain.tif") or {})
