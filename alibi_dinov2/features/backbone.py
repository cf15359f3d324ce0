# SPDX-License-Identifier: Apache-2.0
"""A vision backbone: model, image processing, where both came from, and what is done to its features."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, BaseImageProcessor, PreTrainedModel

from alibi_dinov2.features.precision import warn_of_emulation
from alibi_dinov2.features.token_layout import load_processor, patch_size_of, prepare_config, stride_of, vision_tower
from alibi_dinov2.features.weights import files_sha256, weights_files, weights_sha256
from alibi_dinov2.features.zoo import MODELS
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor


@dataclass(frozen=True)
class Removal:
    """Something that is done about positional bias on top of a backbone; see `evaluation.removals`.

    Attributes:
        name: one of `evaluation.removals.fitting.REMOVALS`.
        parameters: all that it depends on, as JSON values.
        forwards: passes of the backbone per image.
        apply: from a function, pixels `(B, 3, H, W)` -> the backbone's own features `(B, h, w, D)`, and pixels, to
            features of that shape.
        cost: seconds per image, absolute and relative to the plain backbone, once measured.
    """

    name: str
    parameters: dict[str, Any]
    forwards: int
    apply: Callable[[Callable[[torch.Tensor], np.ndarray], torch.Tensor], np.ndarray]
    cost: dict[str, float] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What a record tells of it."""
        return {"name": self.name, "parameters": self.parameters, "forwards": self.forwards, "cost": self.cost}


@dataclass(frozen=True)
class Backbone:
    """A model and its image processor.

    Attributes:
        model: with patch tokens, in evaluation mode.
        processor: whose mean and standard deviation are used.
        source: the Hub id or folder they came from.
        name: what records call it.
        removal: what is done to its features, if anything.
        weights_sha256: which weights these are, found when they were loaded: the SHA-256 of their file, see
            `files_sha256`; that of the tensors (`weights_sha256`) for a model that was never in a file.
    """

    model: PreTrainedModel = field(repr=False)
    processor: BaseImageProcessor = field(repr=False)
    source: str
    name: str
    removal: Removal | None = None
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        if not self.weights_sha256:
            object.__setattr__(self, "weights_sha256", weights_sha256(self.model))


def load_backbone(
    source: str | Path, device: str = "cpu", name: str | None = None, dtype: torch.dtype = torch.float32
) -> Backbone:
    """A vision backbone by Hub id or folder, through `AutoModel`, in evaluation mode.

    Args:
        source: a folder, a name in `alibi_dinov2.features.zoo.MODELS`, or a Hub id.
        device: where it is to run.
        name: what records call it; if not given, the Hub id or the folder's own name, without the path to it.
        dtype: of its weights, and with it of all that it computes; a warning says so if the device only emulates it.

    Raises:
        OSError: there is no such model.
        ValueError: it needs a library that is not installed, such as timm.
    """
    folder = Path(source) if Path(source).is_dir() else None
    source = str(folder or MODELS.get(str(source), source))
    try:
        config = prepare_config(AutoConfig.from_pretrained(source))
        model = AutoModel.from_pretrained(source, config=config, dtype=dtype)
    except ImportError as error:
        raise ValueError(f"{source} needs a library that is not installed: {' '.join(str(error).split())}") from error
    model = vision_tower(model).eval().to(device)
    warn_of_emulation(dtype, model.device)
    return Backbone(
        model,
        load_processor(source, config),
        source,
        name or (folder.resolve().name if folder else source),
        weights_sha256=files_sha256(weights_files(source)),
    )


def patch_shape(backbone: Backbone) -> tuple[int, int]:
    """Height and width of a patch in pixels.

    Raises:
        ValueError: the model has no patch size.
    """
    return patch_size_of(backbone.model)


def patch_step(backbone: Backbone) -> tuple[int, int]:
    """How many pixels patches lie below and beside each other: their height and width, or less if they overlap."""
    return stride_of(backbone.model)


def image_processor(backbone: Backbone, size: int) -> Dinov2AlibiImageProcessor:
    """The image processing of a backbone: its own mean, standard deviation and patch size, all else alike.

    Args:
        size: shortest side in pixels after resizing; sides are rounded to whole patches, nothing is cropped.
    """
    return Dinov2AlibiImageProcessor(
        size={"shortest_edge": size},
        do_center_crop=False,
        patch_size=math.lcm(*patch_shape(backbone)),
        image_mean=backbone.processor.image_mean,
        image_std=backbone.processor.image_std,
    )


def preprocess(backbone: Backbone, images: Sequence[Image.Image], size: int) -> torch.Tensor:
    """Images -> pixels, the same for every backbone but for its mean, standard deviation and patch size.

    Args:
        images: of equal size; any mode.
        size: shortest side in pixels after resizing; sides are rounded to whole patches, nothing is cropped.

    Returns:
        `(B, 3, H, W)`, in the model's dtype and on its device.
    """
    pixels = image_processor(backbone, size)(list(images), return_tensors="pt")["pixel_values"]
    return pixels.to(backbone.model.device, backbone.model.dtype)
