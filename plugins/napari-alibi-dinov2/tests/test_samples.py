# SPDX-License-Identifier: Apache-2.0
"""The manifest, and the micrographs that File > Open Sample has."""

from pathlib import Path

import pytest
from napari_alibi_dinov2 import samples
from npe2 import PluginManifest

REPOSITORY = Path(__file__).parents[3]


def test_the_manifest_is_one_and_all_that_it_names_is_there():
    manifest = PluginManifest.from_distribution("napari-alibi-dinov2")
    manifest.validate_imports()
    assert [sample.key for sample in manifest.contributions.sample_data] == ["nickel", "superalloy"]


def test_samples_are_opened_by_napari(make_napari_viewer):
    viewer = make_napari_viewer()
    (nickel,) = viewer.open_sample("napari-alibi-dinov2", "nickel")
    (superalloy,) = viewer.open_sample("napari-alibi-dinov2", "superalloy")
    assert nickel.data.shape == (896, 1008)
    assert superalloy.data.shape == (2, 512, 512)
    assert nickel.data.dtype == superalloy.data.dtype == "uint8"


def test_samples_are_copies_of_the_repositorys_images_and_have_a_licence():
    if not (REPOSITORY / "data").is_dir():
        pytest.skip("this is no clone of the repository")
    folder = Path(samples.__file__).with_name("sample_data")
    originals = {path.name: path for path in (REPOSITORY / "data").rglob("*.png")}
    images = sorted(folder.glob("*.png"))
    assert len(images) == 3
    licence = (folder / "LICENSE.md").read_text(encoding="utf-8")
    for path in images:
        assert path.read_bytes() == originals[path.name].read_bytes()
        assert path.name in licence
