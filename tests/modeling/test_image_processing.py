# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from modeling_alibi_dinov2 import (
    Dinov2AlibiImageProcessor,
)
from tests.comparison import assert_close
from tests.modeling.pictures import (
    ALPHA,
    BINARY,
    GREY,
    GREY_AS_RGB,
    RGB,
    SAME_PIXELS,
    STD,
    normalised,
    over_white,
    picture,
    pixels_of,
)

# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(300, 300), (500, 333), (250, 700), (90, 60), (224, 224)])
def test_the_defaults_give_the_pixels_of_dinov2(dinov2_processor, size):
    image = picture(*size)
    actual = pixels_of(Dinov2AlibiImageProcessor(), image)
    assert actual.shape == (1, 3, 224, 224)
    assert actual.dtype == torch.float32
    assert_close(actual, pixels_of(dinov2_processor, image), 0.0, SAME_PIXELS)


@pytest.mark.parametrize("edge", [224, 518])
def test_a_whole_square_image_has_the_pixels_of_dinov2(dinov2_processor, edge):
    image, choices = picture(300, 300), {"size": {"shortest_edge": edge}, "do_center_crop": False}
    actual = pixels_of(Dinov2AlibiImageProcessor(), image, **choices)
    assert actual.shape == (1, 3, edge, edge)
    assert_close(actual, pixels_of(dinov2_processor, image, **choices), 0.0, SAME_PIXELS)


@pytest.mark.parametrize(
    ("size", "edge", "expected"),
    [
        ((480, 640), 224, (224, 294)),  # 298.7 columns
        ((640, 480), 224, (294, 224)),
        ((480, 650), 224, (224, 308)),  # 303.3 columns
        ((650, 480), 224, (308, 224)),
        ((480, 640), 256, (252, 336)),  # 256 rows, 341.3 columns
        ((100, 1000), 140, (140, 1400)),
        ((10, 20), 224, (224, 448)),
        ((1, 40), 14, (14, 560)),
        ((300, 300), 5, (14, 14)),
    ],
)
def test_a_whole_image_is_resized_to_the_nearest_whole_patches(size, edge, expected):
    processor = Dinov2AlibiImageProcessor(size={"shortest_edge": edge}, do_center_crop=False)
    assert pixels_of(processor, picture(*size)).shape == (1, 3, *expected)


@pytest.mark.parametrize("patch_size", [8, 14, 16])
@pytest.mark.parametrize("do_resize", [True, False])
def test_the_sides_are_always_multiples_of_the_patch(patch_size, do_resize):
    processor = Dinov2AlibiImageProcessor(
        patch_size=patch_size, do_resize=do_resize, do_center_crop=False, size={"shortest_edge": 100}
    )
    for height in (31, 64, 99):
        for width in (33, 70, 150):
            rows, columns = pixels_of(processor, picture(height, width)).shape[-2:]
            assert rows % patch_size == columns % patch_size == 0
            assert min(rows, columns) > 0


def test_an_explicit_size_is_kept():
    processor = Dinov2AlibiImageProcessor(size={"height": 140, "width": 280}, do_center_crop=False)
    assert pixels_of(processor, picture(90, 60)).shape == (1, 3, 140, 280)


