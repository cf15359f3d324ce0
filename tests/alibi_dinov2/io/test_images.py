# SPDX-License-Identifier: Apache-2.0
"""Images of all kinds are found, read and converted, or refused by name."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from alibi_dinov2.io.images import find_images, read_folder, read_image

GREY = np.linspace(0, 255, 20 * 30).reshape(20, 30).round().astype(np.uint8)


def saved(tmp_path, image, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_greyscale_becomes_three_equal_channels(tmp_path):
    image = read_image(saved(tmp_path, Image.fromarray(GREY)))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.stack([GREY] * 3, axis=-1))


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_16_bits_keep_their_full_range(tmp_path, name):
    image = read_image(saved(tmp_path, Image.fromarray(GREY.astype(np.uint16) * 257), name))
    np.testing.assert_array_equal(np.asarray(image)[..., 0], GREY)


def test_transparency_is_white(tmp_path):
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[:2, :, 3] = 255
    image = np.asarray(read_image(saved(tmp_path, Image.fromarray(pixels))))
    assert (image[:2] == 0).all()
    assert (image[2:] == 255).all()


def test_palette_is_resolved(tmp_path):
    colours = np.zeros((8, 8, 3), dtype=np.uint8)
    colours[:4] = (255, 0, 0)
    image = read_image(saved(tmp_path, Image.fromarray(colours).quantize(4)))
    np.testing.assert_array_equal(np.asarray(image), colours)


def test_orientation_of_a_camera_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image = read_image(saved(tmp_path, Image.fromarray(GREY), "image.jpg", exif=exif))
    assert image.size == (20, 30)


def test_bytes_are_read_like_a_file(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "PNG")
    np.testing.assert_array_equal(
        np.asarray(read_image(buffer.getvalue())), np.asarray(read_image(saved(tmp_path, Image.fromarray(GREY))))
    )


@pytest.mark.parametrize("keep", [0, 30, 0.5])
def test_truncated_jpeg_is_named(tmp_path, keep):
    path = saved(tmp_path, Image.fromarray(GREY).resize((300, 200)), "broken.jpg")
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read as an image"):
        read_image(path)


def test_nan_pixels_are_refused_with_the_name(tmp_path):
    pixels = np.full((8, 8), 0.5, dtype=np.float32)
    pixels[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"image\.tif.*1 NaN or infinite"):
        read_image(saved(tmp_path, Image.fromarray(pixels), "image.tif"))


def test_images_are_found_in_subfolders_sorted(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("c.PNG", "a.png", "b/d.png"):
        Image.fromarray(GREY).save(tmp_path / name, "PNG")
    (tmp_path / "notes.txt").write_text("no image")
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == ["a.png", "b/d.png", "c.PNG"]
    assert len(read_folder(tmp_path)) == 3


def test_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(FileNotFoundError, match="contains no image"):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        find_images(tmp_path / "missing")


def exif_block(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block with these entries: tag, type, number of values, and the four bytes of value or offset."""
    content = b"".join(struct.pack("<HHL4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(entries)) + content + bytes(4)


def with_exif(tmp_path, exif: bytes):
    """A JPEG of 30×20 stored pixels with an EXIF block."""
    return saved(tmp_path, Image.fromarray(GREY), "image.jpg", exif=exif)


QUARTER_TURN = (0x0112, 3, 1, struct.pack("<L", 6))
DAMAGED_ENTRIES = {
    "text where a number belongs": (0x8769, 2, 4, b"abc\0"),
    "rational without a denominator": (0x011A, 5, 1, struct.pack("<L", 2)),
    "data beyond the end": (0x010E, 2, 5000, struct.pack("<L", 10_000)),
    "gigabytes of data": (0x010F, 2, 2**32 - 1, struct.pack("<L", 8)),
    "unknown type": (0x0110, 77, 1, bytes(4)),
    "a number of another type": (0x0131, 4, 1, struct.pack("<L", 2**32 - 1)),
    "directory outside": (0x8825, 4, 1, struct.pack("<L", 2**31)),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, when it opens them
@pytest.mark.parametrize("entry", DAMAGED_ENTRIES.values(), ids=DAMAGED_ENTRIES.keys())
def test_damaged_entry_beside_the_orientation_does_not_lose_it(tmp_path, entry):
    plain = read_image(with_exif(tmp_path, b"")).transpose(Image.Transpose.ROTATE_270)
    for entries in ([entry, QUARTER_TURN], [QUARTER_TURN, entry]):
        image = read_image(with_exif(tmp_path, exif_block(*entries)))
        np.testing.assert_array_equal(np.asarray(image), np.asarray(plain))


@pytest.mark.parametrize("value", range(9))
def test_orientations_are_those_of_pillow(tmp_path, value):
    path = with_exif(tmp_path, exif_block((0x0112, 3, 1, struct.pack("<L", value))))
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file))
    np.testing.assert_array_equal(np.asarray(read_image(path))[..., 0], expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("exif", "message"),
    [
        (exif_block((0x0112, 3, 1, struct.pack("<L", 77))), "orientation is 77; it must be 1 to 8"),
        (exif_block((0x0112, 2, 4, b"abc\0")), "orientation is of type 2 with 4 values"),
        (exif_block((0x010F, 2, 1, b"a"), QUARTER_TURN)[:30], "unpack_from requires a buffer"),
        (b"Exif\0\0II*\0", "unpack_from requires a buffer"),
        (b"Exif\0\0nothing of the kind", "begins with b'no' instead of II or MM"),
    ],
)
def test_orientation_that_cannot_be_told_is_an_error_with_the_name(tmp_path, exif, message):
    with pytest.raises(ValueError, match=rf"image\.jpg cannot be read as an image \(.*{message}"):
        read_image(with_exif(tmp_path, exif))


def test_orientation_in_xmp_is_applied(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert read_image(saved(tmp_path, Image.fromarray(GREY), "image.jpg", xmp=xmp)).size == (20, 30)


def mode_or_message(path) -> str:
    """The mode of an image that can be read, or the message that says why it cannot."""
    try:
        return read_image(path).mode
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("suffix", [".bmp", ".jpg", ".png", ".tif", ".webp"])
def test_any_truncation_or_change_of_a_byte_is_read_or_named(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    options = {".png": {"exif": exif_block(QUARTER_TURN)}, ".tif": {"compression": "tiff_lzw"}}.get(suffix, {})
    Image.fromarray(GREY).save(path, **options)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(150):
            place = int(random.integers(min(len(whole), 400)))
            path.write_bytes(
                whole[:place] + bytes([random.integers(256)]) + (whole[place + 1 :] if number % 2 else b"")
            )
            outcome = mode_or_message(path)
            assert outcome == "RGB" or outcome.startswith(f"{path} cannot be read as an image")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.tif", {"compression": "tiff_lzw"}), ("a.webp", {})])
def test_images_beyond_pillows_limit_are_read_and_the_limit_stays(tmp_path, monkeypatch, name, options):
    path = saved(tmp_path, Image.fromarray(GREY), name, **options)
    expected = np.asarray(read_image(path))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(np.asarray(read_image(path)), expected)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ValueError, match="cannot be read"):
        read_image(b"no image")
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_that_read_large_images_leave_pillows_limit_as_it_was(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(GREY), "a.tif", compression="tiff_lzw")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(read_image, [path] * 200))) == 200
    assert Image.MAX_IMAGE_PIXELS == 100


def test_image_larger_than_the_memory_is_refused_with_both_figures(tmp_path):
    path = saved(tmp_path, Image.fromarray(GREY))
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">LL", 2_000_000, 1_000_000) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">L", zlib.crc32(header)) + content[33:])
    with pytest.raises(ValueError, match=r"image\.png .*2000000×1000000 pixels .* needs 22352 GiB .* where \d+ GiB"):
        read_image(path)


def test_hidden_files_and_folders_are_no_images(tmp_path):
    folder = tmp_path / ".cache" / "images"
    for name in ("a.png", "._a.png", ".hidden/b.png", "sub/.c.png", "sub/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY).save(folder / name)
    (folder / ".DS_Store").write_bytes(b"")
    assert [path.relative_to(folder).as_posix() for path in find_images(folder)] == ["a.png", "sub/d.png"]
