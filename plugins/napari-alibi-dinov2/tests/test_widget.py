# SPDX-License-Identifier: Apache-2.0
"""The panel, from strokes to classes, against the segmenter used by itself."""

import threading
import time

import numpy as np
import pytest
from drawing import IMAGE, LABELS, TRUTH, WAIT, materials, scribble, scribbles, settle
from napari_alibi_dinov2.widget import SegmentWidget

from alibi_dinov2 import ClassicalFeatures, TrainableSegmenter, load_backbone
from alibi_dinov2.segmentation.uncertainty import uncertainty


@pytest.fixture
def reference(model_folder):
    """`reference(image, labels)`: a segmenter that has learned from them, without a window."""
    return lambda image, labels, **options: TrainableSegmenter(
        load_backbone(model_folder), ClassicalFeatures(), **options
    ).fit(image, labels)


def layer(panel: SegmentWidget, kind: str):
    """A layer of results, by the end of its name."""
    (found,) = [each for each in panel.viewer.layers if each.name.endswith(f": {kind}")]
    return found


def assert_same(found, wanted):
    """Classes are the same but where rounding decides: cached features are in half precision, on the disk."""
    assert found.shape == wanted.shape
    assert (found == wanted).mean() > 0.99


def test_strokes_are_learned_and_the_slice_is_segmented(panel_of, qtbot, reference, notes):
    panel = panel_of(IMAGE)
    panel.draw()
    assert panel.strokes.mode == "paint"
    assert panel.strokes.selected_label == 1
    assert panel.strokes.data.shape == IMAGE.shape
    scribble(panel, LABELS)
    panel.controls.train.click()
    settle(qtbot, panel)
    classes = layer(panel, "classes").data
    assert_same(classes, reference(IMAGE, LABELS).predict(IMAGE))
    assert (classes == TRUTH).mean() > 0.8
    assert not notes


def test_live_learns_from_each_stroke_and_from_undo(panel_of, qtbot):
    panel = panel_of(IMAGE, live=True)
    panel.draw()
    settle(qtbot, panel)
    rows, columns = np.argwhere(TRUTH == 1)[:2000:10].T
    panel.strokes.data_setitem((rows, columns), 1)
    settle(qtbot, panel)
    assert "another class" in panel.controls.status.text()
    assert panel.results == {}
    rows, columns = np.argwhere(TRUTH == 2)[:2000:10].T
    panel.strokes.data_setitem((rows, columns), 2)
    settle(qtbot, panel)
    first = layer(panel, "classes").data.copy()
    assert set(np.unique(first)) == {1, 2}
    panel.strokes.data_setitem((rows[:100], columns[:100]), 1)
    qtbot.waitUntil(lambda: panel.jobs.busy, timeout=WAIT)
    settle(qtbot, panel)
    wrong = layer(panel, "classes").data.copy()
    assert (wrong != first).any()
    panel.strokes.undo()
    qtbot.waitUntil(lambda: panel.jobs.busy, timeout=WAIT)
    settle(qtbot, panel)
    np.testing.assert_array_equal(layer(panel, "classes").data, first)


def test_without_live_nothing_is_learned_before_it_is_asked_for(panel_of, qtbot):
    panel = panel_of(IMAGE)
    panel.draw()
    settle(qtbot, panel)
    scribble(panel, LABELS)
    qtbot.wait(200)
    settle(qtbot, panel)
    assert not panel.bench.fitted


