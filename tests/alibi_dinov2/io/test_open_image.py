# SPDX-License-Identifier: Apache-2.0
"""Regions of files of every kind have the values of the whole image, and wrong files are named."""

import tracemalloc
from contextlib import ExitStack

import numpy as np
import pytest
import tifffile
from PIL import Image

from alibi_dinov2.io.cells import CachedCells
from alibi_dinov2.io.images import read_image
from alibi_dinov2.io.open_image import open_image
from alibi_dinov2.io.pillow_images import open_pillow
from alibi_dinov2.io.sliced_image import SlicedImage
from tests.alibi_dinov2.io.grey_levels import expected_rgb

HEIGHT, WIDTH = 67, 90
GREY = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)
RGB = np.moveaxis(GREY, 0, -1)
RGBA = np.concatenate([RGB, GREY[:1].transpose(1, 2, 0)[::-1]], axis=-1)
GREY_16 = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
UNIT = np.random.default_rng(2).random((HEIGHT, WIDTH)).astype(np.float32)
REGIONS = [(slice(0, HEIGHT), slice(0, WIDTH)), (slice(3, 4), slice(55, 66)), (slice(15, 50), slice(31, 66))]
LAYOUTS = {
    "mapped": {},
    "strips": {"compression": "zlib", "rowsperstrip": 7},
    "tiles": {"compression": "zlib", "tile": (16, 32), "predictor": False},
    "plain tiles": {"tile": (32, 16)},
    "big": {"bigtiff": True, "compression": "zlib", "rowsperstrip": 100},
    "big-endian": {"byteorder": ">", "compression": "zlib", "rowsperstrip": 9},
    "big-endian mapped": {"byteorder": ">"},
}
ARRAYS = {
    "grey": GREY[0],
    "RGB": RGB,
    "RGBA": RGBA,
    "16-bit": GREY_16,
    "16-bit RGB": np.stack([GREY_16, GREY_16.T.reshape(HEIGHT, WIDTH), ~GREY_16], axis=-1),
    "int32": GREY_16.astype(np.int32),
    "small int16": GREY[0].astype(np.int16),
    "uint32": GREY_16.astype(np.uint32),
    "float": UNIT,
    "float to 255": UNIT * 255,
    "half": UNIT.astype(np.float16),
    "double RGB": np.stack([UNIT, UNIT**2, 1 - UNIT], axis=-1).astype(np.float64),
}


def require_regions(path, whole, index=0):
    with open_image(path) as image:
        assert image.shape == whole.shape[:2]
        for rows, columns in REGIONS:
            region = image.read(index, rows, columns)
            assert region.dtype == np.uint8
            np.testing.assert_array_equal(region, whole[rows, columns])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ARRAYS)
def test_regions_of_a_tiff_are_those_of_the_whole_array(tmp_path, kind, layout):
    array = ARRAYS[kind]
    photometric = "minisblack" if array.ndim == 2 else "rgb"
    tifffile.imwrite(tmp_path / "image.tif", array, photometric=photometric, **LAYOUTS[layout])
    require_regions(tmp_path / "image.tif", expected_rgb(array))


