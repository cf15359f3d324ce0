# SPDX-License-Identifier: Apache-2.0
"""Microscopes' files give the values, axes, channels and pixel sizes that were written, or an error that says why."""

import json

import numpy as np
import pytest

from alibi_dinov2.io.open_image import open_image
from tests.alibi_dinov2.io.vendor_files import berkeley_image, velox_image, write_dm3, write_lif

h5py = pytest.importorskip("h5py")
mrcfile = pytest.importorskip("mrcfile")
pytest.importorskip("ncempy")
pytest.importorskip("liffile")
czi = pytest.importorskip("pylibCZIrw.czi")

HEIGHT, WIDTH = 5, 7
WHOLE = slice(0, HEIGHT), slice(0, WIDTH)
RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (4, 3, HEIGHT, WIDTH), dtype=np.uint8)
WORDS = RANDOM.integers(0, 65536, (4, HEIGHT, WIDTH), dtype=np.uint16)


def stored(image, index=0, channel=0):
    return image.stored(index, *WHOLE, channel)


@pytest.mark.parametrize(
    "array",
    [WORDS[0], WORDS[0].astype(np.int16), WORDS[0].astype(np.float32), BYTES[0, 0], BYTES[0, 0] > 99],
    ids=lambda array: array.dtype.name,
)
def test_gatan_images_have_their_values_and_pixel_size(tmp_path, array):
    write_dm3(tmp_path / "image.dm3", [array], [(2.0, "nm"), (3.0, "µm")])
    with open_image(tmp_path / "image.dm3") as image:
        assert (image.shape, image.slices, image.dtype) == (array.shape, 1, array.dtype)
        np.testing.assert_array_equal(stored(image)[..., 0], array)
        assert image.pixel_size[:2] == pytest.approx((3.0, 0.002))
        assert image.pixel_size.unit == "µm"


def test_a_gatan_stack_has_slices(tmp_path):
    write_dm3(tmp_path / "stack.dm3", [WORDS])
    with open_image(tmp_path / "stack.dm3") as image:
        assert image.axes == {"Z": 4}
        for index, page in enumerate(WORDS):
            np.testing.assert_array_equal(stored(image, index)[..., 0], page)


def test_gatan_colours_are_red_green_and_blue(tmp_path):
    colours = np.moveaxis(BYTES[0], 0, -1)
    write_dm3(tmp_path / "colours.dm3", [colours])
    with open_image(tmp_path / "colours.dm3") as image:
        np.testing.assert_array_equal(image.read(0, *WHOLE), colours)


def test_what_is_no_picture_in_a_gatan_file_is_left_out_or_named(tmp_path):
    spectrum, complex_image = np.zeros(50, np.float32), np.zeros((9, 9), np.complex64)
    write_dm3(tmp_path / "some.dm3", [spectrum, complex_image, WORDS[0]])
    with open_image(tmp_path / "some.dm3") as image:
        np.testing.assert_array_equal(stored(image)[..., 0], WORDS[0])
        assert "left out: image 9×9 complex64" in image.describe().replace("T1×Z1×", "")
    write_dm3(tmp_path / "spectrum.dm3", [spectrum])
    with pytest.raises(ValueError, match=r"spectrum\.dm3 .* spectra or other curves, and no image"):
        open_image(tmp_path / "spectrum.dm3")
    write_dm3(tmp_path / "complex.dm3", [complex_image])
    with pytest.raises(ValueError, match=r"complex\.dm3 .* must be real numbers"):
        open_image(tmp_path / "complex.dm3")


def test_leica_cross_sections_are_images_as_they_were_scanned(tmp_path):
    flat, sections = BYTES[0], BYTES[:, 0]
    # Scanned along X, then Z; the third image is smaller.
    images = {"sections": ("YZX", sections), "flat": ("TYX", flat), "line": ("TX", BYTES[0, 0])}
    write_lif(tmp_path / "image.lif", images)
    with open_image(tmp_path / "image.lif", series="sections") as image:
        assert (image.shape, image.axes) == ((HEIGHT, WIDTH), {"Z": 4})
        for index, section in enumerate(sections):
            np.testing.assert_array_equal(stored(image, index)[..., 0], section)
        assert image.pixel_size[:2] == pytest.approx((0.1, 0.1))
    with open_image(tmp_path / "image.lif") as image:
        # The two have the same size: they are slices of one stack. What is scanned in one direction is no image.
        assert (image.slices, image.left_out) == (7, [])
    write_lif(tmp_path / "lines.lif", {"line": ("TX", BYTES[0, 0])})
    with pytest.raises(ValueError, match="only points or lines"):
        open_image(tmp_path / "lines.lif")


