# SPDX-License-Identifier: Apache-2.0
"""Which image is worked on, which labels layer has the strokes, and what of the image is seen."""

from magicgui.widgets import CheckBox, ComboBox, Container, PushButton
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from modeling_alibi_dinov2.contrast import RULES, Setting
from napari_alibi_dinov2.images import Seen, channel_choices, pixels_of
from napari_alibi_dinov2.layers import is_result

LIMITS = "contrast limits of the layer"


class ImagePanel(QWidget):
    """Choices of layers, channel and contrast.

    Signals:
        changed: another image, or something else of it is seen.
        strokes_changed: another labels layer.
    """

    changed = Signal()
    strokes_changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self.image_box = ComboBox(label="image", choices=self.images, nullable=True)
        self.strokes_box = ComboBox(label="strokes", choices=self.stroke_layers, nullable=True)
        self.draw = PushButton(text="Draw", tooltip="Make a labels layer, and draw strokes of the first class.")
        self.channels_first = CheckBox(
            text="the first axis has channels", tooltip="If not, all axes but rows and columns are slices."
        )
        self.channel = ComboBox(label="channel", choices=[])
        self.contrast = ComboBox(
            label="contrast",
            choices=[*RULES, LIMITS],
            tooltip="How values become grey levels: auto leaves 8 bits as they are and stretches others, the same for "
            "all slices and images; per-image stretches each slice by itself.",
        )
        self.form = Container(
            widgets=[self.image_box, self.channels_first, self.channel, self.contrast, self.strokes_box, self.draw]
        )
        self.form.margins = (0, 0, 0, 0)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.form.native)
        for events in (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.renamed):
            events.connect(self.refresh)
        self.image_box.changed.connect(self.image_chosen)
        self.channels_first.changed.connect(self.axes_chosen)
        self.channel.changed.connect(lambda: self.changed.emit())
        self.contrast.changed.connect(lambda: self.changed.emit())
        self.strokes_box.changed.connect(lambda: self.strokes_changed.emit())
        self.refresh()
        self.image_chosen()

    def images(self, *_: object) -> list[Layer]:
        """Image layers that can be segmented."""
        return [layer for layer in self.viewer.layers if isinstance(layer, Image) and not is_result(layer)]

    def stroke_layers(self, *_: object) -> list[Layer]:
        """Labels layers that can have strokes."""
        return [layer for layer in self.viewer.layers if isinstance(layer, Labels) and not is_result(layer)]

    def refresh(self, *_: object) -> None:
        """Layers were added, removed or renamed; without a choice, the newest image is chosen."""
        for box in (self.image_box, self.strokes_box):
            box.reset_choices()
        if self.image_box.value is None and (images := self.images()):
            self.image_box.value = images[-1]

    @property
    def image(self) -> Image:
        """The image layer.

        Raises:
            ValueError: there is none.
        """
        if self.image_box.value is None:
            raise ValueError("There is no image; open one by File > Open, or by File > Open Sample > ALiBi-DINOv2.")
        return self.image_box.value

    @property
    def strokes(self) -> Labels | None:
        """The labels layer with the strokes."""
        return self.strokes_box.value

    @strokes.setter
    def strokes(self, layer: Labels) -> None:
        self.refresh()
        self.strokes_box.value = layer

    def image_chosen(self) -> None:
        """Offer the channels of another image."""
        image = self.image_box.value
        several = image is not None and pixels_of(image).ndim - bool(image.rgb) > 2
        self.channels_first.visible = several
        self.channels_first.value = several and str(image.axis_labels[0]).lower() in ("c", "channel", "channels")
        self.axes_chosen()

    def axes_chosen(self) -> None:
        """Offer the channels, if there are any."""
        image = self.image_box.value
        names = channel_choices(image, self.channels_first.value) if image is not None else []
        self.channel.choices = names
        self.channel.visible = bool(names)
        self.changed.emit()

    @property
    def seen(self) -> Seen:
        """What is seen of the image."""
        image, contrast = self.image, self.contrast.value
        low, high = map(float, image.contrast_limits)
        setting: Setting = (low, high) if contrast == LIMITS else contrast
        names, first = list(self.channel.choices), bool(self.channels_first.value)
        # The first choice for a colour image is all of its colours.
        number = names.index(self.channel.value) - bool(image.rgb) if names else -1
        return Seen(number if number >= 0 else None, first, setting)
