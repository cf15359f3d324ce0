# SPDX-License-Identifier: Apache-2.0
"""Features of pixels by classical filters, as Trainable Weka Segmentation has them (arXiv 2603.16840, S8.3).

All filters see the image continued by reflection at its borders, with the pixels of the edge twice: `reflect` of SciPy,
`symmetric` of NumPy. Blurs of such an image continue by reflection too, so what is computed from a blur is the same as
if the image itself had been continued far enough.

On one thread, a megapixel takes 0.7 to 0.9 s per channel with membrane projections, which are most of it. Beyond the
result (184 bytes per pixel and channel with the default settings) it takes some 32 bytes per pixel and channel. Of a
grey image, one channel is enough.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from scipy.ndimage import correlate1d, gaussian_filter, rotate
from skimage.feature import hessian_matrix_eigvals

CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
LEVEL = ("intensity", "gaussian", "membrane")  # kinds of features that grow with the brightness
TRUNCATE = 4.0  # standard deviations at which Gaussians end
DERIVATIVE_HALO = 2  # pixels on each side that central differences of central differences reach
MEMBRANE_SIZE = 19  # pixels, the sides of the line kernels
MEMBRANE_ROTATIONS = 30
STRIP = 16  # rows that are computed at a time: few enough to stay in the cache


@dataclass(frozen=True)
class ClassicalFeatures:
    """Which features a pixel gets, and the function that computes them.

    Each channel gets, in this order:

    * its intensity, and its Gaussian blurs, one for each sigma;
    * of the blurs, the magnitude of the Sobel gradient, the entries `xx`, `xy` and `yy` of the Hessian (x counts
      columns, y rows) and its eigenvalues, the larger first;
    * differences of Gaussians: of all pairs of blurs, the narrower less the wider;
    * on request, membrane projections: the sum, mean, standard deviation, median, maximum and minimum of 30 averages
      along lines through the pixel, 1 pixel wide, 19 long and 6° apart.

    Attributes:
        sigmas: standard deviations of the Gaussians in pixels, ascending. A list becomes a tuple, so that
            `ClassicalFeatures(**json.loads(json.dumps(asdict(features))))` equals `features`.
        membrane: whether there are membrane projections, as in the paper. They take most of the time, and follow the
            brightness of an image; on most data sets of `evaluation.segmentation.benchmark` they cost accuracy.

    Raises:
        ValueError: there is no sigma, one is not a positive finite number, or they do not ascend; or `membrane` is not
            a bool.
    """

    sigmas: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)
    membrane: bool = False

    def __post_init__(self) -> None:
        sigmas = tuple(self.sigmas)
        numbers = all(isinstance(sigma, int | float) and 0 < sigma < math.inf for sigma in sigmas)
        if not sigmas or not numbers or list(sigmas) != sorted(set(sigmas)):
            raise ValueError(
                f"The sigmas of the Gaussians are {list(sigmas)}; give at least one, positive and finite, each larger "
                "than the one before."
            )
        if not isinstance(self.membrane, bool):
            raise ValueError(f"membrane is {self.membrane!r}; it must be True or False.")
        object.__setattr__(self, "sigmas", tuple(map(float, sigmas)))

    @property
    def halo(self) -> int:
        """Pixels round a pixel that its features depend on, in each direction.

        The features of a crop are those of the whole image, but for the rounding of float32, at all pixels that lie
        this far inside of the crop, or at a border that the two share. With the default settings it is 66.
        """
        return max(int(TRUNCATE * self.sigmas[-1] + 0.5) + DERIVATIVE_HALO, self._margin)

    @property
    def _margin(self) -> int:
        """Pixels round a pixel that its features depend on, once the blurs are there."""
        return max(DERIVATIVE_HALO, MEMBRANE_SIZE // 2 if self.membrane else 0)

    def names(self, channels: int) -> list[str]:
        """The names of the features in their order, such as `red_hessian_xy_4` with 4 the sigma.

        Args:
            channels: of the image, 1 or 3.

        Raises:
            ValueError: it is another number.
        """
        if channels not in CHANNELS:
            raise ValueError(f"The image has {channels} channels; it must be 1 (grey) or 3 (RGB).")
        of_blurs = ("gaussian", "sobel", "hessian_xx", "hessian_xy", "hessian_yy", "eigenvalue_1", "eigenvalue_2")
        names = ["intensity"]
        names += [f"{name}_{sigma:g}" for name in of_blurs for sigma in self.sigmas]
        names += [f"difference_{narrow:g}_{wide:g}" for narrow, wide in combinations(self.sigmas, 2)]
        if self.membrane:
            names += [f"membrane_{name}" for name in ("sum", "mean", "std", "median", "max", "min")]
        return [f"{channel}_{name}" for channel in CHANNELS[channels] for name in names]

    def level(self, channels: int) -> np.ndarray:
        """Which features grow with the brightness of an image, `(F,)` bool: its intensity and its blurs. What is added
        to all pixels leaves the others as they are.

        Raises:
            ValueError: as `names`.
        """
        return np.array([name.split("_")[1] in LEVEL for name in self.names(channels)])

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The features of all pixels of an image.

        Args:
            image: `(H, W, C)` uint8, C = 1 or 3, of any size; the values 0 to 255 count as 0 to 1.

        Returns:
            `(H, W, F)` float32 with F = `len(self.names(C))`; 46 per channel with the default settings, 52 with
            membrane projections. Intensities, blurs and membrane projections are in [0, 1], but for the sum, which is
            in [0, 30], and differences in [-1, 1]. Derivatives are intensity per pixel (Sobel: √2 times as much, as in
            scikit-image) or per square pixel.

        Raises:
            ValueError: the image is not as above.
        """
        if image.ndim != 3 or image.shape[2] not in CHANNELS or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"The image is {image.dtype} of shape {image.shape}; it must be uint8 (H, W, C) with C = 1 (grey) or "
                "3 (RGB) and at least one pixel."
            )
        height, width, channels = image.shape
        scales, margin, kernels = self._padded_scales(image), self._margin, line_kernels()
        features = torch.empty((height, width, len(self.names(channels))), dtype=torch.float32)
        for top in range(0, height, STRIP):
            planes = self._strip_features(scales[:, :, top : top + STRIP + 2 * margin], kernels)
            # PyTorch transposes matrices by blocks, NumPy goes through memory in leaps.
            features[top : top + STRIP].flatten(0, 1).copy_(torch.from_numpy(planes).flatten(2).flatten(0, 1).T)
        return features.numpy()

    def _padded_scales(self, image: np.ndarray) -> np.ndarray:
        """Image `(H, W, C)` -> intensity and blurs with the margin m `(C, 1 + sigmas, H + 2m, W + 2m)`, float32."""
        height, width, channels = image.shape
        scales = np.empty((channels, 1 + len(self.sigmas), height, width), dtype=np.float32)
        intensity = np.divide(np.moveaxis(image, -1, 0), 255, out=scales[:, 0], dtype=np.float32)
        for index, sigma in enumerate(self.sigmas, start=1):
            blur = scales[:, index]
            gaussian_filter(intensity, sigma, axes=(1, 2), mode="reflect", truncate=TRUNCATE, output=blur)
        return np.pad(scales, ((0, 0), (0, 0), *[(self._margin, self._margin)] * 2), mode="symmetric")

    def _strip_features(self, strip: np.ndarray, kernels: np.ndarray) -> np.ndarray:
        """Intensity and blurs `(C, 1 + sigmas, h, w)`, with the margin m -> features `(C, count, h - 2m, w - 2m)`."""
        inside = without_margin(strip, self._margin)
        blurs = inside[:, 1:]
        narrow, wide = np.triu_indices(len(self.sigmas), k=1)
        parts = [
            inside,
            *derivatives(without_margin(strip[:, 1:], self._margin - DERIVATIVE_HALO)),
            blurs[:, narrow] - blurs[:, wide],
        ]
        if self.membrane:
            parts.append(membrane_projections(strip[:, :1], kernels))
        return np.concatenate(parts, axis=1)


