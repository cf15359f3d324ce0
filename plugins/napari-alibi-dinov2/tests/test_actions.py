# SPDX-License-Identifier: Apache-2.0
"""What is done with what was learned."""

import numpy as np
import pytest
from drawing import IMAGE, LABELS, TRUTH, WAIT, materials, scribble, settle
from PIL import Image

from alibi_dinov2 import TrainableSegmenter
from alibi_dinov2.segmentation.instances import instances, measure


@pytest.fixture
def learned(panel_of, qtbot):
    """`learned(*arrays, **options)`: a panel that has learned from strokes on the first of some images."""

    def make(*arrays, **options):
        panel = panel_of(*(arrays or (IMAGE,)), **options)
        panel.images.image_box.value = panel.viewer.layers["image 0"]
        panel.draw()
        scribble(panel, LABELS)
        panel.classes.set_names({1: "smooth", 2: "rough"})
        panel.controls.train.click()
        settle(qtbot, panel)
        return panel

    return make


def test_regions_are_measured_into_a_table_in_napari(learned, qtbot):
    panel = learned(scale=(2.0, 2.0), units=("um", "um"))
    classes = np.ones(IMAGE.shape, dtype=np.uint8)
    classes[10:30, 10:40], classes[50:90, 60:100], classes[60:70, 70:80], classes[5, 120] = 2, 2, 1, 2
    panel.viewer.layers["image 0: classes"].data = classes
    panel.controls.region_class.setCurrentText("rough")
    panel.controls.min_size.setValue(20)
    panel.controls.fill_holes.setChecked(True)
    panel.controls.measure.click()
    settle(qtbot, panel)
    regions = panel.viewer.layers["image 0: regions"]
    labels, owners = instances(classes, [2], 20, True)
    np.testing.assert_array_equal(regions.data, labels)
    table = measure(labels, owners, {2: "rough"}, (2.0, 2.0, "µm"))
    assert [len(values) for values in table.values()] == [2] * len(table)
    for name, values in table.items():
        assert regions.features[name].tolist() == values
    assert "Features table widget" in " ".join(panel.viewer.window.dock_widgets)


def test_regions_of_a_stack_are_counted_through_its_slices(learned, qtbot):
    panel = learned(np.stack([IMAGE, IMAGE])[:, :, :])
    labels = np.zeros((2, *IMAGE.shape), dtype=np.uint8)
    labels[0] = LABELS
    panel.draw()
    scribble(panel, labels)
    panel.controls.train.click()
    settle(qtbot, panel)
    panel.controls.target.setCurrentText("all slices")
    panel.controls.segment.click()
    settle(qtbot, panel)
    panel.controls.measure.click()
    settle(qtbot, panel)
    regions = panel.viewer.layers["image 0: regions"]
    assert regions.features["label"].tolist() == list(range(1, len(regions.features) + 1))
    assert set(regions.features["slice"]) == {0, 1}
    first, second = (set(np.unique(page)) - {0} for page in regions.data)
    assert not first & second


