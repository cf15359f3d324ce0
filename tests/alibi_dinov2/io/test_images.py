# SPDX-License-Identifier: Apache-2.0
"""Images of all kinds are found, read and converted, or refused by name."""

import io

import numpy as np
import pytest
from PIL import Image

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