@pytest.mark.parametrize(("height", "width"), [(28, 42), (30, 50), (41, 55)])
def test_without_resizing_an_image_keeps_its_central_pixels(as_they_are, height, width):
    image = np.asarray(picture(height, width))
    actual = pixels_of(as_they_are, image)
    assert actual.shape == (1, 3, 28, 42)
    top, left = (height - 28) // 2, (width - 42) // 2
    expected = normalised(image[top : top + 28, left : left + 42])
    assert_close(actual, expected, 1e-6, "float32 against float64")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (
            {"size": {"height": 100, "width": 140}, "do_center_crop": False},
            "`size` is 100×140; .* 14 pixels, such as 98 or 112",
        ),
        ({"crop_size": {"height": 224, "width": 225}}, "`crop_size` is 224×225; .* patch size, 14 pixels, such as 224"),
        ({"crop_size": {"height": 5, "width": 14}}, "`crop_size` is 5×14; .* patch size, 14 pixels, such as 14 or 28"),
        ({"patch_size": 15}, "`crop_size` is 224×224; .* patch size, 15 pixels, such as 210 or 225"),
        (
            {"do_pad": True, "pad_size": {"height": 300, "width": 308}},
            "`pad_size` is 300×308; .* 14 pixels, such as 294 or 308",
        ),
        ({"size": {"longest_edge": 224}, "do_center_crop": False}, "`size` is .*; it must have 'shortest_edge', or"),
        (
            {"size": {"shortest_edge": 224, "longest_edge": 300}, "do_center_crop": False},
            "`size` is .*; it must have 'shortest_edge', or 'height' and 'width'",
        ),
    ],
)
def test_a_request_that_is_no_multiple_of_the_patch_is_refused(choices, said):
    with pytest.raises(ValueError, match=said):
        Dinov2AlibiImageProcessor(**choices)(picture(300, 300))
    with pytest.raises(ValueError, match=said):
        Dinov2AlibiImageProcessor()(picture(300, 300), **choices)


@pytest.mark.parametrize("size", [(13, 100), (100, 13), (1, 1)])
def test_an_image_smaller_than_a_patch_is_refused_unless_resized(as_they_are, size):
    with pytest.raises(ValueError, match=f"{size[0]}×{size[1]} pixels, smaller than one patch of 14×14.*do_resize=Tr"):
        as_they_are(picture(*size))
    assert pixels_of(Dinov2AlibiImageProcessor(), picture(*size)).shape == (1, 3, 224, 224)


# --- kinds of image -------------------------------------------------------------------------------------------------


def with_transparency(image: Image.Image, value: int) -> Image.Image:
    image.info["transparency"] = value
    return image


PALETTE = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE)
PALETTE_AS_RGB = np.asarray(PALETTE.convert("RGB"))

YCBCR = Image.fromarray(RGB).convert("YCbCr")

PIL_IMAGES = {
    "RGB": (Image.fromarray(RGB), RGB),
    "L": (Image.fromarray(GREY), GREY_AS_RGB),
    "1": (Image.fromarray(BINARY), np.stack([BINARY * 255] * 3, axis=-1)),
    "P": (PALETTE, PALETTE_AS_RGB),
    "LA": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), over_white(GREY_AS_RGB, ALPHA)),
    "RGBA": (Image.fromarray(np.dstack([RGB, ALPHA])), over_white(RGB, ALPHA)),
    "P with a transparent colour": (
        with_transparency(PALETTE.copy(), 3),
        np.where((np.asarray(PALETTE) == 3)[..., None], 255, PALETTE_AS_RGB),
    ),
    "L with a transparent grey": (
        with_transparency(Image.fromarray(GREY), 100),
        np.where(GREY_AS_RGB == 100, 255, GREY_AS_RGB),
    ),
    "CMYK": (Image.fromarray(RGB).convert("CMYK"), RGB),
    "YCbCr": (YCBCR, np.asarray(YCBCR.convert("RGB"))),
    "La": (
        Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(np.full_like(ALPHA, 255))]).convert("La"),
        GREY_AS_RGB,
    ),
    "RGBa": (Image.fromarray(np.dstack([RGB, np.full_like(ALPHA, 255)])).convert("RGBa"), RGB),
    "I": (Image.fromarray(GREY.astype(np.int32) * 257), GREY_AS_RGB),
    "I;16": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY_AS_RGB),
    "I;16B": (Image.frombytes("I;16B", (42, 28), (GREY.astype(">u2") * 257).tobytes()), GREY_AS_RGB),
    "F in [0, 1]": (Image.fromarray(GREY.astype(np.float32) / 255), GREY_AS_RGB),
    "F in [0, 255]": (Image.fromarray(GREY.astype(np.float32)), GREY_AS_RGB),
}