def test_features_are_shown_as_colours_and_by_likeness(learned, qtbot):
    panel = learned()
    panel.controls.pca.click()
    settle(qtbot, panel)
    colours = panel.viewer.layers["image 0: features"]
    assert colours.rgb
    assert colours.data.shape == (7, 10, 3)  # patches of 14 pixels on 96 × 128
    np.testing.assert_allclose(colours.scale, (14, 14))
    np.testing.assert_allclose(colours.translate, (6.5, 6.5))  # the middle of the first patch

    panel.controls.similar.setChecked(True)
    panel.actions.at_click((30, 50))
    settle(qtbot, panel)
    similarity = panel.viewer.layers["image 0: similarity"].data
    np.testing.assert_allclose(similarity[30 // 14, 50 // 14], 1, atol=1e-3)
    assert similarity.max() <= 1 + 1e-3
    assert len(np.unique(similarity)) > 10
    panel.controls.similar.setChecked(False)
    assert panel.actions.clicked not in panel.viewer.mouse_drag_callbacks


def test_a_segmenter_is_saved_and_opened_on_another_image(learned, qtbot, tmp_path, notes):
    other, _ = materials(5)
    panel = learned(IMAGE, other)
    panel.actions.store(tmp_path / "saved")
    settle(qtbot, panel)
    saved = TrainableSegmenter.load(tmp_path / "saved")
    assert saved.class_names == ["smooth", "rough"]
    panel.actions.store(tmp_path / "saved")
    settle(qtbot, panel)
    assert "not empty" in notes[-1].message

    panel.classes.set_names({1: "a", 2: "b"})
    panel.images.image_box.value = panel.viewer.layers["image 1"]
    panel.actions.load(tmp_path / "saved")
    settle(qtbot, panel)
    assert panel.classes.names == {1: "smooth", 2: "rough"}
    found = panel.viewer.layers["image 1: classes"].data
    assert (found == saved.predict(other)).mean() > 0.99
    panel.actions.load(tmp_path / "nowhere")
    settle(qtbot, panel)
    assert "nowhere" in notes[-1].message


def test_all_open_images_are_segmented_and_those_that_cannot_be_are_named(learned, qtbot, notes):
    other, _ = materials(6, 80, 112)
    panel = learned(IMAGE, other, other.astype(np.uint16) * 200)
    panel.controls.target.setCurrentText("all open images")
    panel.controls.segment.click()
    settle(qtbot, panel)
    found = panel.viewer.layers["image 1: classes"].data
    wanted = panel.bench.segmenter.predict(other)
    assert (found == wanted).mean() > 0.99
    assert panel.viewer.layers["image 0: classes"].data.all()
    assert "image 2" in notes[-1].message
    assert "per-image" in notes[-1].message  # the remedy
    assert "image 2: classes" not in panel.viewer.layers


def test_a_folder_is_segmented_by_the_command_and_can_be_stopped(learned, qtbot, tmp_path):
    panel = learned()
    images, results = tmp_path / "images", tmp_path / "results"
    images.mkdir()
    for seed in (1, 2):
        Image.fromarray(materials(seed)[0]).save(images / f"{seed}.png")
    panel.controls.uncertainty.setChecked(True)
    settle(qtbot, panel)
    panel.actions.start_folder(images, results)
    qtbot.waitUntil(lambda: panel.actions.folder_run.busy, timeout=WAIT)
    panel.controls.cancel.click()
    assert not panel.actions.folder_run.busy
    panel.actions.start_folder(images, results)
    qtbot.waitUntil(lambda: panel.actions.folder_run.busy, timeout=WAIT)
    qtbot.waitUntil(lambda: not panel.actions.folder_run.busy, timeout=4 * WAIT)
    names = {path.name for path in results.iterdir()}
    assert names >= {"1.tif", "2.tif", "1.uncertainty.tif", "fractions.csv", "segmenter", "segmenter-2"}
    assert "smooth" in panel.controls.status.text()


def test_what_goes_wrong_with_a_folder_is_told(learned, qtbot, tmp_path, notes):
    panel = learned()
    panel.actions.start_folder(tmp_path / "nowhere", tmp_path / "results")
    qtbot.waitUntil(lambda: panel.actions.folder_run.busy, timeout=WAIT)
    qtbot.waitUntil(lambda: not panel.actions.folder_run.busy, timeout=4 * WAIT)
    assert "nowhere" in notes[-1].message


def test_colours_and_channels_are_learned_as_they_are_seen(panel_of, qtbot):
    red = np.stack([IMAGE, np.zeros_like(IMAGE), np.zeros_like(IMAGE)], axis=-1)
    panel = panel_of(red, rgb=True)
    assert list(panel.images.channel.choices) == ["all colours", "red", "green", "blue"]
    panel.images.channel.value = "red"
    panel.draw()
    assert panel.strokes.data.shape == IMAGE.shape
    scribble(panel, LABELS)
    panel.controls.train.click()
    settle(qtbot, panel)
    assert panel.bench.segmenter.channel == 0
    assert (panel.viewer.layers["image 0: classes"].data == TRUTH).mean() > 0.8
