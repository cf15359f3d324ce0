# SPDX-License-Identifier: Apache-2.0
"""What the Python package makes of the same images and strokes, for the page's tests to be compared with.

python web/tests/make_fixtures.py --model model_cards/alibi-dinov2-small --output web/tests/fixtures
"""

import argparse
import json
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from alibi_dinov2 import TrainableSegmenter, load_backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.feature_cache import MemoryCache
from alibi_dinov2.io.image_regions import ArrayImage, read_reflected
from alibi_dinov2.io.labels import read_labels, write_labels
from alibi_dinov2.pictures.feature_colours import feature_colours
from alibi_dinov2.segmentation.pixel_classifiers import fit_classifier
from alibi_dinov2.segmentation.uncertainty import uncertainty, where_to_draw
from modeling_alibi_dinov2.contrast import Contrast

REPOSITORY = Path(__file__).parents[2]
NICKEL = REPOSITORY / "data" / "biased_labels" / "nickel_on_substrate.png"
SUPERALLOY = REPOSITORY / "data" / "micrographs" / "superalloy_spot3_0d_3.png"
# What the page has: no Gaussian of 16 pixels, no membrane projections.
CLASSICAL = ClassicalFeatures(sigmas=(1, 2, 4, 8), membrane=False)


class Fixtures:
    """A folder of arrays, raw and row by row, whose types and shapes `arrays.json` tells."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.facts = folder, {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array)
        (self.folder / f"{name}.bin").write_bytes(array.tobytes())
        self.facts[name] = {"dtype": array.dtype.name, "shape": array.shape}

    def close(self) -> None:
        (self.folder / "arrays.json").write_text(json.dumps(self.facts, indent=1))


def contrasts(fixtures: Fixtures, random: np.random.Generator) -> None:
    """Values of many types and their grey levels."""
    cases = {
        "uint8": random.integers(0, 256, 500, dtype=np.uint8),
        "uint16-narrow": random.integers(30_000, 30_400, 5000, dtype=np.uint16),
        "uint16-12-bits": (random.random(5000) ** 3 * 4095).astype(np.uint16),
        "int16": random.normal(-300, 900, 5000).clip(-(2**15), 2**15 - 1).astype(np.int16),
        "uint32": random.integers(0, 2**32, 3000, dtype=np.uint32),
        "float32": np.r_[random.normal(0, 1e-6, 4000), 3.0].astype(np.float32),
        "constant": np.full(100, 7, dtype=np.uint16),
        "spike": np.r_[np.zeros(4000), random.integers(1, 900, 300)].astype(np.uint16),
    }
    for name, values in cases.items():
        fixtures.add(f"contrast-{name}-values", values)
        fixtures.add(f"contrast-{name}-levels", Contrast().fit(values[:, None]).apply(values[:, None])[:, 0])


def classical(fixtures: Fixtures) -> None:
    """Classical features of a grey and of a coloured picture."""
    pixels = np.asarray(Image.open(SUPERALLOY).convert("L"))[40:101, 60:107]
    fixtures.add("classical-grey-pixels", np.repeat(pixels[..., None], 3, axis=-1))
    fixtures.add("classical-grey-features", CLASSICAL(pixels[..., None]).transpose(2, 0, 1))
    coloured = np.stack([pixels, pixels[::-1], pixels[:, ::-1]], axis=-1)[:30, :19]
    fixtures.add("classical-colour-pixels", coloured)
    fixtures.add("classical-colour-features", CLASSICAL(np.ascontiguousarray(coloured)).transpose(2, 0, 1))


def logistic(fixtures: Fixtures, random: np.random.Generator) -> None:
    """Pixels of two and of three classes and their probabilities."""
    for classes in (2, 3):
        targets = np.minimum(random.geometric(0.4, 600), classes) - 1  # not balanced
        features = random.normal(targets[:, None] * random.normal(size=12), 1.5, (600, 12)) * 10.0 ** np.arange(-6, 6)
        features = features.astype(np.float32)
        found = fit_classifier("logistic-regression", features, targets, classes).predict_proba(features)
        fixtures.add(f"logistic-{classes}-features", features)
        fixtures.add(f"logistic-{classes}-targets", targets.astype(np.uint8))
        fixtures.add(f"logistic-{classes}-probabilities", found)


def segmentation(fixtures: Fixtures, name: str, pixels: np.ndarray, labels: np.ndarray, model: str) -> None:
    """What the backbone gives for the windows of an image, and what segmenter and pictures make of it."""
    backbone = load_backbone(model)
    cache = MemoryCache()
    # The page sees images at one scale, and does not filter what it predicts.
    segmenter = TrainableSegmenter(backbone, CLASSICAL, "logistic-regression", scales=[1], guided_radius=0, cache=cache)
    probabilities = segmenter.fit(pixels, labels).predict_proba(pixels)
    source, deep = ArrayImage(pixels), DeepFeatures(backbone)
    windows = list(deep.windows(source, 0, cache))
    fixtures.add(f"{name}-pixels", source.read(0, slice(None), slice(None)))
    fixtures.add(f"{name}-labels", labels)
    fixtures.add(f"{name}-windows", np.stack([features for _, _, features in windows]))
    row, column, _ = windows[-1]
    seen = read_reflected(source, 0, row * 14, column * 14, 518, 518)
    fixtures.add(f"{name}-last-window", seen)
    fixtures.add(f"{name}-grid", segmenter.features_.grids(source, 0)[0])
    fixtures.add(f"{name}-classes", segmenter.classes_[probabilities.argmax(axis=-1)])
    uncertain = uncertainty(probabilities)
    fixtures.add(f"{name}-uncertainty", uncertain)
    places = where_to_draw(uncertain, labels=labels)
    fixtures.add(f"{name}-places", np.array([(place.row, place.column) for place in places], dtype=np.float32))
    if len(windows) == 1:
        fixtures.add(f"{name}-colours", feature_colours([[windows[0][2]]])[0][0])


def lines(shape: tuple[int, int]) -> np.ndarray:
    """Three strokes, as a hand might draw them."""
    labels = np.zeros(shape, dtype=np.uint8)
    for number, (row, column) in enumerate([(150, 130), (260, 200), (60, 380)], 1):
        labels[row : row + 5, column : column + 40] = number
    return labels


def known_answer(folder: Path, random: np.random.Generator) -> None:
    """A picture of two materials of equal brightness, as files, and which pixel is of which."""
    rows, columns = np.indices((400, 480))
    inside = sum((rows - y) ** 2 + (columns - x) ** 2 < r**2 for y, x, r in [(120, 130, 80), (270, 330, 100)]) > 0
    fine = np.sign(np.sin(rows / 2) * np.sin(columns / 2))
    coarse = np.sin(rows / 7) * np.sin(columns / 7) * 1.4
    values = np.where(inside, fine, coarse) + random.normal(0, 0.2, inside.shape)
    Image.fromarray((128 + 45 * values).clip(0, 255).astype(np.uint8)).save(folder / "known.png")
    # 400 of 65,536 grey levels, as a camera of 12 bits in a dim field writes them.
    tifffile.imwrite(
        folder / "known-16-bits.tif",
        (2000 + 80 * values).clip(0).astype(np.uint16),
        tile=(64, 64),
        compression="zlib",
        predictor=True,
    )
    write_labels(folder / "known-answer.png", (1 + inside).astype(np.uint8))
    Image.fromarray((255 * (random.random((2400, 2000)) > 0.5)).astype(np.uint8)).convert("1").save(
        folder / "large.png"
    )


def for_speed(folder: Path) -> None:
    """A window's worth of a micrograph, and a megapixel of it."""
    nickel = np.asarray(Image.open(NICKEL))
    Image.fromarray(nickel[:518, :518]).save(folder / "speed-518.png")
    Image.fromarray(np.pad(nickel, [(0, 1024 - side) for side in nickel.shape], "symmetric")).save(
        folder / "speed-1024.png"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--output", type=Path, required=True, help="folder for the arrays")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    fixtures = Fixtures(arguments.output)
    contrasts(fixtures, random)
    classical(fixtures)
    logistic(fixtures, random)
    nickel = np.asarray(Image.open(NICKEL))
    labels = read_labels(NICKEL.with_name("nickel_on_substrate_labels.png"))
    segmentation(fixtures, "nickel", nickel, labels, arguments.model)
    superalloy = np.asarray(Image.open(SUPERALLOY).convert("L"))
    segmentation(fixtures, "superalloy", superalloy, lines(superalloy.shape), arguments.model)
    crop = np.s_[300:818, 400:918]  # a window's worth of it, with all labels
    Image.fromarray(nickel[crop]).save(arguments.output / "nickel-crop.png")
    write_labels(arguments.output / "nickel-crop-labels.png", labels[crop])
    segmentation(fixtures, "nickel-crop", nickel[crop], labels[crop], arguments.model)
    fixtures.close()
    known_answer(arguments.output, random)
    for_speed(arguments.output)


if __name__ == "__main__":
    main()
