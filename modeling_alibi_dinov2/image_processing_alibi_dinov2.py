# SPDX-License-Identifier: Apache-2.0
"""Image processor of ALiBi-DINOv2: images of any kind in, arrays whose sides are multiples of the patch size out."""

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_transforms import center_crop, get_resize_output_image_size
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs

UINT16_TO_UINT8 = 257  # 65535 / 255


class Dinov2AlibiImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """patch_size (`int`, defaults to 14): side of a patch in pixels; the sides of the output are multiples of it."""

    patch_size: int


class Dinov2AlibiImageProcessor(PilBackend):
    r"""Resizes, crops and normalises as DINOv2's processor does, to sides that are multiples of `patch_size`.

    The defaults are DINOv2's: shortest side to 256 pixels, centre crop of 224, ImageNet mean and standard deviation.
    For dense features of the whole image pass `do_center_crop=False` and the resolution, as in
    `processor(image, size={"shortest_edge": 518}, do_center_crop=False)`: sides that follow from the aspect ratio are
    rounded to the nearest multiple. With `do_resize=False` and `do_center_crop=False` the image keeps its pixels and
    loses less than one patch at the borders.

    Greyscale, palette, RGBA (over white) and 16-bit images are converted to 8-bit RGB; 16-bit values are divided by
    257, that is, their full range is kept: stretch the contrast beforehand if the image uses only a part of it.
    Floating images have values in [0, 1], or in [0, 255] when one of them exceeds 1.

    Returns:
        `BatchFeature` with `pixel_values`: a list of `(3, H, W)` arrays, or one `(B, 3, H, W)` tensor with
        `return_tensors`.

    Raises:
        ValueError: pixels that are NaN, infinite or out of range; a requested size or crop that is no multiple of
            `patch_size`; an image smaller than one patch that is not to be resized.
    """

    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"shortest_edge": 256}
    default_to_square = False
    crop_size = {"height": 224, "width": 224}
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    patch_size = 14
    valid_kwargs = Dinov2AlibiImageProcessorKwargs

    def process_image(self, image: ImageInput, *args, **kwargs) -> np.ndarray:
        """One image of any kind as an 8-bit array `(channels, H, W)`."""
        return super().process_image(to_8bit(image), *args, **kwargs)

    def _preprocess(
        self,
        images: list[np.ndarray],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling | None,
        do_center_crop: bool,
        crop_size: SizeDict,
        patch_size: int,
        **kwargs,
    ) -> BatchFeature:
        if do_center_crop:
            require_multiples("crop_size", crop_size, patch_size)
        if do_resize:
            images = [
                self.resize(image, self.rounded_size(image, size, patch_size), resample=resample) for image in images
            ]
        if not do_center_crop:
            images = [crop_to_multiples(image, patch_size) for image in images]
        return super()._preprocess(
            images,
            do_resize=False,
            size=size,
            resample=resample,
            do_center_crop=do_center_crop,
            crop_size=crop_size,
            **kwargs,
        )

    @staticmethod
    def rounded_size(image: np.ndarray, size: SizeDict, patch_size: int) -> SizeDict:
        """Height and width for resizing: those asked for, or those of the aspect ratio, rounded to whole patches."""
        if size.height and size.width:
            require_multiples("size", size, patch_size)
            return size
        if not size.shortest_edge or size.longest_edge:
            raise ValueError(f"`size` is {size}; it must have 'shortest_edge', or 'height' and 'width'.")
        height, width = get_resize_output_image_size(
            image, size.shortest_edge, default_to_square=False, input_data_format=ChannelDimension.FIRST
        )
        return SizeDict(
            height=max(round(height / patch_size), 1) * patch_size, width=max(round(width / patch_size), 1) * patch_size
        )

    def post_process_semantic_segmentation(
        self, outputs, target_sizes: list[tuple[int, int]] | None = None
    ) -> list[torch.Tensor]:
        """Class maps from the logits of `Dinov2AlibiForSemanticSegmentation`.

        Args:
            outputs: the model's output, with `logits` `(B, num_labels, H, W)`.
            target_sizes: `(height, width)` of each map; the size of the logits if not given. The maps cover what the
                model saw: process the image with `do_center_crop=False` to have all of it.

        Returns:
            One `(height, width)` int64 tensor per image.

        Raises:
            ValueError: another number of sizes than of images.
        """
        logits = outputs.logits
        if target_sizes is None:
            return list(logits.argmax(dim=1))
        if len(target_sizes) != len(logits):
            raise ValueError(f"`target_sizes` has {len(target_sizes)} entries for {len(logits)} images; give one each.")
        return [
            torch.nn.functional.interpolate(
                image_logits[None], size=tuple(size), mode="bilinear", align_corners=False
            ).argmax(dim=1)[0]
            for image_logits, size in zip(logits, target_sizes, strict=True)
        ]


def to_8bit(image: ImageInput) -> ImageInput:
    """An image whose pixels are 8-bit, in the layout it came in.

    Raises:
        ValueError: pixels that are NaN, infinite, negative or beyond the range of their type.
    """
    if isinstance(image, Image.Image):
        if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
            return image
        image = np.asarray(image)
    elif isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    if not isinstance(image, np.ndarray) or image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if np.issubdtype(image.dtype, np.floating):
        invalid = np.count_nonzero(~np.isfinite(image))
        if invalid:
            raise ValueError(
                f"The image has {invalid} NaN or infinite of {image.size} values. Replace them, for example with "
                "`numpy.nan_to_num`, or mask them out beforehand."
            )
        scale, limit = (255.0, 1) if image.max() <= 1 else (1.0, 255)
    else:
        scale, limit = (1.0, 255) if image.max() <= 255 and image.dtype != np.uint16 else (1 / UINT16_TO_UINT8, 65535)
    if image.min() < 0 or image.max() > limit:
        raise ValueError(
            f"The image has {image.dtype} values from {image.min()} to {image.max()}. Integers must lie in [0, 255] or "
            "[0, 65535], floating values in [0, 1] or [0, 255]: rescale it, for example to [0, 1]."
        )
    return np.round(image * scale).astype(np.uint8)


def require_multiples(name: str, size: SizeDict, patch_size: int) -> None:
    """Raise a `ValueError` unless height and width are multiples of the patch size."""
    for side in (size.height, size.width):
        if not side or side % patch_size:
            lower = max((side or 0) // patch_size, 1) * patch_size
            raise ValueError(
                f"`{name}` is {size.height}×{size.width}; both sides must be multiples of the patch size, {patch_size} "
                f"pixels, such as {lower} or {lower + patch_size}."
            )


def crop_to_multiples(image: np.ndarray, patch_size: int) -> np.ndarray:
    """Cut a `(channels, H, W)` array around its centre to the largest multiples of the patch size.

    Raises:
        ValueError: a side is shorter than one patch.
    """
    height, width = image.shape[-2:]
    if min(height, width) < patch_size:
        raise ValueError(
            f"The image is {height}×{width} pixels, smaller than one patch of {patch_size}×{patch_size}. Resize it: "
            "`do_resize=True`."
        )
    target = (height // patch_size * patch_size, width // patch_size * patch_size)
    if target == (height, width):
        return image
    return center_crop(image, target, data_format=ChannelDimension.FIRST, input_data_format=ChannelDimension.FIRST)


__all__ = ["Dinov2AlibiImageProcessor"]
