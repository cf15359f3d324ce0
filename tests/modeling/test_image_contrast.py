# SPDX-License-Identifier: Apache-2.0
"""How the image processor makes grey levels of values: as the segmenter and the reader of files do, by one setting."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline
from transformers.image_utils import IMAGENET_DEFAULT_STD

from alibi_dinov2.io.image_regions import ArrayImage, as_images, fit_contrast
from alibi_dinov2.io.images import read_image
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor, Dinov2AlibiModel
from modeling_alibi_dinov2.contrast import Contrast
from tests.alibi_dinov2.io.grey_levels import expected_rgb
from tests.comparison import assert_close
from tests.modeling.pictures import ALPHA, GREY, RGB, SAME_PIXELS, picture, pixels_of
from tests.stranger import run_as_stranger
from training.export import export

REPOSITORY = Path(__file__).parents[2]
SHAPE = (56, 70)
WHOLE = slice(None), slice(None)
GREY_LEVELS = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
FLOATING = {"do_resize": False, "do_center_crop": False, "do_normalize": False}  # what the next line divides by


def levels_of(image, processor=None, **choices) -> np.ndarray:
    """The grey levels, `(H, W, 3)` uint8, that the processor makes of an image whose sides are whole patches."""
    pixels = pixels_of(processor or Dinov2AlibiImageProcessor(), image, **(FLOATING | choices))[0] * 255
    levels = pixels.round()
    assert (pixels - levels).abs().max() < 1e-4, "they are whole numbers, but for float32"
    return levels.to(torch.uint8).permute(1, 2, 0).numpy()


def segmenter_sees(array: np.ndarray) -> np.ndarray:
    return ArrayImage(array).read(0, *WHOLE)


VALUES = {
    "uint8": lambda noise: (255 * noise).astype(np.uint8),
    "bool": lambda noise: noise > 0.3,
    "12 bits in 16": lambda noise: (4095 * noise).astype(np.uint16),
    "a narrow part of 16 bits": lambda noise: (20_000 + 100 * noise).astype(np.uint16),
    "16 bits with hot pixels": lambda noise: np.where(noise > 0.9995, 65535, 200 + 300 * noise).astype(np.uint16),
    "big-endian": lambda noise: (300 + 900 * noise).astype(">u2"),
    "int8": lambda noise: (250 * noise - 125).astype(np.int8),
    "int16": lambda noise: (900 * noise - 450).astype(np.int16),
    "int32": lambda noise: (1e6 * noise).astype(np.int32) - 5,
    "uint32": lambda noise: (2**31 + 5000 * noise).astype(np.uint32),
    "large int64": lambda noise: (900 * noise).astype(np.int64) + 2**60,
    "float16": lambda noise: (100 * noise).astype(np.float16),
    "float32 in [0, 1]": lambda noise: (0.2 + 0.1 * noise).astype(np.float32),
    "float32 around 0": lambda noise: (6 * noise - 3).astype(np.float32),
    "big-endian float32": lambda noise: (5 * noise).astype(">f4"),
    "huge float64": lambda noise: 1e300 * noise,
    "tiny float32": lambda noise: (1e-30 * noise).astype(np.float32),
    "ten values": lambda noise: (10 * noise).astype(np.uint16) * 37,
    "constant": lambda noise: np.full(noise.shape, 700, np.uint16),
}


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
@pytest.mark.parametrize("kind", VALUES)
def test_the_processor_sees_what_the_segmenter_and_the_reader_see(tmp_path, kind, channels):
    """Three random images of each kind; most of the grey levels that there can be are left."""
    for seed in range(3):
        noise = np.random.default_rng(seed).random((*SHAPE, channels) if channels else SHAPE)
        array = VALUES[kind](noise)
        found = levels_of(array)
        np.testing.assert_array_equal(found, segmenter_sees(array))
        if channels < 4:  # and else it is seen through what lies over it
            colours = array if channels else array[..., None]
            assert len(np.unique(found)) >= 0.6 * min(64, len(np.unique(colours)))
        if array.dtype in (np.float16, np.bool_):  # which tifffile writes otherwise, or not at all
            continue
        photometric = "rgb" if channels >= 3 else "minisblack"
        extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        tifffile.imwrite(tmp_path / "image.tif", array, photometric=photometric, **extra)
        np.testing.assert_array_equal(found, np.asarray(read_image(tmp_path / "image.tif")))


@pytest.mark.parametrize("channels", [0, 3])
def test_grey_levels_are_those_that_a_slow_loop_finds(channels):
    noise = np.random.default_rng(5).random((*SHAPE, channels) if channels else SHAPE)
    for array in ((300 + 900 * noise).astype(np.uint16), (6 * noise - 3).astype(np.float32)):
        np.testing.assert_array_equal(levels_of(array), expected_rgb(array))


def test_of_a_large_image_the_same_pixels_are_looked_at():
    """Brightness grows across more pixels than a contrast is found on, so that other ones would give another."""
    rows, columns = np.mgrid[:1540, :1540]
    array = (np.hypot(rows, columns) ** 3 / 2e5).astype(np.uint16)
    assert array.size > 2**21
    np.testing.assert_array_equal(levels_of(array), segmenter_sees(array))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F", "tensor", "channels first"])
def test_an_image_is_the_same_in_whatever_it_comes(mode):
    values = np.random.default_rng(2).integers(300, 3500, SHAPE)
    array = values.astype(np.float32 if mode == "F" else np.int32 if mode == "I" else np.uint16)
    images = {
        "I;16B": lambda: Image.frombytes("I;16B", SHAPE[::-1], array.astype(">u2").tobytes()),
        "tensor": lambda: torch.from_numpy(array.astype(np.int32)),
        "channels first": lambda: array[None],
    }
    image = images.get(mode, lambda: Image.fromarray(array))()
    np.testing.assert_array_equal(levels_of(image), expected_rgb(array))


def test_a_tensor_keeps_its_precision():
    array = 1e6 + np.random.default_rng(2).random(SHAPE)  # nearly constant in single precision
    np.testing.assert_array_equal(levels_of(torch.from_numpy(array)), expected_rgb(array))


# --- one contrast for a call, and others ----------------------------------------------------------------------------

NOISE = np.random.default_rng(7).random(SHAPE)
DARK, BRIGHT = ((scale * NOISE).astype(np.uint16) for scale in (300, 3000))


def test_all_images_of_a_call_have_one_contrast():
    dark, bright = Dinov2AlibiImageProcessor()([DARK, BRIGHT], **FLOATING)["pixel_values"]
    contrast = fit_contrast(as_images([DARK, BRIGHT]))
    for found, array in ((dark, DARK), (bright, BRIGHT)):
        (image,) = as_images(array, contrast)
        assert_close(found, image.read(0, *WHOLE).transpose(2, 0, 1) / 255, 1e-6, "float32")
    assert dark.max() < 0.12, "the dark one stays dark"
    assert bright.max() == 1


def test_each_image_may_have_its_own_contrast():
    dark, bright = Dinov2AlibiImageProcessor(contrast="per-image")([DARK, BRIGHT], **FLOATING)["pixel_values"]
    assert_close(dark, segmenter_sees(DARK).transpose(2, 0, 1) / 255, 1e-6, "float32")
    assert dark.max() == bright.max() == 1
    mixed = Dinov2AlibiImageProcessor()([DARK, GREY, NOISE], contrast="per-image", **FLOATING)["pixel_values"]
    assert [image.max() for image in mixed] == [1, GREY.max() / 255, 1]


def test_a_range_is_black_to_white_for_every_type():
    expected = np.round(np.clip((BRIGHT - 1000.0) / 1000, 0, 1) * 255)[..., None].repeat(3, axis=-1)
    for image in (BRIGHT, BRIGHT.astype(np.int64), BRIGHT.astype(np.float32)):
        np.testing.assert_array_equal(levels_of(image, contrast=(1000, 2000)), expected)
    assert levels_of(GREY, contrast=(0, 100)).max() == 255, "and of 8 bits too, since it was asked for"


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_the_full_range_of_16_bits_is_divided_by_257(byte_order):
    values = np.array([[0, 128, 257, 32896, 65535]], byte_order + "u2").repeat(14, axis=0).repeat(14, axis=1)
    assert levels_of(values, contrast="full-range")[0, ::14, 0].tolist() == [0, 0, 1, 128, 255]
    assert (levels_of(np.full((14, 14), 200, byte_order + "u2"), contrast="full-range") == 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_floats_from_0_to_1_come_out_as_from_dinov2_in_full_range(dinov2_processor, dtype):
    image = 0.25 + np.asarray(picture(300, 400)) / 1021  # never black nor white, nor halfway between grey levels
    processor = Dinov2AlibiImageProcessor(contrast="full-range")
    grey_levels = np.round(image * 255).astype(np.uint8)
    found = pixels_of(processor, image.astype(dtype))
    assert_close(found, pixels_of(dinov2_processor, grey_levels), 0.0, SAME_PIXELS)
    # Without a step that brings it to 8 bits, the stock processor keeps what lies between them.
    whole = np.ascontiguousarray(image[:294, :392])
    stock = pixels_of(dinov2_processor, whole, do_resize=False, do_center_crop=False, do_rescale=False)
    ours = pixels_of(processor, whole.astype(dtype), do_resize=False, do_center_crop=False)
    assert_close(ours, stock, 0.501 / 255 / min(IMAGENET_DEFAULT_STD), "half a grey level")


def test_floats_a_rounding_beyond_1_are_in_the_full_range():
    image = np.nextafter(np.float32(0.25) + RGB[:28, :42].astype(np.float32) / 340, np.float32(2))
    assert image.max() > 1
    expected = np.round(np.minimum(image, 1) * 255)
    np.testing.assert_array_equal(levels_of(image, contrast="full-range"), expected)


def test_opacity_is_not_stretched():
    colours = (300 + 900 * np.random.default_rng(3).random((28, 42, 3))).astype(np.uint16)
    image = np.dstack([colours, ALPHA.astype(np.uint16) * 257])
    found = levels_of(image)
    np.testing.assert_array_equal(found, expected_rgb(image))
    share = ALPHA[..., None] / 255
    np.testing.assert_array_equal(found, np.round(share * expected_rgb(colours) + (1 - share) * 255))
    samples = pixels_of(Dinov2AlibiImageProcessor(), image, do_convert_rgb=False, **GREY_LEVELS)[0]
    np.testing.assert_array_equal(samples[3], ALPHA)


# --- a contrast that is saved ---------------------------------------------------------------------------------------

IN_A_FRESH_PROCESS = """
import sys
import numpy as np
import modeling_alibi_dinov2
from transformers import AutoImageProcessor
values = np.load(sys.argv[1])
for folder in sys.argv[2:]:
    processor = AutoImageProcessor.from_pretrained(folder)
    np.save(folder + "/pixels.npy", processor(values, return_tensors="np")["pixel_values"])
