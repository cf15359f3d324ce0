# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E402 - what the first imports look at has to be set before them
"""A tiny random model that the plug-in takes for the one used last, and panels in a viewer that shows no window."""

import os
import tempfile
from pathlib import Path

# Before Qt, napari and Hugging Face look: nothing of the user's is read or written.
HERE = Path(__file__).parent
HOME = tempfile.mkdtemp(prefix="napari-alibi-dinov2-")
os.environ |= {
    "XDG_CONFIG_HOME": f"{HOME}/config",
    "NAPARI_CONFIG": f"{HOME}/napari.yaml",
    "HF_HOME": f"{HOME}/huggingface",
    "PYTHONPATH": os.pathsep.join([f"{HERE}/children", str(HERE)]),  # of processes that are begun here
}

import pytest
import torch
from napari.utils.notifications import notification_manager
from torchvision_operators import declare_unused_operators

declare_unused_operators()

from drawing import settle
from napari_alibi_dinov2.settings import remember_model
from napari_alibi_dinov2.widget import SegmentWidget

from modeling_alibi_dinov2 import Dinov2AlibiConfig, Dinov2AlibiImageProcessor, Dinov2AlibiModel


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A random model of three narrow layers."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = Dinov2AlibiConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=3, image_size=56, patch_size=14, initializer_range=0.2
    )
    Dinov2AlibiModel(config).save_pretrained(folder)
    Dinov2AlibiImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def model(model_folder):
    """That model is the one that was used last."""
    remember_model(str(model_folder))
    return model_folder


@pytest.fixture
def notes():
    """What napari has told its user during a test."""
    notification_manager.records.clear()
    return notification_manager.records


@pytest.fixture
def panel_of(make_napari_viewer, qtbot):
    """`panel_of(*arrays, live=False)`: a panel, docked in a viewer with these images, that has loaded its model."""

    def make(*arrays, live=False, **options) -> SegmentWidget:
        viewer = make_napari_viewer()
        for number, array in enumerate(arrays):
            viewer.add_image(array, name=f"image {number}", **options)
        panel = SegmentWidget(viewer)
        viewer.window.add_dock_widget(panel, name="Segment from strokes")
        panel.controls.live.setChecked(live)
        settle(qtbot, panel)
        return panel

    return make