def test_all_axes_of_a_czi_are_slices_or_channels(tmp_path):
    with czi.create_czi(str(tmp_path / "image.czi")) as document:
        for time, depth, channel in np.ndindex(2, 2, 3):
            plane = {"T": time, "Z": depth, "C": channel}
            document.write(BYTES[2 * time + depth, channel][..., None], plane=plane)
    with open_image(tmp_path / "image.czi", channel=1) as image:
        assert (image.axes, len(image.channels)) == ({"T": 2, "Z": 2}, 3)
        for index in range(4):
            np.testing.assert_array_equal(stored(image, index, 1)[..., 0], BYTES[index, 1])


def test_czi_colours_and_pixel_size(tmp_path):
    colours = np.moveaxis(BYTES[0], 0, -1)
    with czi.create_czi(str(tmp_path / "image.czi")) as document:
        document.write(np.ascontiguousarray(colours[..., ::-1]))  # it takes blue, green, red
        document.write_metadata("image", scale_x=2e-7, scale_y=3e-7)
    with open_image(tmp_path / "image.czi") as image:
        np.testing.assert_array_equal(image.read(0, *WHOLE), colours)
        assert image.pixel_size[:2] == pytest.approx((0.3, 0.2))


def test_sections_of_an_mrc_are_slices(tmp_path):
    with mrcfile.new(tmp_path / "volume.mrc") as file:
        file.set_data(WORDS)
        file.voxel_size = (20.0, 30.0, 40.0)
    with open_image(tmp_path / "volume.mrc") as image:
        assert (image.axes, image.dtype) == ({"Z": 4}, np.uint16)
        np.testing.assert_array_equal(stored(image, 2)[..., 0], WORDS[2])
        assert image.pixel_size[:2] == pytest.approx((0.003, 0.002))


def test_detectors_of_velox_are_channels_and_what_is_complex_is_left_out(tmp_path):
    frames = np.moveaxis(WORDS[:2], 0, -1)
    complex_type = [("realFloat", "<f4"), ("imagFloat", "<f4")]
    with h5py.File(tmp_path / "image.emd", "w") as file:
        velox_image(file, "aa", frames, "HAADF")
        velox_image(file, "bb", frames + 1, "BF")
        velox_image(file, "cc", np.zeros((HEIGHT, WIDTH, 1), complex_type), "HAADF")
    with pytest.raises(ValueError, match=r"0 \(HAADF\), 1 \(BF\); choose one"):
        open_image(tmp_path / "image.emd")
    with open_image(tmp_path / "image.emd", channel="BF") as image:
        assert (image.axes, image.pixel_size) == ({"T": 2}, pytest.approx((0.002, 0.002, "µm")))
        np.testing.assert_array_equal(stored(image, 1, 1)[..., 0], WORDS[1] + 1)
        assert "left out: HAADF" in image.describe()


def test_maps_of_velox_have_the_names_of_their_elements(tmp_path):
    with h5py.File(tmp_path / "maps.emd", "w") as file:
        for key, title in (("aa", "Fe"), ("bb", "O")):
            velox_image(file, key, np.moveaxis(WORDS[:1], 0, -1).astype(np.float32), "SuperX")
            display = {"data": f"/SharedProperties/ImageSeriesDataReference/{key}", "title": title}
            file[f"Displays/ImageDisplay/{key}"] = [json.dumps(display)]
            file[display["data"]] = [json.dumps({"dataPath": f"/Data/Image/{key}"})]
        file["Displays/ImageDisplay/mixture"] = [json.dumps({"title": "ColorMix"})]
        velox_image(file, "cc", WORDS[0][..., None], "HAADF")
    with pytest.raises(ValueError, match=r"0: Fe, O .* 1: HAADF .* `series`"):
        open_image(tmp_path / "maps.emd")
    with open_image(tmp_path / "maps.emd", series="Fe, O", channel="O") as image:
        assert image.channels == ("Fe", "O")
    with open_image(tmp_path / "maps.emd", series="HAADF") as image:
        np.testing.assert_array_equal(stored(image)[..., 0], WORDS[0])


@pytest.mark.parametrize("unit", ["[n_m]", "nm", b"n_m"])
def test_berkeley_images_have_their_pixel_size(tmp_path, unit):
    with h5py.File(tmp_path / "image.emd", "w") as file:
        berkeley_image(file, "stack", WORDS, 5.0, unit)
        file.create_group("data/simulation").attrs["emd_group_type"] = 1
        file.create_group("data/simulation/data")  # as simulations have it: no array
    with open_image(tmp_path / "image.emd") as image:
        assert (image.axes, image.pixel_size) == ({"Z": 4}, pytest.approx((0.005, 0.005, "µm")))
        np.testing.assert_array_equal(stored(image, 3)[..., 0], WORDS[3])


def test_an_emd_without_an_image_is_named(tmp_path):
    with h5py.File(tmp_path / "curve.emd", "w") as file:
        file.create_group("data/curve").attrs["emd_group_type"] = 1
        file["data/curve/data"] = np.arange(9)
    with pytest.raises(ValueError, match=r"curve\.emd .* no image as EMD has them"):
        open_image(tmp_path / "curve.emd")
