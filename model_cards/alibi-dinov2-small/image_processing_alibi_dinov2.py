# SPDX-License-Identifier: Apache-2.0
"""Image processor of ALiBi-DINOv2: images of any kind in, arrays whose sides are multiples of the patch size out."""

from .transformers_version import MINIMUM_TRANSFORMERS  # noqa: F401  # isort: skip  (must come first)

import os

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature, get_size_dict
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
from transformers.utils import logging

from .contrast import AUTO, Contrast, Setting, as_contrast
from .pixels import to_8bit, to_array, to_channels_first, to_rgb

logger = logging.get_logger(__name__)

Size = tuple[int, int]  # height, width


class Dinov2AlibiImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """
    patch_size (`int`, defaults to 14): side of a patch in pixels; the sides of the output are multiples of it.
    contrast (`str`, pair of numbers or `dict`, defaults to `"auto"`): how values become 8-bit grey levels.
    """

    patch_size: int
    contrast: str | tuple | list | dict | Contrast


class Dinov2AlibiImageProcessor(PilBackend):
    r"""Resizes, crops and normalises as DINOv2's processor does, to sides that are multiples of `patch_size`.

    The defaults are DINOv2's: shortest side to 256 pixels, centre crop of 224, ImageNet mean and standard deviation.
    For dense features of the whole image pass `do_center_crop=False` and the resolution, as in
    `processor(image, size={"shortest_edge": 518}, do_center_crop=False)`: sides that follow from the aspect ratio are
    rounded to the nearest multiple. With `do_resize=False` and `do_center_crop=False` the image keeps its pixels and
    loses less than one patch at the borders.

    Greyscale, palette and RGBA (over white) images of any boolean, integer or floating type become 8-bit RGB, as the
    segmenter of `alibi_dinov2` and its `read_image` make it. `contrast`, which a call may change, says how:

    * `"auto"`: booleans and unsigned values of 8 bits as they are, all others stretched between percentiles that are
      found once over all images of a call (a thousandth of the values becomes black, and as many white; more where
      outliers would leave less than 60 % of the grey levels);
    * `"per-image"`: the same for each image by itself;
    * `"full-range"`: all that the type can hold (16 bits are divided by 257). Floating values as they are if all of a
      call lie in [0, 1], otherwise from the least to the greatest. This is what floating pixels in [0, 1] need to come
      out as from DINOv2's processor, to within the rounding to 8 bits;
    * `(low, high)`: from black to white, the same for every type;
    * what `Contrast.to_dict` gave: one that was found before, as `segmenter.contrast_.to_dict()`, so that the images of
      a series look alike that come in several calls. It is good for values of the type that it was found on.

    Opacity is never stretched.

    Returns:
        `BatchFeature` with `pixel_values`: a list of `(3, H, W)` arrays, or one `(B, 3, H, W)` tensor with
        `return_tensors`.

    Raises:
        ValueError: pixels that are NaN or infinite, or of types that differ in a call or from that of a saved contrast;
            values too uneven to be seen; floating pixels with `do_rescale=False`; a `contrast` that is none; a
            requested output size that is no multiple of `patch_size`; an image smaller than one patch that is neither
            resized nor centre-cropped (which pads it with zeros, as DINOv2's processor does).
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
    contrast: Setting = AUTO
    valid_kwargs = Dinov2AlibiImageProcessorKwargs

    def _prepare_images_structure(self, images: ImageInput, expected_ndims: int = 3) -> list:
        """A flat list of images; an array of two dimensions, alone or in a list, is one greyscale image."""
        return super()._prepare_images_structure(add_channel_axis(images), expected_ndims)

    def fetch_images(self, image_url_or_urls):
        """Images of files by their names, with the values that they have; Transformers would cut them off at 255."""
        if isinstance(image_url_or_urls, str) and os.path.isfile(image_url_or_urls):
            with Image.open(image_url_or_urls) as file:
                return ImageOps.exif_transpose(file)
        return super().fetch_images(image_url_or_urls)

    def _standardize_kwargs(self, contrast: Setting = AUTO, **kwargs) -> dict:
        """The choices in the form in which they are used and saved."""
        return super()._standardize_kwargs(**kwargs) | {"contrast": as_contrast(contrast).to_setting()}

    def process_image(
        self,
        image: ImageInput,
        input_data_format: str | ChannelDimension | None = None,
        do_rescale: bool | None = None,
        **kwargs,
    ) -> np.ndarray:
        """One image of any kind as an array `(channels, H, W)` of its own type; `_preprocess` does the rest."""
        if isinstance(image, Image.Image):
            input_data_format = ChannelDimension.LAST
        array = to_channels_first(to_array(image), input_data_format)
        if do_rescale is False and np.issubdtype(array.dtype, np.floating):
            raise ValueError(
                f"`do_rescale` is False, but the image has {array.dtype} values, which become 8-bit grey levels first. "
                "Leave `do_rescale=True`; with `contrast='full-range'` values in [0, 1] stay what they are."
            )
        return array

    def _preprocess(
        self,
        images: list[np.ndarray],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling | None,
        do_center_crop: bool,
        crop_size: SizeDict,
        patch_size: int,
        contrast: Setting,
        do_convert_rgb: bool | None = None,
        do_pad: bool | None = None,
        pad_size: SizeDict | None = None,
        **kwargs,
    ) -> BatchFeature:
        images = to_8bit(images, contrast)
        if do_convert_rgb:
            images = [to_rgb(image) for image in images]
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
        height, width = resized_size(image.shape[-2:], size)
        return SizeDict(
            height=max(round(height / patch_size), 1) * patch_size, width=max(round(width / patch_size), 1) * patch_size
        )

    def post_process_semantic_segmentation(
        self, outputs, target_sizes: list[Size] | torch.Tensor | None = None, **kwargs
    ) -> list[torch.Tensor]:
        """Class maps from the logits of `Dinov2AlibiForSemanticSegmentation`, laid where their pixels came from.

        Args:
            outputs: the model's output, with `logits` `(B, num_labels, H, W)`.
            target_sizes: `(height, width)` of each original image, and of its map; without them the maps have the size
                of the logits.
            kwargs: the choices that the call of the processor had, if it had any, such as `do_center_crop=False`. What
                they leave out of an image gets the class of the nearest pixel that the model saw; a warning says so
                when that is more than a patch.

        Returns:
            One `(height, width)` int64 tensor per image.

        Raises:
            ValueError: another number of sizes than of images.
            TypeError: a choice that the image processor does not have.
        """
        logits = outputs.logits
        if target_sizes is None:
            return list(logits.argmax(dim=1))
        if len(target_sizes) != len(logits):
            raise ValueError(f"`target_sizes` has {len(target_sizes)} entries for {len(logits)} images; give one each.")
        maps = []
        for image_logits, size in zip(logits, target_sizes, strict=True):
            height, width = (int(side) for side in size)
            resized, seen = self.sizes_on_the_way((height, width), image_logits.shape[-2:], **kwargs)
            image_logits = image_logits[:, : seen[0], : seen[1]]  # beyond it there may be padding
            maps.append(lay_out(image_logits, (height, width), resized).argmax(dim=0))
        return maps

    def sizes_on_the_way(self, original: Size, output: Size, **kwargs) -> tuple[Size, Size]:
        """Size of an image after resizing and after cropping; `output` twice if the choices do not lead to `output`."""
        unknown = sorted(kwargs.keys() - self.valid_kwargs.__annotations__.keys())
        if unknown:
            raise TypeError(f"{', '.join(unknown)}: not among the choices of {type(self).__name__}.")
        names = ("do_resize", "size", "do_center_crop", "crop_size", "patch_size", "do_pad")
        choices = {name: kwargs.get(name, getattr(self, name)) for name in names}
        size, crop_size = (
            SizeDict(**get_size_dict(choices[name], default_to_square=name == "crop_size", param_name=name))
            for name in ("size", "crop_size")
        )
        patch_size = choices["patch_size"]
        image = np.broadcast_to(np.uint8(0), (1, *original))  # one number, of that shape
        resized = original
        if choices["do_resize"] and not choices["do_center_crop"]:
            rounded = self.rounded_size(image, size, patch_size)
            resized = (rounded.height, rounded.width)
        elif choices["do_resize"]:
            resized = resized_size(original, size)
        if choices["do_center_crop"]:
            cropped = (crop_size.height, crop_size.width)
        else:
            cropped = tuple(side // patch_size * patch_size for side in resized)
        padded = choices["do_pad"] and cropped[0] <= output[0] and cropped[1] <= output[1]
        if cropped != tuple(output) and not padded:
            logger.warning_once(
                f"The logits are {output[0]}×{output[1]}, but this image processor makes {cropped[0]}×{cropped[1]} of "
                f"{original[0]}×{original[1]} pixels. The map is stretched over the whole image. If the image "
                "processor was called with choices of its own, such as `do_center_crop=False`, pass them here too."
            )
            return output, output
        if max(before - after for before, after in zip(resized, cropped, strict=True)) > 2 * patch_size:
            logger.warning_once(
                f"The model has seen {cropped[0]}×{cropped[1]} pixels from the centre of {resized[0]}×{resized[1]}; "
                "outside, the map repeats the nearest class. Process images with `do_center_crop=False` to have it all."
            )
        return resized, cropped


def resized_size(original: Size, size: SizeDict) -> Size:
    """Height and width that `size` asks for, or that follow from its shortest edge and the aspect ratio.

    Raises:
        ValueError: `size` asks for something else.
    """
    if size.height and size.width:
        return size.height, size.width
    if not size.shortest_edge or size.longest_edge:
        raise ValueError(f"`size` is {size}; it must have 'shortest_edge', or 'height' and 'width'.")
    image = np.broadcast_to(np.uint8(0), (1, *original))
    return get_resize_output_image_size(
        image, size.shortest_edge, default_to_square=False, input_data_format=ChannelDimension.FIRST
    )


def lay_out(logits: torch.Tensor, size: Size, resized: Size) -> torch.Tensor:
    """Logits `(C, h, w)` of the centre of a resized image as `(C, H, W)` for the whole of the original one.

    Bilinear between the centres of pixels; outside of the logits their border goes on.
    """
    axes = []
    for length, scaled, seen in zip(size, resized, logits.shape[-2:], strict=True):
        centres = torch.arange(length, device=logits.device, dtype=torch.float32) + 0.5
        before = (scaled - seen) // 2  # pixels of the resized image that the crop has cut off, or, below 0, has added
        axes.append((centres * (scaled / length) - before) * (2 / seen) - 1)
    rows, columns = axes[0][:, None].expand(size), axes[1].expand(size)
    grid = torch.stack([columns, rows], dim=-1)[None]
    return nn.functional.grid_sample(
        logits[None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )[0]


def add_channel_axis(images: ImageInput) -> ImageInput:
    """Make arrays `(H, W)`, alone or in nested lists, `(1, H, W)`; leave everything else as it is."""
    if isinstance(images, list | tuple):
        return [add_channel_axis(image) for image in images]
    return images[None] if getattr(images, "ndim", None) == 2 else images


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