ARRAYS = {
    "8-bit (H, W)": (GREY, GREY_AS_RGB),
    "8-bit (H, W, 1)": (GREY[..., None], GREY_AS_RGB),
    "8-bit (1, H, W)": (GREY[None], GREY_AS_RGB),
    "8-bit (H, W, 3)": (RGB, RGB),
    "8-bit (3, H, W)": (RGB.transpose(2, 0, 1), RGB),
    "8-bit (H, W, 4)": (np.dstack([RGB, ALPHA]), over_white(RGB, ALPHA)),
    "boolean (H, W)": (BINARY, np.stack([BINARY * 255] * 3, axis=-1)),
    "16-bit (H, W)": (GREY.astype(np.uint16) * 257, GREY_AS_RGB),
    "16-bit (H, W, 3)": (RGB.astype(np.uint16) * 257, RGB),
    "16-bit, big-endian, (H, W)": ((GREY.astype(np.uint16) * 257).astype(">u2"), GREY_AS_RGB),
    "16-bit, little-endian, (H, W)": ((GREY.astype(np.uint16) * 257).astype("<u2"), GREY_AS_RGB),
    "int32, big-endian": (RGB.astype(">i4"), RGB),
    "float32, big-endian, in [0, 1]": ((RGB / 255).astype(">f4"), RGB),
    "float64, big-endian, in [0, 255]": (RGB.astype(">f8"), RGB),
    "float32 in [0, 1], rounded beyond it": (np.nextafter((RGB / 255).astype(np.float32), np.float32(2)), RGB),
    "int32 in [0, 255]": (RGB.astype(np.int32), RGB),
    "int64 in [0, 65535]": (RGB.astype(np.int64) * 257, RGB),
    "float64 in [0, 1]": (RGB / 255, RGB),
    "float32 in [0, 255]": (RGB.astype(np.float32), RGB),
    "float16 in [0, 1], (H, W)": ((GREY / 255).astype(np.float16), GREY_AS_RGB),
    "tensor, 8-bit (3, H, W)": (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
    "tensor, 8-bit (H, W)": (torch.from_numpy(GREY), GREY_AS_RGB),
    "tensor, float32 in [0, 1]": (torch.from_numpy(RGB).permute(2, 0, 1) / 255, RGB),
    "tensor with a graph": ((torch.from_numpy(RGB).permute(2, 0, 1) / 255).requires_grad_(), RGB),
}


@pytest.mark.parametrize("kind", PIL_IMAGES)
def test_a_pil_image_of_any_mode_becomes_rgb(as_they_are, kind):
    image, expected = PIL_IMAGES[kind]
    assert_close(pixels_of(as_they_are, image), normalised(expected), 1e-6, "float32 against float64")


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_of_any_kind_becomes_rgb(as_they_are, kind):
    image, expected = ARRAYS[kind]
    assert_close(pixels_of(as_they_are, image), normalised(expected), 1e-6, "float32 against float64")


def test_a_half_precision_tensor_is_read_as_well_as_it_can(as_they_are):
    image = (torch.from_numpy(RGB).permute(2, 0, 1) / 255).bfloat16()
    assert_close(pixels_of(as_they_are, image), normalised(RGB), 1.01 / 255 / STD.min(), "bfloat16 has 8 bits")


def test_many_images_at_once(as_they_are):
    expected = np.concatenate([normalised(RGB), normalised(GREY_AS_RGB), normalised(RGB)])
    assert_close(pixels_of(as_they_are, [RGB, GREY[None], RGB.transpose(2, 0, 1)]), expected, 1e-6, "float32")
    images = [Image.fromarray(RGB), Image.fromarray(GREY), Image.fromarray(RGB)]
    assert_close(pixels_of(as_they_are, images), expected, 1e-6, "float32")
    assert_close(pixels_of(as_they_are, np.stack([RGB, RGB]))[1:], normalised(RGB), 1e-6, "float32")
    assert_close(pixels_of(as_they_are, [GREY, GREY])[1:], normalised(GREY_AS_RGB), 1e-6, "float32")


def test_no_image_gives_no_pixels(as_they_are):
    assert as_they_are([])["pixel_values"] == []


def test_images_of_different_sizes_come_as_a_list_or_padded(as_they_are):
    images = [picture(28, 42), picture(60, 30)]
    assert [array.shape for array in as_they_are(images)["pixel_values"]] == [(3, 28, 42), (3, 56, 28)]
    assert pixels_of(as_they_are, images, do_pad=True).shape == (2, 3, 56, 42)


def test_the_layout_can_be_told(as_they_are):
    image = np.zeros((3, 28, 3), dtype=np.uint8)
    assert pixels_of(as_they_are, image, input_data_format="channels_last", do_resize=True).shape[-1] > 28
    with pytest.raises(ValueError, match=r"shape \(28, 42, 3\); .* `input_data_format`"):
        as_they_are(RGB, input_data_format="channels_first")


def test_a_pil_image_three_pixels_high_is_not_taken_for_channels():
    processor = Dinov2AlibiImageProcessor(do_center_crop=False, size={"shortest_edge": 14})
    assert pixels_of(processor, picture(3, 30)).shape == (1, 3, 14, 140)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.where(RGB > 250, np.nan, RGB / 255), r"has \d+ NaN or infinite of 3528 values.*nan_to_num"),
        (np.where(RGB > 250, -np.inf, RGB / 255), r"has \d+ NaN or infinite of 3528 values.*nan_to_num"),
        (torch.full((3, 28, 28), torch.inf), "has 2352 NaN or infinite of 2352 values"),
        (Image.fromarray(np.full((28, 28), np.nan, dtype=np.float32)), "has 784 NaN or infinite of 784 values"),
        (RGB.astype(np.complex64), r"dtype complex64; .*boolean, integer or floating"),
        (np.zeros((28, 28, 2), dtype=np.uint8), r"shape \(28, 28, 2\); .* with 1, 3 or 4 channels"),
        (np.zeros((28, 28, 5), dtype=np.uint8), r"shape \(28, 28, 5\); .* with 1, 3 or 4 channels"),
        (np.zeros((0, 28, 3), dtype=np.uint8), r"shape \(0, 28, 3\); it must be"),
    ],
)
def test_pixels_that_are_no_image_are_refused(as_they_are, image, said):
    with pytest.raises(ValueError, match=said):
        as_they_are(image)
    with pytest.raises(ValueError, match=said):
        Dinov2AlibiImageProcessor()(image)


