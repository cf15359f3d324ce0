# SPDX-License-Identifier: Apache-2.0
"""Dense features of image files as files, for whatever program goes on from there.

In all formats the axes are rows, columns and channels, `(h, w, D)` float32, before which a stack has its slices:
`(slices, h, w, D)`.

* `.safetensors`: the tensor `features`; facts, such as model and size, in its metadata.
* `.npy`: the array alone.
* `.h5`: the data set `features`, with the facts and ilastik's `axistags` as attributes: axes y, x and c, before them z.
  ilastik takes features of pixels, with the image beside them as further channels.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from scipy.ndimage import zoom
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.deep_features import MAX_PATCHES, Reduction, fit_reduction
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.channels import Channel
from alibi_dinov2.io.files import new_file
from alibi_dinov2.io.image_regions import ImageRegions
from alibi_dinov2.io.open_image import open_image
from modeling_alibi_dinov2.contrast import AUTO, Setting

FORMATS = ("safetensors", "npy", "h5")
AXIS_TYPES = {"z": 2, "y": 2, "x": 2, "c": 1}  # of vigra, ilastik's library: space and channels


def slice_images(image: ImageRegions) -> Iterator[Image.Image]:
    """The slices of an image as 8-bit RGB."""
    for index in range(image.slices):
        yield Image.fromarray(image.read(index, *(slice(0, side) for side in image.shape)))


def features_of(backbone: Backbone, image: ImageRegions, size: int) -> np.ndarray:
    """Dense features of all slices of an image, `(slices, h, w, D)` float32.

    Args:
        backbone: from `load_backbone`.
        image: an image or a stack.
        size: shortest side in pixels at which the model sees it.
    """
    return np.stack(list(dense_features(backbone, slice_images(image), size)))


def common_components(count: int, maps: Sequence[np.ndarray]) -> Reduction:
    """Standardisation and the first principal components of features that images have in common.

    Args:
        count: how many there are.
        maps: features `(..., D)` of each.

    Raises:
        ValueError: there are fewer patches or channels than components.
    """
    return fit_reduction(np.concatenate([array.reshape(-1, array.shape[-1]) for array in maps]), count)


def sample(features: np.ndarray, count: int) -> np.ndarray:
    """So many of the patches of features `(..., D)`, drawn, or all if there are no more: `(n, D)`."""
    return np.random.default_rng(0).permutation(features.reshape(-1, features.shape[-1]))[: max(count, 1)]


def upsampled(features: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Features of patches `(slices, h, w, D)` -> of pixels `(slices, H, W, D)`, bilinear between the patches.

    Args:
        features: of the whole image.
        shape: H and W.
    """
    factors = (1, *(side / patches for side, patches in zip(shape, features.shape[1:3], strict=True)), 1)
    return zoom(features, factors, order=1, mode="nearest", grid_mode=True)


def with_image(features: np.ndarray, image: ImageRegions) -> np.ndarray:
    """Features of pixels `(slices, H, W, D)` behind what the image shows, 0 to 1: one channel if it is grey, or three.

    Args:
        features: of all slices.
        image: whose pixels they are of.
    """
    levels = np.stack([np.asarray(page, dtype=np.float32) for page in slice_images(image)]) / 255
    if (levels == levels[..., :1]).all():
        levels = levels[..., :1]
    return np.concatenate([levels, features], axis=-1)


def write_features(path: str | Path, features: np.ndarray, facts: dict[str, Any]) -> None:
    """Write features in the format that the path ends in, whole or not at all.

    Args:
        path: ends in .safetensors, .npy or .h5.
        features: `(slices, h, w, D)` float32; a single slice is written without that axis.
        facts: JSON values.

    Raises:
        ValueError: the path ends otherwise.
        ImportError: it is .h5, and h5py is not installed.
        OSError: the file cannot be written.
    """
    path = Path(path)
    array = np.ascontiguousarray(features[0] if len(features) == 1 else features)
    if path.suffix.removeprefix(".") not in FORMATS:
        raise ValueError(f"{path}: features are written as .{', .'.join(FORMATS)}.")
    with new_file(path) as temporary:
        match path.suffix:
            case ".safetensors":
                save_file({"features": array}, temporary, {name: json.dumps(value) for name, value in facts.items()})
            case ".npy":
                with open(temporary, "wb") as file:
                    np.save(file, array)
            case _:
                write_hdf5(temporary, array, facts)


def write_hdf5(path: Path, array: np.ndarray, facts: dict[str, Any]) -> None:
    """Write features as HDF5 that ilastik opens."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ImportError("h5py is missing; install it: pip install 'alibi-dinov2[microscopes]'.") from error
    axes = "zyxc"[-array.ndim :]
    tags = [{"key": key, "typeFlags": AXIS_TYPES[key], "resolution": 0, "description": ""} for key in axes]
    with h5py.File(path, "w") as file:
        data = file.create_dataset("features", data=array, chunks=True, compression="gzip", track_times=False)
        data.attrs["axistags"] = json.dumps({"axes": tags})
        for name, value in facts.items():
            data.attrs[name] = value if isinstance(value, str | int | float) else json.dumps(value)


def export_features(
    backbone: Backbone,
    paths: Mapping[Path, Path],
    targets: Mapping[Path, Path],
    size: int,
    components: int | None = None,
    pixels: bool = False,
    image_too: bool = False,
    contrast: Setting = AUTO,
    channel: Channel = None,
    series: int | str | None = None,
) -> None:
    """Write the features of image files.

    Args:
        backbone: from `load_backbone`.
        paths: images by name.
        targets: files to write, by the same names.
        size: shortest side in pixels at which the model sees them.
        components: how many principal components, which all images have in common, are left of the channels; if not
            given, the channels are written as they are.
        pixels: whether to write features of pixels instead of patches.
        image_too: whether to write what the image shows as further channels, see `with_image`; for pixels alone.
        contrast, channel, series: see `open_image`.

    Raises:
        ValueError: an image cannot be read or is wanted beside features of patches, or what `write_features` and
            `common_components` raise.
        ImportError, OSError: as for `write_features`.
    """

    if image_too and not pixels:
        raise ValueError("The image has pixels, features have patches; ask for features of pixels, too.")

    opened = partial(open_image, contrast=contrast, channel=channel, series=series)

    def of_file(path: Path) -> np.ndarray:
        with opened(path) as image:
            return features_of(backbone, image, size)

    reduction = None
    if components is not None:
        # Twice through the backbone, so that the features of many images never lie in memory at once.
        maps = [
            sample(of_file(path), MAX_PATCHES // len(paths)) for path in tqdm(paths.values(), "components", unit="img")
        ]
        reduction = common_components(components, maps)
    for name, path in tqdm(paths.items(), "features", unit="img"):
        features = of_file(path)
        if reduction is not None:
            features = reduction(features)
        if pixels:
            with opened(path) as image:
                features = upsampled(features, image.shape)
                features = with_image(features, image) if image_too else features
        facts = {"image": name.as_posix(), "model": backbone.name, "size": size, "components": components or 0}
        write_features(targets[name], features, facts)
