# SPDX-License-Identifier: Apache-2.0
"""What classifiers of pixels accept: finite features, and classes without gaps."""

import numpy as np


def require_features(features: np.ndarray) -> None:
    """Raise a `ValueError` unless features are `(N, F)` and finite."""
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"Features have the shape {features.shape}; they must be (pixels, features).")
    # The extremes are NaN if anything is, and need no second array.
    if features.size and not np.isfinite([features.min(), features.max()]).all():
        raise ValueError("Features are NaN or infinite; compute them from an image without such pixels.")


def require_classes(classes: np.ndarray, pixels: int, num_classes: int) -> None:
    """Raise a `ValueError` unless there is a class for each pixel and a pixel for each class."""
    if num_classes < 2:
        raise ValueError(f"Labels have {num_classes} class; a classifier needs 2 or more. Label another class.")
    if classes.shape != (pixels,) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(
            f"Classes are {classes.dtype} of shape {classes.shape}; they must be integers, one for each of the "
            f"{pixels} pixels."
        )
    found = set(np.unique(classes).tolist())
    allowed = set(range(num_classes))
    if found - allowed:
        raise ValueError(f"Classes are 0 to {num_classes - 1}; there is {sorted(found - allowed)} too.")
    if allowed - found:
        raise ValueError(
            f"No pixel is labelled as class {sorted(allowed - found)} of 0 to {num_classes - 1}; label one or more of "
            "each class, or number the classes without gaps."
        )
