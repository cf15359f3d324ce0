# SPDX-License-Identifier: Apache-2.0
"""Probabilities of classes refined by a fully connected conditional random field: Krähenbühl and Koltun (NIPS 2011)."""

from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-5  # probability; what a classifier is sure is not there may still win if all its neighbours are that


@dataclass(frozen=True)
class CRFSettings:
    """Kernels and iterations of the field; equation 3 of arXiv 1210.5644.

    The defaults are those of the paper's figures 9 and S15 (arXiv 2603.16840; tldr-group/dino-saw,
    `notebooks/paper_figures_pdf/09_trainable_seg.ipynb`). HR-Dv2, by the same group, has 3 and 80 pixels instead of 1
    and 30.

    Attributes:
        smoothness_sigma: standard deviation in pixels of the kernel that only looks at positions, θ_γ.
        smoothness_weight: what it costs there if classes differ, w².
        appearance_sigma: standard deviation in pixels of the kernel that also looks at colours, θ_α.
        colour_sigma: its standard deviation in grey levels of 0 to 255, θ_β.
        appearance_weight: what it costs there if classes differ, w¹.
        iterations: of mean-field inference; after 0 the probabilities are what they were.

    Raises:
        ValueError: a standard deviation is not above 0, or another number is below 0.
    """

    smoothness_sigma: float = 1
    smoothness_weight: float = 10
    appearance_sigma: float = 30
    colour_sigma: float = 13
    appearance_weight: float = 10
    iterations: int = 10

    def __post_init__(self) -> None:
        sigmas = (self.smoothness_sigma, self.appearance_sigma, self.colour_sigma)
        if not all(sigma > 0 for sigma in sigmas):
            raise ValueError(f"The standard deviations of the CRF are {sigmas}; they must be above 0.")
        others = (self.smoothness_weight, self.appearance_weight, self.iterations)
        if not all(other >= 0 for other in others):
            raise ValueError(f"Weights and iterations of the CRF are {others}; they must be 0 or more.")


def refine(probabilities: np.ndarray, image: np.ndarray, settings: CRFSettings | None = None) -> np.ndarray:
    """Probabilities that agree with their neighbours, and more so with those of like colour.

    Args:
        probabilities: `(H, W, K)`, 0 to 1; below 1e-5 they count as 1e-5, as is usual.
        image: `(H, W, 3)` uint8.
        settings: of the field.

    Returns:
        `(H, W, K)` float32, adding up to 1 in every pixel.

    Raises:
        ValueError: shapes or values are others, or pydensecrf2 is not installed.
    """
    settings = settings or CRFSettings()
    require_inputs(probabilities, image)
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise ValueError("The CRF needs pydensecrf2, which is missing: pip install -e '.[crf]'") from error
    height, width, num_classes = probabilities.shape
    energy = -np.log(probabilities.astype(np.float32).clip(SMALLEST, 1)).reshape(-1, num_classes)
    field = densecrf.DenseCRF2D(width, height, num_classes)
    field.setUnaryEnergy(np.ascontiguousarray(energy.T))
    kernels = {"kernel": densecrf.FULL_KERNEL, "normalization": densecrf.NORMALIZE_SYMMETRIC}
    field.addPairwiseGaussian(sxy=settings.smoothness_sigma, compat=settings.smoothness_weight, **kernels)
    field.addPairwiseBilateral(
        sxy=settings.appearance_sigma,
        srgb=settings.colour_sigma,
        rgbim=np.ascontiguousarray(image),
        compat=settings.appearance_weight,
        **kernels,
    )
    refined = np.asarray(field.inference(settings.iterations))
    return np.ascontiguousarray(refined.T).reshape(height, width, num_classes)


def require_inputs(probabilities: np.ndarray, image: np.ndarray) -> None:
    """Raise a `ValueError` unless there are probabilities of classes for the pixels of an RGB image."""
    if probabilities.ndim != 3 or probabilities.shape[2] < 2 or probabilities.size == 0:
        raise ValueError(f"Probabilities have the shape {probabilities.shape}; they must be (H, W, K), K 2 or more.")
    if image.shape != (*probabilities.shape[:2], 3) or image.dtype != np.uint8:
        raise ValueError(
            f"The image is {image.dtype} of shape {image.shape}; for these probabilities it must be uint8 of shape "
            f"{(*probabilities.shape[:2], 3)}."
        )
    # Averages of probabilities may be a rounding error above 1.
    if not (probabilities.min() >= 0 and probabilities.max() <= 1 + SMALLEST):
        raise ValueError(
            f"Probabilities are {probabilities.min()} to {probabilities.max()}; they must be 0 to 1 and not NaN."
        )
