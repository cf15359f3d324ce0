# SPDX-License-Identifier: Apache-2.0
"""What stays to be seen of values of any type, what is said about it, and which channel is seen."""

import json

import numpy as np
import pytest
import tifffile

from alibi_dinov2.io.open_image import open_image
from modeling_alibi_dinov2.contrast import Contrast, as_contrast
from tests.alibi_dinov2.io.grey_levels import expected_rgb

NOISE = np.random.default_rng(0).random((64, 80))
TWELVE_BITS = (200 + 300 * NOISE).astype(np.uint16)
VALUES = {
    "12 bits": TWELVE_BITS,
    "12 bits with hot pixels": np.where(NOISE > 0.9995, 4095, TWELVE_BITS).astype(np.uint16),
    "int32": (NOISE * 900 - 450).astype(np.int32),
    "large int64": (NOISE * 900).astype(np.int64) + 2**60,
    "tiny floats": (NOISE * 1e-30).astype(np.float32),
    "huge floats": NOISE * 1e300,
    "ten values": (NOISE * 10).astype(np.uint16) * 37,
}
WHOLE = slice(None), slice(None)


@pytest.mark.parametrize("kind", VALUES)
def test_enough_grey_levels_are_left(tmp_path, kind):
    array = VALUES[kind]
    tifffile.imwrite(tmp_path / "image.tif", array, photometric="minisblack")
    with open_image(tmp_path / "image.tif") as image:
        found = image.read(0, *WHOLE)[..., 0]
    assert len(np.unique(found)) >= 0.6 * min(64, len(np.unique(array)))
    order = np.argsort(array, axis=None)
    assert (np.diff(found.ravel()[order].astype(int)) >= 0).all(), "brighter pixels became darker"


def test_settings_do_what_they_say_and_tell_it(tmp_path):
    stack = np.stack([TWELVE_BITS, TWELVE_BITS * 8])
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    expected = {
        "auto": (expected_rgb(stack[0], stack), "auto: uint16 "),
        "per-image": (expected_rgb(stack[0]), "per-image: each image"),
        "full-range": (np.round(stack[0][..., None] / 257).repeat(3, axis=-1), "full-range: uint16 0 to 65535"),
        (100, 610): (np.round((stack[0][..., None] - 100.0) / 2).repeat(3, axis=-1), "range: 100 to 610"),
    }
    for setting, (pixels, told) in expected.items():
        with open_image(tmp_path / "stack.tif", contrast=setting) as image:
            np.testing.assert_array_equal(image.read(0, *WHOLE), pixels)
            assert told in image.describe()


def test_a_saved_contrast_is_applied_to_other_images_of_the_type_alone(tmp_path):
    for name, array in (("one", TWELVE_BITS), ("two", TWELVE_BITS[::-1] // 2), ("float", NOISE)):
        tifffile.imwrite(tmp_path / f"{name}.tif", array, photometric="minisblack")
    with open_image(tmp_path / "one.tif") as image:
        contrast = Contrast.from_dict(json.loads(json.dumps(image.contrast.to_dict())))
        assert contrast == image.contrast
    with open_image(tmp_path / "two.tif", contrast=contrast) as image:
        np.testing.assert_array_equal(image.read(0, *WHOLE), expected_rgb(TWELVE_BITS[::-1] // 2, TWELVE_BITS))
    with (
        open_image(tmp_path / "float.tif", contrast=contrast) as image,
        pytest.raises(ValueError, match=r"float\.tif: it has values of float64, the contrast .* was found on uint16"),
    ):
        image.read(0, *WHOLE)


@pytest.mark.parametrize("setting", ["bright", (1, 1), (5, 2), (0, float("nan")), "1,b", (1, 2, 3)])
def test_what_is_no_contrast_is_refused(setting):
    with pytest.raises(ValueError, match=r"^The contrast (is|goes from) "):
        as_contrast(setting)


def test_values_that_no_range_shows_are_refused(tmp_path):
    values = np.geomspace(1e-30, 1e30, 64).repeat(100).reshape(80, 80)
    tifffile.imwrite(tmp_path / "wide.tif", values)
    with open_image(tmp_path / "wide.tif") as image, pytest.raises(ValueError, match=r"wide\.tif: of 64 different"):
        image.read(0, *WHOLE)


def test_one_of_two_channels_must_be_chosen(tmp_path):
    channels = np.stack([TWELVE_BITS, TWELVE_BITS[::-1] * 3])
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "actin"]}}
    tifffile.imwrite(tmp_path / "two.ome.tif", channels, photometric="minisblack", metadata=metadata)
    with pytest.raises(ValueError, match=r"has the channels 0 \(DAPI\), 1 \(actin\); choose one with `channel`"):
        open_image(tmp_path / "two.ome.tif")
    for channel in (1, "1", "actin", "ACTIN"):
        with open_image(tmp_path / "two.ome.tif", channel=channel) as image:
            np.testing.assert_array_equal(image.read(0, *WHOLE), expected_rgb(channels[1]))
            assert "channel actin" in image.describe()
    with open_image(tmp_path / "two.ome.tif", channel="actin,DAPI") as image:
        found = image.read(0, *WHOLE)
        for number, channel in enumerate((1, 0)):
            np.testing.assert_array_equal(found[..., number], expected_rgb(channels[channel])[..., 0])
        assert (found[..., 2] == 0).all()
    for wrong in (2, -1, "tubulin", "0,0,1,1"):
        with pytest.raises(ValueError, match=r"two\.ome\.tif.* (has no channel|channels are chosen)"):
            open_image(tmp_path / "two.ome.tif", channel=wrong)
