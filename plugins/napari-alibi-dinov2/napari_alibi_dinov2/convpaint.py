# SPDX-License-Identifier: Apache-2.0
"""ALiBi-DINOv2 as a feature extractor of Convpaint; importing this module registers it.

import napari_alibi_dinov2.convpaint
from napari_convpaint.convpaint_model import ConvpaintModel

model = ConvpaintModel("alibi-dinov2-small")
model.train(image, strokes)
classes = model.segment(image)
"""

from itertools import product
from typing import Any

import numpy as np
import torch
from napari_convpaint.convpaint_model import ConvpaintModel
from napari_convpaint.convpaint_widget import ConvpaintWidget
from napari_convpaint.feature_extractor import FeatureExtractor
from napari_convpaint.param import Param

from alibi_dinov2.features.backbone import Backbone, load_backbone, patch_shape
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.dense_features import patch_features
from alibi_dinov2.io.tiles import window_starts, window_weights
from napari_alibi_dinov2.settings import HUB_ID, default_model


class AlibiFeatures(FeatureExtractor):
    """Dense features of the plug-in's model, a vector for each patch.

    Convpaint stretches grey levels between percentiles; the model's own mean and standard deviation come on top.

    Args:
        model_name: `HUB_ID`; the model is the one that the plug-in uses, see `default_model`.
    """

    def __init__(self, model_name: str = HUB_ID, **kwargs: Any) -> None:
        super().__init__(model_name=model_name, **kwargs)
        self.backbone: Backbone = self.loaded
        self.patch_size = patch_shape(self.backbone)[0]
        self.num_input_channels = [3]
        self.rgb_input = True
        self.norm_mode = "percentile"
        self.has_global_context = True
        self.proposed_scalings = [[1]]

    def create_model(self, model_name: str) -> torch.nn.Module:
        """The model, which Convpaint moves to a device."""
        self.loaded = load_backbone(default_model(), name=model_name)
        return self.loaded.model

    def get_description(self) -> str:
        """What Convpaint's widget says."""
        return (
            "DINOv2 ViT-S/14 without position embedding, with a two-dimensional ALiBi bias: what is at a place, and "
            "not where it is.\nGood for: homogeneous micrographs, a few strokes in one part of the image."
        )

    def get_default_params(self, param: Param | None = None) -> Param:
        """Whole images: windows are cut here, always of one size."""
        param = super().get_default_params(param)
        param.tile_image = param.tile_annotations = False
        return param

    def get_enforced_params(self, param: Param | None = None) -> Param:
        """One scale: the model has seen things at that scale."""
        param = super().get_enforced_params(param)
        param.fe_scalings = [1]
        return param

    def extract_features_from_plane(
        self,
        image: np.ndarray,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - as the base class has it
    ) -> np.ndarray:
        """Features `(D, h, w)` float32 of pixels `(3, H, W)` from 0 to 1, whose sides are whole patches.

        A large image is seen in windows of the segmenter's size and overlap, which are blended.
        """
        self.move_model_to_device(device)
        processor = self.backbone.processor
        mean, std = (
            np.array(values, dtype=np.float32)[:, None, None] for values in (processor.image_mean, processor.image_std)
        )
        pixels = (image.astype(np.float32) - mean) / std
        shape = tuple(side // self.patch_size for side in image.shape[1:])
        window, overlap = (length // self.patch_size for length in (DeepFeatures.window, DeepFeatures.overlap))
        weights = np.zeros((*shape, 1), dtype=np.float32)
        total: np.ndarray | None = None
        weight = window_weights(window, overlap)
        for row, column in product(*(window_starts(length, window, overlap) for length in shape)):
            places = slice(row, min(row + window, shape[0])), slice(column, min(column + window, shape[1]))
            part = pixels[:, *(slice(place.start * self.patch_size, place.stop * self.patch_size) for place in places)]
            values = torch.from_numpy(np.ascontiguousarray(part))[None].to(device, self.backbone.model.dtype)
            (features,) = patch_features(self.backbone, values)
            share = (weight[:, None] * weight)[: features.shape[0], : features.shape[1], None]
            total = np.zeros((*shape, features.shape[-1]), dtype=np.float32) if total is None else total
            total[places] += share * features
            weights[places] += share
        assert total is not None
        return np.moveaxis(total / weights, -1, 0)


def register() -> None:
    """Put the extractor where Convpaint looks for all of them."""
    ConvpaintModel.get_fe_models_types()  # fills the dictionary, if it is empty, and would otherwise later
    ConvpaintModel.FE_MODELS_TYPES_DICT[HUB_ID] = AlibiFeatures
    param = Param()
    param.set(fe_name=HUB_ID)
    ConvpaintModel.STD_MODELS[HUB_ID] = param


class AlibiConvpaintWidget(ConvpaintWidget):
    """Convpaint's own panel; our extractor is in its list, for it was registered before."""


register()