def test_probabilities_and_uncertainty_are_layers(panel_of, qtbot, reference):
    panel = panel_of(IMAGE)
    panel.draw()
    scribble(panel, LABELS)
    panel.classes.set_names({1: "smooth", 2: "rough"})
    panel.controls.probabilities.setChecked(True)
    panel.controls.uncertainty.setChecked(True)
    panel.controls.train.click()
    settle(qtbot, panel)
    planes = np.stack([layer(panel, f"probability of {name}").data for name in ("smooth", "rough")], axis=-1)
    np.testing.assert_allclose(planes.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(planes.argmax(axis=-1) + 1, layer(panel, "classes").data)
    np.testing.assert_allclose(layer(panel, "uncertainty").data, uncertainty(planes), atol=1e-6)
    assert panel.bench.segmenter.class_names == ["smooth", "rough"]


def stack(count=3):
    """A stack of different slices, and their truth."""
    images, truths = zip(*(materials(seed) for seed in range(count)), strict=True)
    return np.stack(images), np.stack(truths)


def test_a_stack_is_segmented_from_strokes_on_two_slices_and_goes_on_where_it_was(panel_of, qtbot, monkeypatch):
    images, truth = stack(4)
    panel = panel_of(images)
    panel.draw()
    labels = np.zeros_like(truth)
    labels[0], labels[2] = scribbles(truth[0]), scribbles(truth[2])
    scribble(panel, labels)
    panel.controls.train.click()
    settle(qtbot, panel)
    classes = layer(panel, "classes").data
    shown = panel.index()
    assert [bool(page.any()) for page in classes] == [number == shown for number in range(4)]

    computed = []
    session = panel.bench.session
    probabilities = session.probabilities

    def counted(index, *block):
        computed.append(index)
        if len(computed) == 2:
            panel.jobs.cancel()
        return probabilities(index, *block)

    monkeypatch.setattr(session, "probabilities", counted)
    panel.controls.target.setCurrentText("all slices")
    panel.controls.segment.click()
    settle(qtbot, panel)
    done = sum(bool(page.any()) for page in classes)
    assert done < 4
    panel.controls.segment.click()
    settle(qtbot, panel)
    assert all(page.any() for page in classes)
    assert shown not in computed
    assert len(computed) <= 4  # three slices, one of which may have been cancelled before it was shown
    assert (classes == truth).mean() > 0.7
    panel.controls.segment.click()
    settle(qtbot, panel)
    assert len(computed) <= 4


def test_another_slice_is_segmented_when_it_is_shown_in_live_mode(panel_of, qtbot):
    images, truth = stack(2)
    panel = panel_of(images)
    panel.draw()
    labels = np.zeros_like(truth)
    labels[panel.index()] = scribbles(truth[panel.index()])
    scribble(panel, labels)
    panel.controls.train.click()
    settle(qtbot, panel)
    panel.controls.live.setChecked(True)
    settle(qtbot, panel)
    other = 1 - panel.index()
    panel.viewer.dims.set_point(0, other)
    settle(qtbot, panel)
    assert layer(panel, "classes").data[other].any()


def test_classes_are_chosen_by_keys_and_coloured_alike(panel_of, qtbot):
    panel = panel_of(IMAGE)
    panel.draw()
    panel.classes.add("third")
    for number in (3, 2):
        panel.strokes.keymap[next(key for key in panel.strokes.keymap if str(key) == str(number))](panel.strokes)
        assert panel.strokes.selected_label == number
        assert panel.classes.table.currentRow() == number - 1
    for number, colour in panel.classes.colours.items():
        np.testing.assert_allclose(panel.strokes.colormap.map(number)[:3] * 255, colour, atol=1)
    panel.classes.clicked(0, 2)
    assert panel.strokes.selected_label == 1


def test_the_last_class_is_removed_only_without_strokes(panel_of, notes):
    panel = panel_of(IMAGE)
    panel.draw()
    panel.classes.add()
    panel.strokes.data[0, 0] = 3
    panel.classes.remove_button.click()
    assert len(panel.classes.names) == 3
    assert "erase them first" in notes[-1].message
    panel.strokes.data[0, 0] = 0
    panel.classes.remove_button.click()
    assert list(panel.classes.names) == [1, 2]


def test_what_is_wrong_is_told_with_a_remedy(panel_of, qtbot, notes, tmp_path):
    panel = panel_of()
    panel.images.draw.changed.emit(True)
    assert "File > Open" in notes[-1].message
    panel.viewer.add_image(IMAGE)
    panel.controls.train.click()
    assert "press Draw" in notes[-1].message
    panel.controls.segment.click()
    assert "Train" in notes[-1].message
    panel.controls.measure.click()
    assert "Train" in notes[-1].message
    panel.draw()
    settle(qtbot, panel)
    panel.strokes.data[:4] = 1
    panel.controls.train.click()
    settle(qtbot, panel)
    assert "two classes" in notes[-1].message
    other = panel.viewer.add_labels(np.zeros((5, 5), dtype=int), name="small")
    panel.images.strokes = other
    panel.controls.train.click()
    assert "press Draw for a new one" in notes[-1].message
    panel.advanced.form["model"].value = str(tmp_path / "nowhere")
    panel.draw()
    settle(qtbot, panel)
    assert "under Advanced" in notes[-1].message
    assert len(notes) == 7
    panel.jobs.run  # noqa: B018 - still there


def test_nan_is_told_and_nothing_is_lost(panel_of, qtbot, notes):
    image = IMAGE.astype(np.float32)
    image[3, 4] = np.nan
    panel = panel_of(image)
    panel.draw()
    scribble(panel, LABELS)
    panel.controls.train.click()
    settle(qtbot, panel)
    assert "NaN" in notes[-1].message
    np.testing.assert_array_equal(panel.strokes.data, LABELS)


def test_closing_the_window_in_mid_computation_leaves_no_thread(panel_of, qtbot, monkeypatch):
    before = set(threading.enumerate())
    panel = panel_of(np.tile(IMAGE, (12, 12)))
    panel.draw()
    qtbot.waitUntil(lambda: panel.bench.session is not None, timeout=WAIT)
    thread = panel.jobs.current.thread
    assert panel.jobs.busy
    panel.viewer.close()
    assert not panel.jobs.busy
    assert not thread.is_alive()
    assert panel.bench.session is None
    qtbot.wait(50)  # what the thread has sent to the window is received, by nobody
    left = [each for each in set(threading.enumerate()) - before if "alibi" in each.name]
    assert not left


def test_closing_the_dock_ends_the_work_too(panel_of, qtbot):
    panel = panel_of(np.tile(IMAGE, (12, 12)))
    panel.draw()
    qtbot.waitUntil(lambda: panel.bench.session is not None, timeout=WAIT)
    panel.viewer.window.remove_dock_widget(panel)
    assert not panel.jobs.busy
    assert panel.bench.session is None


def test_as_napari_opens_it_there_is_one_layer_of_classes_however_often_one_draws(make_napari_viewer, qtbot, notes):
    viewer = make_napari_viewer()
    viewer.add_image(IMAGE, name="image 0")
    _, panel = viewer.window.add_plugin_dock_widget("napari-alibi-dinov2", "Segment from strokes")
    panel.draw()  # before anything is loaded
    settle(qtbot, panel)
    settings = panel.advanced.settings
    assert settings is not None
    panel.draw()
    for count in (20, 30, 40):
        scribble(panel, scribbles(TRUTH, count))
        panel.controls.train.click()
        settle(qtbot, panel)
    assert [each.name for each in viewer.layers] == ["image 0", "image 0: classes", "image 0: strokes"]
    viewer.layers.clear()
    settle(qtbot, panel)
    assert not notes


def test_the_window_answers_while_features_are_computed(panel_of, qtbot):
    panel = panel_of(np.tile(IMAGE, (12, 12)))
    longest, last = 0.0, time.thread_time()  # of the window's thread: other programs do not count
    panel.draw()
    while panel.jobs.busy:
        qtbot.wait(1)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    # Far above what was measured (0.1 s), far below what computing in the window's thread would take (several seconds).
    assert longest < 2