"""
BY_A_STRANGER = """
import json
import numpy as np
from transformers import AutoImageProcessor
folder, values, *settings = sys.argv[1:]
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(processor).__module__.startswith("transformers_modules")
for number, setting in enumerate(settings):
    pixels = processor(np.load(values), return_tensors="np", contrast=json.loads(setting))["pixel_values"]
    np.save(f"{number}.npy", pixels)
"""
ON_A_SERIES = fit_contrast(as_images([DARK, BRIGHT]))
SETTINGS = {
    "auto": "auto",
    "per-image": "per-image",
    "full-range": "full-range",
    "range": (100, 2500.5),
    "range of NumPy's numbers": (DARK.min(), np.float32(2500)),
    "found on a series": ON_A_SERIES,
    "found and saved": ON_A_SERIES.to_dict(),
}


def test_a_contrast_survives_save_and_load_in_a_fresh_process(tmp_path):
    processors = {name: Dinov2AlibiImageProcessor(contrast=setting) for name, setting in SETTINGS.items()}
    for name, processor in processors.items():
        processor.save_pretrained(tmp_path / name)
    np.save(tmp_path / "values.npy", DARK)
    folders = [tmp_path / name for name in SETTINGS]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, tmp_path / "values.npy", *folders]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    seen = set()
    for folder, (name, processor) in zip(folders, processors.items(), strict=True):
        expected = processor(DARK, return_tensors="np")["pixel_values"]
        np.testing.assert_array_equal(np.load(folder / "pixels.npy"), expected)
        at_the_call = Dinov2AlibiImageProcessor()(DARK, return_tensors="np", contrast=SETTINGS[name])["pixel_values"]
        np.testing.assert_array_equal(at_the_call, expected)
        assert AutoImageProcessor.from_pretrained(folder).to_dict() == processor.to_dict()
        seen.add(expected.tobytes())
    assert len(seen) == 5, "auto is per-image for one image, and a contrast is the same as one that is saved"


def test_a_stranger_sees_the_same(tmp_path, tiny_model):
    """By the copies of the files in a Hub folder, without this package."""
    tiny_model(num_hidden_layers=1).save_pretrained(tmp_path / "student")
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path / "student")
    export(tmp_path / "student", tmp_path / "hub", "a tiny teacher", "noise")
    assert json.loads((tmp_path / "hub" / "preprocessor_config.json").read_text())["contrast"] == "auto"
    np.save(tmp_path / "values.npy", DARK)
    settings = ["auto", (0, 5000), ON_A_SERIES.to_dict()]
    run_as_stranger(BY_A_STRANGER, tmp_path, tmp_path / "hub", tmp_path / "values.npy", *map(json.dumps, settings))
    for number, setting in enumerate(settings):
        expected = Dinov2AlibiImageProcessor()(DARK, return_tensors="np", contrast=setting)["pixel_values"]
        np.testing.assert_array_equal(np.load(tmp_path / f"{number}.npy"), expected)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_file_is_seen_with_its_contrast(tmp_path, suffix):
    """By its name alone, as Transformers allows; one that lies on its side is upright."""
    file = tmp_path / f"micrograph.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6 if suffix == "png" else 1  # turned by a quarter; of such TIFFs Pillow mixes up the pixels
    Image.fromarray(BRIGHT).save(file, exif=exif)
    found = levels_of(str(file))
    np.testing.assert_array_equal(found, np.asarray(read_image(file)))
    assert found.shape == (*(SHAPE[::-1] if suffix == "png" else SHAPE), 3)
    both = Dinov2AlibiImageProcessor()([str(file), str(file)], **FLOATING)["pixel_values"]
    assert_close(np.stack(both)[1] * 255, found.transpose(2, 0, 1), 1e-4, "float32")


def test_a_pipeline_sees_the_same_of_what_read_image_gives(tmp_path, tiny_model):
    """Of the file itself it sees white: values are cut off at 255. If they are not, the docs can say less."""
    tiny_model(num_hidden_layers=1).save_pretrained(tmp_path)
    Dinov2AlibiImageProcessor(do_center_crop=False, size={"shortest_edge": 56}).save_pretrained(tmp_path)
    file = tmp_path / "micrograph.tif"
    Image.fromarray(BRIGHT).save(file)
    extract = pipeline("image-feature-extraction", model=str(tmp_path))
    found, of_file = (torch.tensor(extract(image)) for image in (read_image(file), str(file)))
    inputs = AutoImageProcessor.from_pretrained(tmp_path)(Image.fromarray(BRIGHT), return_tensors="pt")
    with torch.no_grad():
        expected = Dinov2AlibiModel.from_pretrained(tmp_path)(**inputs).last_hidden_state
    assert_close(found, expected, 1e-4, "the same picture; float32 sums")
    assert (of_file - expected).abs().max() > 0.1


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [[DARK, GREY], [DARK, NOISE], [NOISE.astype(np.float32), NOISE]])
def test_values_of_different_types_in_one_call_are_refused_as_by_the_segmenter(images):
    with pytest.raises(ValueError, match=r"^The images have values of .*Choose the contrast per-image") as refused:
        Dinov2AlibiImageProcessor()(images)
    with pytest.raises(ValueError) as as_well:
        fit_contrast(as_images(images))
    assert str(refused.value) == str(as_well.value)
    for contrast in ("per-image", (0, 1)):
        assert len(Dinov2AlibiImageProcessor(contrast=contrast)(images)["pixel_values"]) == 2


def test_a_contrast_is_good_for_the_type_that_it_was_found_on():
    contrast = Contrast().fit(BRIGHT.reshape(-1, 1))
    with pytest.raises(ValueError, match=r"images\[1\]: it has values of float64, the contrast .* was found on uint16"):
        Dinov2AlibiImageProcessor(contrast=contrast)([DARK, NOISE])
    of_channels = Contrast().fit(np.stack([DARK, BRIGHT], axis=-1).reshape(-1, 2))
    with pytest.raises(ValueError, match=r"^The image: the contrast was found for 2 channels, but 1 are seen"):
        Dinov2AlibiImageProcessor()(DARK, contrast=of_channels.to_dict())


@pytest.mark.parametrize(
    "contrast",
    ["bright", (1, 1), (5, 2), [0, float("nan")], (1, 2, 3), {"low": [1], "high": []}, {"rule": "none"}, {"a": 1}],
)
def test_what_is_no_contrast_is_refused_when_a_processor_is_made_and_when_it_is_called(contrast):
    with pytest.raises(ValueError, match=r"The contrast (is|goes from) |is no contrast"):
        Dinov2AlibiImageProcessor(contrast=contrast)
    with pytest.raises(ValueError, match=r"The contrast (is|goes from) |is no contrast"):
        Dinov2AlibiImageProcessor()(DARK, contrast=contrast)


def test_an_image_is_named_whose_values_no_range_shows():
    uneven = np.geomspace(1e-30, 1e30, 64).repeat(49).reshape(56, 56)
    with pytest.raises(ValueError, match=r"^The image: of 64 different values .* \(low, high\)\.$"):
        Dinov2AlibiImageProcessor()(uneven)
    with pytest.raises(ValueError, match=r"^The images: of "):
        Dinov2AlibiImageProcessor()([uneven, uneven])
    with pytest.raises(ValueError, match=r"^images\[1\]: of 64 different values"):
        Dinov2AlibiImageProcessor(contrast="per-image")([NOISE, uneven])


@pytest.mark.parametrize("contrast", ["auto", "per-image", "full-range", (0, 1), Contrast().fit(NOISE.reshape(-1, 1))])
def test_values_that_are_not_finite_are_counted_and_named(contrast):
    broken = NOISE.copy()
    broken[3, 4:6] = np.nan, np.inf
    with pytest.raises(ValueError, match=rf"^images\[2\] has 2 NaN or infinite of {NOISE.size} values.*nan_to_num"):
        Dinov2AlibiImageProcessor(contrast=contrast)([NOISE, NOISE, broken])
