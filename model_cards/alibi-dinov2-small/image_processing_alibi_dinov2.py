# SPDX-License-Identifier: Apache-2.0
"""Image processor of ALiBi-DINOv2: images of any kind in, arrays whose sides are multiples of the patch size out."""

from .transformers_version import MINIMUM_TRANSFORMERS  # noqa: F401  # isort: skip  (must come first)

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
CHANNELS = (1, 3, 4)  # greyscale, RGB, RGBA


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
        ValueError: pixels that are NaN, infinite or out of range, or floating with `do_rescale=False`; a requested
            output size that is no multiple of `patch_size`; an image smaller than one patch that is neither resized
            nor centre-cropped (which pads it with zeros, as DINOv2's processor does).
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

    def _prepare_images_structure(self, images: ImageInput, expected_ndims: int = 3) -> list:
        """A flat list of images; an array of two dimensions, alone or in a list, is one greyscale image."""
        return super()._prepare_images_structure(add_channel_axis(images), expected_ndims)

    def process_image(
        self,
        image: ImageInput,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        do_rescale: bool | None = None,
        **kwargs,
    ) -> np.ndarray:
        """One image of any kind as an 8-bit array `(channels, H, W)`."""
        if isinstance(image, Image.Image):
            input_data_format = ChannelDimension.LAST
        array = to_channels_first(to_array(image), input_data_format)
        if do_rescale is False and np.issubdtype(array.dtype, np.floating):
            raise ValueError(
                f"`do_rescale` is False, but the image has {array.dtype} values, which are brought to 8 bits first. "
                "Leave `do_rescale=True`: values in [0, 1] are recognised as such."
            )
        array = to_8bit(array)
        return to_rgb(array) if do_convert_rgb else array

    def _preprocess(
        self,
        images: list[np.ndarray],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling | None,
        do_center_crop: bool,
        crop_size: SizeDict,
        patch_size: int,
        do_pad: bool | None = None,
        pad_size: SizeDict | None = None,
        **kwargs,
    ) -> BatchFeature:
        if do_pad and pad_size:
            require_multiples("pad_size", pad_size, patch_size)
        if do_center_crop:
            require_multiples("crop_size", crop_size, patch_size)
        elif do_resize:
            images = [
                self.resize(image, self.rounded_size(image, size, patch_size), resample=resample) for image in images
            ]
        else:
            images = [crop_to_multiples(image, patch_size) for image in images]
        return super()._preprocess(
            images,
            do_resize=do_resize and do_center_crop,
            size=size,
            resample=resample,
            do_center_crop=do_center_crop,
            crop_size=crop_size,
            do_pad=do_pad,
            pad_size=pad_size,
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


def add_channel_axis(images: ImageInput) -> ImageInput:
    """Make arrays `(H, W)`, alone or in nested lists, `(1, H, W)`; leave everything else as it is."""
    if isinstance(images, list | tuple):
        return [add_channel_axis(image) for image in images]
    return images[None] if getattr(images, "ndim", None) == 2 else images


def to_array(image: ImageInput) -> np.ndarray:
    """An image as an array in the layout it came in; PIL images as `(H, W)`, `(H, W, 3)` or `(H, W, 4)`."""
    if isinstance(image, torch.Tensor):
        return (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
    if isinstance(image, Image.Image) and image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        if image.has_transparency_data:
            image = image.convert("RGBA")
        elif image.mode != "L":
            image = image.convert("RGB")
    return np.asarray(image)


def to_channels_first(image: np.ndarray, input_data_format: str | ChannelDimension | None) -> np.ndarray:
    """`(H, W)`, `(C, H, W)` or `(H, W, C)` as `(C, H, W)`; the layout is guessed where it is not given.

    Raises:
        ValueError: another number of dimensions or channels.
    """
    shape = image.shape
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3:
        guess = ChannelDimension.FIRST if shape[0] in CHANNELS else ChannelDimension.LAST
        if (input_data_format or guess) == ChannelDimension.LAST:
            image = np.moveaxis(image, -1, 0)
    if image.ndim != 3 or image.shape[0] not in CHANNELS or image.size == 0:
        raise ValueError(
            f"The image has shape {shape}; it must be (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 channels. Choose "
            "one channel or three, or pass `input_data_format`."
        )
    return image


def to_rgb(image: np.ndarray) -> np.ndarray:
    """An 8-bit array `(C, H, W)` of greyscale, RGB or RGBA as RGB; what is transparent becomes white."""
    if len(image) == 1:
        return np.repeat(image, 3, axis=0)
    if len(image) == 4:
        opacity = image[3:] / 255
        return np.round(opacity * image[:3] + (1 - opacity) * 255).astype(np.uint8)
    return image


def to_8bit(image: np.ndarray) -> np.ndarray:
    """The same pixels with 8 bits.

    Raises:
        ValueError: pixels that are NaN, infinite, negative or beyond the range of their type.
    """
    if image.dtype == np.uint8:
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
