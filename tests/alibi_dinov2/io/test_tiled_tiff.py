# SPDX-License-Identifier: Apache-2.0
"""Results as files: what other programs read in them, and the same bytes for the same result."""

import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image

from alibi_dinov2.io import tiled_tiff
from alibi_dinov2.io.image_regions import ArrayImage
from alibi_dinov2.io.labels import read_labels
from alibi_dinov2.io.tiled_tiff import Layout, read_description, read_page, write_result

SHAPE = (300, 410)
CLASSES = np.random.default_rng(0).integers(1, 4, (6, *SHAPE), dtype=np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
DESCRIPTION = {"identity": "first", "names": ["Gefüge <&>", "pore"]}


@pytest.mark.parametrize("layout", [Layout(), Layout("Z", (6,)), Layout("TZ", (2, 3)), Layout("ZT", (3, 2))])
def test_class_maps_keep_classes_colours_axes_and_description(tmp_path, layout):
    path, pages = tmp_path / "new" / "map.tif", CLASSES[: layout.slices]
    write_result(path, pages, layout, DESCRIPTION, COLOURS)
    with tifffile.TiffFile(path) as file:
        page, series = file.pages.first, file.series[0]
        assert file.is_ome
        assert (page.tile, page.compression.name, page.photometric.name) == ((256, 256), "ADOBE_DEFLATE", "PALETTE")
        assert series.axes == layout.axes + "YX"
        np.testing.assert_array_equal(series.asarray(), pages.reshape(*layout.lengths, *SHAPE))
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), COLOURS[CLASSES[0]])
    np.testing.assert_array_equal(read_labels(path).reshape(-1, *SHAPE), pages)
    np.testing.assert_array_equal(read_page(path, layout.slices - 1), pages[-1])
    assert read_description(path) == DESCRIPTION
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels_are_planes_with_names(tmp_path, dtype):
    pages = (np.random.default_rng(0).random((2, 3, *SHAPE)) * 200).astype(dtype)
    write_result(tmp_path / "p.tif", pages, Layout("Z", (2,)), DESCRIPTION, channels=["pore", "grain", "rim"])
    with tifffile.TiffFile(tmp_path / "p.tif") as file:
        assert file.series[0].axes == "ZCYX"
        np.testing.assert_array_equal(file.series[0].asarray(), pages)
        assert [f'Name="{name}"' in file.ome_metadata for name in ("pore", "grain", "rim")] == [True] * 3


@pytest.mark.parametrize(
    ("size", "expected", "per_centimetre"),
    [
        ((0.5, 0.25, "µm"), ("0.5", "µm"), (40_000, 20_000)),
        ((0.5, 0.25, "micron"), ("0.5", "µm"), (40_000, 20_000)),
        ((4.0, 4.0, "nm"), ("4.0", "nm"), (2_500_000, 2_500_000)),
        ((4.0, 4.0, "furlong"), None, None),
    ],
)
def test_pixel_size_is_kept_as_ome_and_as_resolution(tmp_path, size, expected, per_centimetre):
    write_result(tmp_path / "m.tif", CLASSES[:1], Layout(pixel_size=size), DESCRIPTION, COLOURS)
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        if expected is None:
            assert "PhysicalSizeX" not in pixels
            return
        assert (str(float(pixels["PhysicalSizeY"])), pixels.get("PhysicalSizeYUnit", "µm")) == expected
        assert float(pixels["PhysicalSizeX"]) == size[1]
        # Resolutions are fractions of integers of 32 bits.
        assert file.pages.first.get_resolution("CENTIMETER") == pytest.approx(per_centimetre, rel=1e-6)


def test_the_layout_of_an_image_is_that_of_its_axes():
    stack = ArrayImage(np.zeros((6, 8, 9)))
    assert Layout.of(stack) == Layout("Z", (6,))
    assert Layout.of(ArrayImage(np.zeros((8, 9)))) == Layout()
    stack.axes, stack.pixel_size = {"T": 2, "Z": 3}, (1.0, 2.0, "um")
    assert Layout.of(stack) == Layout("TZ", (2, 3), (1.0, 2.0, "um"))
    for axes in ({"I": 6}, {"T": 2, "Z": 2}, {}):
        stack.axes = axes
        assert Layout.of(stack).axes == "Z", axes


def test_the_same_result_has_the_same_bytes(tmp_path):
    for folder, description in (("one", {"b": 1, "a": 2}), ("other", {"a": 2, "b": 1})):
        write_result(tmp_path / folder / "map.tif", CLASSES[:1, :50, :60], Layout(), description, COLOURS)
    assert (tmp_path / "one" / "map.tif").read_bytes() == (tmp_path / "other" / "map.tif").read_bytes()


def test_large_map_is_a_bigtiff_and_takes_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tiled_tiff, "MAX_CLASSIC_BYTES", 10**6)
    side = 4096
    np.ones((side, side), dtype=np.uint8).tofile(tmp_path / "raw")
    pages = np.memmap(tmp_path / "raw", np.uint8, "r", shape=(1, side, side))
    tracemalloc.start()
    write_result(tmp_path / "map.tif", pages, Layout(), {}, COLOURS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20, "the map of 16 MiB was copied"
    with tifffile.TiffFile(tmp_path / "map.tif") as file:
        assert file.is_bigtiff
        assert (file.asarray() == 1).all()


def test_other_files_have_no_description(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", CLASSES[0])
    tifffile.imwrite(tmp_path / "ome.tif", CLASSES[0], ome=True, metadata={"Description": "[1, 2]"})
    tifffile.imwrite(tmp_path / "undescribed.ome.tif", CLASSES[0], ome=True)
    (tmp_path / "text.tif").write_text("no TIFF")
    for name in ("plain.tif", "ome.tif", "undescribed.ome.tif", "text.tif", "none.tif"):
        assert read_description(tmp_path / name) is None


def test_damaged_files_have_no_description_or_the_right_one(tmp_path):
    path, random = tmp_path / "map.tif", np.random.default_rng(0)
    write_result(path, CLASSES[:1, :40, :40], Layout(), {"identity": "first"}, COLOURS)
    content = path.read_bytes()
    for _ in range(150):
        changed = bytearray(content)
        changed[random.integers(len(content))] = random.integers(256)
        path.write_bytes(changed[: random.integers(1, len(content)) if random.random() < 0.3 else None])
        found = read_description(path)
        assert found is None or isinstance(found, dict)
        try:
            read_page(path, 0)
        except ValueError as error:
            assert "map.tif cannot be read" in str(error)  # noqa: PT017 - most damage is of no consequence