def test_steps_can_be_left_out(as_they_are):
    plain = {"do_rescale": False, "do_normalize": False}
    assert_close(pixels_of(as_they_are, RGB, **plain)[0], RGB.transpose(2, 0, 1), 0.0, "nothing is done")
    assert pixels_of(as_they_are, GREY, do_convert_rgb=False, **plain).shape == (1, 1, 28, 42)
    assert pixels_of(as_they_are, Image.fromarray(GREY), do_convert_rgb=False, **plain).shape == (1, 1, 28, 42)


def test_floating_pixels_that_are_not_to_be_rescaled_are_refused(as_they_are):
    with pytest.raises(ValueError, match=r"`do_rescale` is False.* float64 values.*`do_rescale=True`"):
        as_they_are(RGB / 255, do_rescale=False)


# --- saving ---------------------------------------------------------------------------------------------------------


def test_every_choice_survives_save_and_load(tmp_path):
    choices = {"patch_size": 16, "size": {"shortest_edge": 208}, "do_center_crop": False, "image_mean": [0.1, 0.2, 0.3]}
    processor = Dinov2AlibiImageProcessor(**choices)
    processor.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is Dinov2AlibiImageProcessor
    assert loaded.to_dict() == processor.to_dict()
    image = picture(100, 155)
    pixels = pixels_of(loaded, image)
    assert pixels.shape == (1, 3, 208, 320)
    assert_close(pixels, pixels_of(processor, image), 0.0, SAME_PIXELS)
