# SPDX-License-Identifier: Apache-2.0
"""How well the place of a patch can be told from its features: a metric of the library `evaluate`.

The file stands alone, so that its folder can be pushed to the Hub as it is.
"""

import datasets
import evaluate
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

DESCRIPTION = """
R² of a ridge probe that predicts the place of a patch, x and y from 0 to 1, from the patch's features. It is fitted on
a random 1/36 of the patches of an image. 1: the place can be read off the features; 0 or below: it cannot.
"""
INPUTS = """
Args:
    predictions: dense features, one array (h, w, D) per image; sizes may differ.
    repeats: random choices of patches per image.
    fraction: of the patches that the probe is fitted on.
    seed: of the choices.

Returns:
    r2_all_patches: mean R² over images and choices, over all patches, those fitted on included (as published).
    r2_held_out: the same over the other patches only.
    r2_all_patches_std, r2_held_out_std: standard deviations over images and choices.

Example:
    >>> import numpy as np
    >>> x, y = np.meshgrid(np.linspace(0, 1, 20), np.linspace(0, 1, 20))
    >>> metric = evaluate.load("positional_score")
    >>> round(metric.compute(predictions=[np.stack([x, y], axis=-1)])["r2_held_out"], 1)
    0.9
"""
CITATION = """
@article{pawlowsky2026dino,
  title={What DINO saw: ALiBi positional encoding reduces positional bias in Vision Transformers},
  author={Pawlowsky, Moritz and Vamvakeros, Antonis and Weiss, Alexander and Bielefeld, Anja and Cooper, Samuel J. and
    Docherty, Ronan},
  journal={arXiv:2603.16840},
  year={2026}
}
"""


class PositionalScore(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`; arXiv 2603.16840, section 3."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": datasets.Sequence(row)}),
        )

    def _compute(
        self, predictions: list, repeats: int = 6, fraction: float = 1 / 36, seed: int = 0
    ) -> dict[str, float]:
        random = np.random.default_rng(seed)
        scores = np.array([score(as_array(image), fraction, random) for image in predictions for _ in range(repeats)])
        names = ("r2_all_patches", "r2_held_out")
        mean, std = scores.mean(axis=0), scores.std(axis=0)
        return dict(zip(names, map(float, mean), strict=True)) | {
            f"{name}_std": float(value) for name, value in zip(names, std, strict=True)
        }


def as_array(image: list) -> np.ndarray:
    """Features of an image as `(h, w, D)` float32, the precision in which `evaluate` keeps them."""
    if len({len(row) for row in image}) > 1 or len({len(patch) for row in image for patch in row}) > 1:
        raise ValueError("The features of an image are no (h, w, D) array: its rows or patches differ in length.")
    features = np.array(image, dtype=np.float32)
    if not np.isfinite(features).all():
        raise ValueError("Features are NaN or infinite; a probe cannot be fitted on them.")
    return features


def score(features: np.ndarray, fraction: float, random: np.random.Generator) -> tuple[float, float]:
    """R² over all patches and over the held-out ones for one choice of patches; x and y weigh alike."""
    rows, columns, width = features.shape
    y, x = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    places = np.stack([x.ravel(), y.ravel()], axis=1)
    count, chosen = rows * columns, int(rows * columns * fraction)
    if not 2 <= chosen <= count - 2:
        raise ValueError(
            f"{fraction:.3g} of {count} patches are {chosen}; the probe needs 2 to fit on and 2 to test on. Use larger "
            "images or another fraction."
        )
    train = np.zeros(count, dtype=bool)
    train[random.choice(count, chosen, replace=False)] = True
    # In double precision: a probe on a few dozen patches of some hundred channels is ill-conditioned.
    inputs = features.reshape(-1, width).astype(np.float64)
    probe = make_pipeline(StandardScaler(), Ridge()).fit(inputs[train], places[train])
    return float(probe.score(inputs, places)), float(probe.score(inputs[~train], places[~train]))