def derivatives(blurs: np.ndarray) -> list[np.ndarray]:
    """Sobel magnitude, Hessian `xx`, `xy`, `yy`, and its larger and smaller eigenvalue, by central differences.

    Away from borders they are `skimage.filters.sobel` and `skimage.feature.hessian_matrix` of the same blur.

    Args:
        blurs: `(..., h, w)` float32.

    Returns:
        Six arrays `(..., h - 4, w - 4)`, float32, without the margin of 2 pixels where differences are one-sided.
    """
    along_y, along_x = np.gradient(blurs, axis=(-2, -1))
    yy, xy = np.gradient(along_y, axis=(-2, -1))
    xx = np.gradient(along_x, axis=-1)
    smooth = (0.5, 1, 0.5)
    sobel = np.hypot(correlate1d(along_y, smooth, axis=-1), correlate1d(along_x, smooth, axis=-2)) / np.float32(2**0.5)
    larger, smaller = hessian_matrix_eigvals([yy, xy, xx])
    return [without_margin(array, DERIVATIVE_HALO) for array in (sobel, xx, xy, yy, larger, smaller)]


def line_kernels() -> np.ndarray:
    """Lines through the centre, 1 pixel wide, each turned by 6° from the one before, `(30, 19, 19)` float32.

    Each sums to 1, as where ImageJ convolves. The first is upright.
    """
    line = np.zeros((MEMBRANE_SIZE, MEMBRANE_SIZE))
    line[:, MEMBRANE_SIZE // 2] = 1
    angles = np.arange(MEMBRANE_ROTATIONS) * 180 / MEMBRANE_ROTATIONS
    kernels = np.stack([rotate(line, angle, reshape=False, order=1, mode="grid-constant") for angle in angles])
    return (kernels / kernels.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


def membrane_projections(planes: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Sum, mean, standard deviation, median, maximum and minimum over what is seen through each of the kernels.

    Args:
        planes: `(C, 1, h, w)` float32.
        kernels: `(K, k, k)` float32, k odd.

    Returns:
        `(C, 6, h - k + 1, w - k + 1)` float32.
    """
    # Channels last, so that the numbers to be sorted are adjacent; then a sort is faster than a median.
    weights = torch.from_numpy(kernels)[:, None].to(memory_format=torch.channels_last)
    responses = torch.nn.functional.conv2d(torch.from_numpy(planes), weights)
    ordered = np.sort(responses.permute(0, 2, 3, 1).numpy(), axis=-1)
    median = ordered[..., (len(kernels) - 1) // 2 : len(kernels) // 2 + 1].mean(axis=-1)
    mean, std = ordered.mean(axis=-1), ordered.std(axis=-1)
    return np.stack([mean * len(kernels), mean, std, median, ordered[..., -1], ordered[..., 0]], axis=1)


def without_margin(array: np.ndarray, margin: int) -> np.ndarray:
    """The inside of `(..., h, w)`, a view `(..., h - 2·margin, w - 2·margin)`."""
    height, width = array.shape[-2:]
    return array[..., margin : height - margin, margin : width - margin]