PILLOW = {
    **{f"{mode}.png": {"mode": mode} for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{f"{mode}.tif": {"mode": mode} for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")},
    "deflate.tif": {"mode": "RGB", "compression": "tiff_adobe_deflate"},
    "lzw.tif": {"mode": "RGB", "compression": "tiff_lzw"},
    "lzw16.tif": {"mode": "I;16", "compression": "tiff_lzw"},
    "group4.tif": {"mode": "1", "compression": "group4"},
    "jpeg.tif": {"mode": "RGB", "compression": "jpeg"},
    "I;16.png": {"mode": "I;16"},
    "I;16.tif": {"mode": "I;16"},
    "F.tif": {"mode": "F"},
    "I.tif": {"mode": "I"},
    "image.jpg": {"mode": "RGB"},
    "grey.jpg": {"mode": "L"},
    "image.bmp": {"mode": "RGB"},
    "image.webp": {"mode": "RGB"},
}


@pytest.mark.parametrize("name", PILLOW)
def test_regions_are_those_of_the_image_that_the_evaluations_read(tmp_path, name):
    mode, *_ = (options := dict(PILLOW[name])).pop("mode"), None
    source = {"I;16": GREY_16, "I": GREY_16.astype(np.int32), "F": UNIT}.get(mode, RGB)
    image = Image.fromarray(source) if source is not RGB else Image.fromarray(RGB).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(GREY[2]))
    image.save(tmp_path / name, **options)
    require_regions(tmp_path / name, np.asarray(read_image(tmp_path / name)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("layout", ["mapped", "strips", "tiles"])
def test_images_are_upright(tmp_path, orientation, layout):
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "image.tif", RGB, photometric="rgb", extratags=tags, **LAYOUTS[layout])
    require_regions(tmp_path / "image.tif", np.asarray(read_image(tmp_path / "image.tif")))
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RGB).save(tmp_path / "image.jpg", exif=exif)
    require_regions(tmp_path / "image.jpg", np.asarray(read_image(tmp_path / "image.jpg")))


STACKS = {
    "contiguous": {},
    "pages": {"compression": "zlib", "rowsperstrip": 7},
    "tiles": {"compression": "zlib", "tile": (16, 16)},
    "one page for all": {"truncate": True},
    "ImageJ": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "OME": {"ome": True, "compression": "zlib", "metadata": {"axes": "TYX"}},
}


@pytest.mark.parametrize("kind", STACKS)
def test_stack_has_a_slice_for_each_page(tmp_path, kind):
    stack = np.stack([GREY[0], GREY[1], GREY[2], 255 - GREY[0], GREY[1] // 2])
    path = tmp_path / ("stack.ome.tif" if kind == "OME" else "stack.tif")
    tifffile.imwrite(path, stack, photometric="minisblack", **STACKS[kind])
    with open_image(path) as image:
        assert (image.slices, image.shape) == (5, (HEIGHT, WIDTH))
        with pytest.raises(ValueError, match="has no slice 5; it has 5"):
            image.read(5, *REGIONS[0])
    for index in range(5):
        require_regions(path, expected_rgb(stack[index]), index)


def test_pages_that_were_written_one_by_one_are_a_stack(tmp_path):
    with tifffile.TiffWriter(tmp_path / "stack.tif") as writer:
        for page in GREY:
            writer.write(page, contiguous=False)
        writer.write(GREY[0, :20, :20])
    with open_image(tmp_path / "stack.tif") as image:
        assert (image.slices, image.shape) == (3, (HEIGHT, WIDTH)), "the thumbnail is left out"
    require_regions(tmp_path / "stack.tif", expected_rgb(GREY[2]), 2)


def read_all(path):
    with open_image(path) as image:
        return [image.read(index, slice(None), slice(None)) for index in range(image.slices)]


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_truncated_stack_does_not_pass_for_a_shorter_one(tmp_path, kind, share):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, GREY[[0, 1, 2, 1, 0]], photometric="minisblack", **STACKS[kind])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"stack\.tif cannot be read"):
        read_all(path)


def test_stack_that_pillow_reads_has_its_slices_too(tmp_path):
    pages = [Image.fromarray(page) for page in GREY]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    with ExitStack() as resources, open_image(tmp_path / "stack.tif") as image:
        by_pillow = SlicedImage(open_pillow(tmp_path / "stack.tif", resources), "stack.tif")
        for found in (image, by_pillow):
            assert (found.slices, found.shape) == (3, (HEIGHT, WIDTH))
            for index in (2, 0):
                np.testing.assert_array_equal(found.read(index, *REGIONS[0]), expected_rgb(GREY[index]))


def test_separate_colour_planes_are_one_image(tmp_path):
    for options in LAYOUTS.values():
        tifffile.imwrite(tmp_path / "planes.tif", GREY, photometric="rgb", planarconfig="separate", **options)
        require_regions(tmp_path / "planes.tif", RGB)


def test_palette_of_16_bits_has_its_colours(tmp_path):
    colours = np.random.default_rng(3).integers(0, 65536, (3, 65536), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", GREY_16, photometric="palette", colormap=colours)
    require_regions(tmp_path / "palette.tif", (colours.T[GREY_16] // 256).astype(np.uint8))


def test_white_may_be_zero(tmp_path):
    for array in (GREY[0], GREY_16, GREY[0] > 99):
        tifffile.imwrite(tmp_path / "image.tif", array, photometric="miniswhite")
        require_regions(tmp_path / "image.tif", 255 - expected_rgb(array))
        with open_image(tmp_path / "image.tif") as image:
            np.testing.assert_array_equal(image.stored(0, *REGIONS[0])[..., 0], array)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("scale", [1, 200])
def test_dark_region_of_a_bright_stack_stays_dark(tmp_path, compression, scale):
    stack = np.stack([UNIT * 0.5, UNIT * scale])
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack", compression=compression)
    with open_image(tmp_path / "stack.tif") as image:
        found = image.read(0, slice(5, 9), slice(0, 20))
    np.testing.assert_array_equal(found, expected_rgb(stack[0], stack)[5:9, :20])
    assert found.max() < 140


@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (32, 32)}])
def test_strips_and_tiles_are_decoded_once(tmp_path, monkeypatch, layout):
    tifffile.imwrite(tmp_path / "image.tif", GREY[0], compression="zlib", **layout)
    decoded = []
    read_cell = CachedCells.read_cell
    monkeypatch.setattr(CachedCells, "read_cell", lambda *place: (decoded.append(place[1:]), read_cell(*place))[1])
    with open_image(tmp_path / "image.tif") as image:
        for left in range(0, WIDTH, 10):
            image.read(0, slice(20, 40), slice(left, left + 10))
    assert decoded
    assert len(decoded) == len(set(decoded))


def test_region_of_a_large_image_takes_little_memory(tmp_path):
    side, tile = 16384, np.zeros((256, 256), np.uint16)
    tiles = (tile for _ in range((side // 256) ** 2))
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, tiles, shape=(side, side), dtype=tile.dtype, tile=tile.shape, compression="zlib")
    tracemalloc.start()
    with open_image(path) as image:
        image.read(0, slice(4000, 4200), slice(4000, 4200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # What the contrast is found on, 2 million pixels as they are and counted, and the 128 tiles around them; not the
    # 512 MiB of the image.
    assert peak < 64 * 2**20


def damaged(tmp_path, kind):
    path = tmp_path / "broken.tif"
    options = {"compression": "zlib", "rowsperstrip": 8} if "deflate" in kind else {}
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8), **options)
    content = path.read_bytes()
    if "truncated" in kind:
        content = content[: len(content) // 2]
    if "flipped" in kind:
        content = content[:40000] + bytes(255 - byte for byte in content[40000:40100]) + content[40100:]
    path.write_bytes({"empty": b"", "text": b"no image at all"}.get(kind, content))
    return path


@pytest.mark.parametrize("kind", ["truncated", "truncated deflate", "flipped deflate", "empty", "text"])
def test_damaged_tiff_is_named(tmp_path, kind):
    path = damaged(tmp_path, kind)
    with pytest.raises(ValueError, match=r"broken\.tif cannot be read as an image"):
        read_all(path)


def test_damaged_png_and_missing_file_are_named(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "broken.png").read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image \(image file is truncated"):
        open_image(tmp_path / "broken.png")
    for name in ("none.png", "none.tif"):
        with pytest.raises(FileNotFoundError, match="none"):
            open_image(tmp_path / name)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}])
def test_pixels_that_are_nan_are_counted(tmp_path, options):
    array = UNIT.copy()
    array[60:62, 5] = np.nan
    array[0, 0] = np.inf
    tifffile.imwrite(tmp_path / "nan.tif", array, **options)
    with (
        open_image(tmp_path / "nan.tif") as image,
        pytest.raises(ValueError, match=rf"nan\.tif has 3 NaN or infinite of {array.size} pixels"),
    ):
        image.read(0, slice(0, 2), slice(0, 2))


@pytest.mark.parametrize(
    "array",
    [UNIT - 0.5, UNIT * 300, UNIT * 1e-30, GREY[0].astype(np.int16) - 9, GREY_16.astype(np.int64) << 40],
    ids=["minus", "300", "tiny", "int16", "int64"],
)
def test_values_of_any_range_are_read(tmp_path, array):
    tifffile.imwrite(tmp_path / "image.tif", array, photometric="minisblack")
    require_regions(tmp_path / "image.tif", expected_rgb(array))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_of_a_tiff_are_read_as_its_file(tmp_path, layout):
    tifffile.imwrite(tmp_path / "image.tif", GREY_16, photometric="minisblack", **LAYOUTS[layout])
    with open_image((tmp_path / "image.tif").read_bytes()) as image:
        np.testing.assert_array_equal(image.read(0, slice(3, 40), slice(20, 66)), expected_rgb(GREY_16)[3:40, 20:66])


@pytest.mark.parametrize("big", [False, True])
def test_pages_in_a_circle_are_refused(tmp_path, big):
    path = tmp_path / "circle.tif"
    tifffile.imwrite(path, GREY, photometric="minisblack", bigtiff=big)
    with tifffile.TiffFile(path) as file:
        last = file.pages[2].offset
        size, tag, count = (8, 20, 8) if big else (4, 12, 2)
        place = last + count + tag * len(file.pages[2].tags)
        first = file.pages[0].offset.to_bytes(size, "little")
    content = path.read_bytes()
    path.write_bytes(content[:place] + first + content[place + size :])
    with pytest.raises(ValueError, match=r"circle\.tif .*in a circle"):
        open_image(path)
