# SPDX-License-Identifier: Apache-2.0
"""Does a single patch's feature tell how the patches around it are arranged?

    python -m evaluation.semantics.arrangement --models teacher nope alibi --names DINOv2 NoPE ALiBi \\
        --images data/micrographs --output-folder results --figure arrangement.png

Images are made of the same patches in different order. Patches of two micrographs, as many of each, become stripes
across or along, a checkerboard, blocks or halves; all patches of a part of a micrograph stay where they are or are
shuffled within neighbourhoods. A linear probe on the features of single patches, fitted on some micrographs, tells the
arrangement of images of others. Of two micrographs it sees the patches of the brighter one, so that what is around
them is all that it has to tell.

    stripes         across or along (chance 1/2); a bias of distances alone cannot tell these, whatever its slopes
    patterns        checkerboard, blocks or halves (chance 1/3)
    shuffles        in place or shuffled within neighbourhoods (chance 1/2)
    change          how far a patch's feature moves when the patches are rearranged, over its length

To a model without any position an image is a set of patches: it gives a patch the same feature in every arrangement,
but for rounding, so that nothing can be told. Images are rolled by random whole patches, and the two micrographs swap
places at random, so that the place of a patch, which the teacher's features hold, does not tell the arrangement by
itself.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone, patch_shape, patch_step
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_folder
from alibi_dinov2.pictures.colours import line_colours
from alibi_dinov2.pictures.panels import save_figure
from evaluation.command import models_parser, named_backbones, run_records
from evaluation.report.records import DatasetFacts, Stopwatch, describe_images, make_record, mean_and_std

PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "stripes across": lambda row, column: row // 2 % 2 + 0 * column,
    "stripes along": lambda row, column: column // 2 % 2 + 0 * row,
    "checkerboard": lambda row, column: (row + column) % 2,
    "blocks": lambda row, column: (row // 4 + column // 4) % 2,
    "halves": lambda row, column: 2 * column // (column.max() + 1) + 0 * row,
}
IN_PLACE, SHUFFLED = "in place", "shuffled"
QUESTIONS = {
    "stripes": ("stripes across", "stripes along"),
    "patterns": ("checkerboard", "blocks", "halves"),
    "shuffles": (IN_PLACE, SHUFFLED),
}
PERIOD = 8  # patches after which all patterns repeat
NEIGHBOURHOOD = 4  # patches a side within which patches are shuffled


@dataclass(frozen=True)
class Settings:
    """What is made and probed.

    Args:
        grid: patches a side of the images, a multiple of 8.
        fit_sets, test_sets: sets of patches that the probe is fitted and tested on; each is seen in all arrangements.
        patches: of each image that the probe sees, the same in all arrangements of a set; at most half of them.
        source: shortest side in pixels that micrographs are brought to before patches are cut.
        test_share: share of the micrographs that test sets are made of.
    """

    grid: int = 16
    fit_sets: int = 40
    test_sets: int = 20
    patches: int = 64
    source: int = 518
    test_share: float = 1 / 3

    def __post_init__(self) -> None:
        if self.grid < PERIOD or self.grid % PERIOD:
            raise ValueError(f"The grid is {self.grid}; it must be a multiple of {PERIOD} patches, such as 16.")
        if min(self.fit_sets, self.test_sets, self.patches) < 1 or self.patches > self.grid**2 // 2:
            raise ValueError(
                f"There are {self.fit_sets} and {self.test_sets} sets and {self.patches} patches; they must be 1 or "
                f"more, and no more patches than half of the {self.grid**2} of an image."
            )


@dataclass(frozen=True)
class Arranged:
    """A set of patches in some order.

    Args:
        pixels: `(side, side, 3)` uint8.
        order: `(grid, grid)`, the number of the patch in each place; every number occurs once.
    """

    pixels: np.ndarray
    order: np.ndarray


def cut_patches(image: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """The whole patches of an image `(H, W, 3)`: `(rows, columns, patch height, patch width, 3)`."""
    height, width = patch
    rows, columns = image.shape[0] // height, image.shape[1] // width
    whole = image[: rows * height, : columns * width]
    return whole.reshape(rows, height, columns, width, 3).swapaxes(1, 2)


def put_together(patches: np.ndarray, order: np.ndarray) -> Arranged:
    """Patches `(n, height, width, 3)` in an order `(rows, columns)` as an image."""
    rows, columns = order.shape
    _, height, width, _ = patches.shape
    pixels = patches[order].swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    return Arranged(np.ascontiguousarray(pixels), order)


def draw_order(name: str, grid: int, random: np.random.Generator) -> np.ndarray:
    """A pattern of `grid²` patches, of which the first half are of one kind and the others of another.

    Which patch of a kind goes where, which kind comes first and how far all is rolled are random.

    Returns:
        `(grid, grid)`, the number of the patch in each place.
    """
    row, column = np.indices((grid, grid))
    kind = PATTERNS[name](row, column)
    if name == "halves" and random.integers(2):
        kind = kind.T
    kind = np.roll(kind, random.integers(grid, size=2), axis=(0, 1)) ^ int(random.integers(2))
    order = np.empty((grid, grid), dtype=int)
    for value in (0, 1):
        order[kind == value] = random.permutation(grid**2 // 2) + value * (grid**2 // 2)
    return order


def shuffle_neighbourhoods(order: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An order `(rows, columns)` in which the patches of each neighbourhood of 4×4 are shuffled among themselves."""
    shuffled = order.copy()
    for row in range(0, order.shape[0], NEIGHBOURHOOD):
        for column in range(0, order.shape[1], NEIGHBOURHOOD):
            place = np.s_[row : row + NEIGHBOURHOOD, column : column + NEIGHBOURHOOD]
            shuffled[place] = random.permutation(order[place].ravel()).reshape(order[place].shape)
    return shuffled


def draw_arrangements(
    images: Sequence[np.ndarray], patch: tuple[int, int], grid: int, random: np.random.Generator
) -> dict[str, Arranged]:
    """All arrangements of a set of patches from two random images, and the two of a part of the first.

    Args:
        images: `(H, W, 3)` uint8; two or more, of at least `grid` patches a side. Patches of the brighter one of two
            have the lower half of the numbers.
        patch: height and width of a patch in pixels.
    """
    pair = [images[index] for index in random.choice(len(images), 2, replace=False)]
    first, second = (cut_patches(image, patch) for image in sorted(pair, key=np.mean, reverse=True))
    half = grid**2 // 2
    kinds = [part.reshape(-1, *part.shape[2:]) for part in (first, second)]
    patches = np.concatenate([kind[random.choice(len(kind), half, replace=len(kind) < half)] for kind in kinds])
    arranged = {name: put_together(patches, draw_order(name, grid, random)) for name in PATTERNS}
    row, column = (int(random.integers(count - grid + 1)) for count in first.shape[:2])
    part = first[row : row + grid, column : column + grid].reshape(-1, *first.shape[2:])
    places = np.arange(grid**2).reshape(grid, grid)
    return arranged | {
        IN_PLACE: put_together(part, places),
        SHUFFLED: put_together(part, shuffle_neighbourhoods(places, random)),
    }


def prepare(images: Sequence[Image.Image], patch: tuple[int, int], settings: Settings) -> list[np.ndarray]:
    """Images brought to the size at which patches are cut, `(H, W, 3)` uint8.

    Raises:
        ValueError: an image has fewer patches a side than the grid then.
    """
    prepared = []
    for number, image in enumerate(images):
        factor = settings.source / min(image.size)
        width, height = (round(side * factor) for side in image.size)
        if min(height // patch[0], width // patch[1]) < settings.grid:
            raise ValueError(
                f"Image {number} has {height // patch[0]}×{width // patch[1]} patches at {settings.source} pixels; the "
                f"grid needs {settings.grid} a side. Lower the grid, or raise the source size."
            )
        prepared.append(np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)))
    return prepared


def split(images: Sequence[np.ndarray], settings: Settings) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images to fit on and images to test on.

    Raises:
        ValueError: there are too few for two of each.
    """
    count = max(2, round(len(images) * settings.test_share))
    if len(images) - count < 2:
        raise ValueError(
            f"There are {len(images)} images; the probe needs 4 or more, two to fit on and two to test on."
        )
    return list(images[:-count]), list(images[-count:])


def by_patch(features: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Features `(rows, columns, D)` of an arrangement in the order of the patches' numbers, `(n, D)`."""
    found = np.empty((order.size, features.shape[-1]), dtype=features.dtype)
    found[order.ravel()] = features.reshape(order.size, -1)
    return found


def features_of_sets(
    backbone: Backbone, images: Sequence[np.ndarray], count: int, settings: Settings, seed: int, bar: tqdm
) -> Iterator[dict[str, np.ndarray]]:
    """For each set of patches the features `(grid², D)` of its patches in every arrangement, ordered by patch."""
    patch = patch_shape(backbone)
    for number in range(count):
        arranged = draw_arrangements(images, patch, settings.grid, np.random.default_rng((seed, number)))
        pictures = [Image.fromarray(one.pixels) for one in arranged.values()]
        maps = dense_features(backbone, pictures, min(pictures[0].size))
        yield {
            name: by_patch(features, one.order) for (name, one), features in zip(arranged.items(), maps, strict=True)
        }
        bar.update()


def relative_change(features: Mapping[str, np.ndarray], question: str) -> float:
    """How far patches' features move between the arrangements of a question, over their length; the mean."""
    first, *others = (features[name].astype(np.float64) for name in QUESTIONS[question])
    length = np.linalg.norm(first, axis=1)
    return float(np.mean([np.linalg.norm(other - first, axis=1) / length for other in others]))


def samples(sets: Sequence[Mapping[str, np.ndarray]], question: str, patches: np.ndarray) -> tuple[np.ndarray, ...]:
    """Features `(sets · arrangements · patches, D)` and the number of their arrangement."""
    names = QUESTIONS[question]
    features = [entry[name][chosen] for entry, chosen in zip(sets, patches, strict=True) for name in names]
    return np.concatenate(features), np.repeat(np.tile(np.arange(len(names)), len(sets)), patches.shape[1])


def probe(
    fitted: Sequence[Mapping[str, np.ndarray]],
    tested: Sequence[Mapping[str, np.ndarray]],
    question: str,
    patches: int,
    seed: int = 0,
) -> list[float]:
    """Share of the patches of each test set whose arrangement a linear probe tells.

    The probe is linear discriminant analysis with shrunk covariance: as linear as logistic regression, it looks in
    directions of small variance just as well, where arrangement is if it is anywhere.
    """
    random = np.random.default_rng(seed)
    total = len(next(iter(fitted[0].values()))) // (1 if question == "shuffles" else 2)
    chosen = np.stack([random.permutation(total)[:patches] for _ in (*fitted, *tested)])
    classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    classifier.fit(*samples(fitted, question, chosen[: len(fitted)]))
    return [
        float(classifier.score(*samples([entry], question, one[None])))
        for entry, one in zip(tested, chosen[len(fitted) :], strict=True)
    ]


def measure(
    backbone: Backbone,
    images: Sequence[Image.Image],
    dataset: DatasetFacts,
    settings: Settings | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Images -> arrangements of their patches -> features -> probe -> result record.

    Its figures are `stripes`, `patterns`, `shuffles`, the shares of test patches whose arrangement the probe tells, and
    for each question `change_…`; all are means over test sets, with their standard deviation.

    Raises:
        ValueError: there are fewer than four images, they are too small, or patches overlap.
    """
    stopwatch, settings = Stopwatch(), settings or Settings()
    if patch_step(backbone) != patch_shape(backbone):
        raise ValueError(f"The patches of {backbone.source} overlap; rearranged images need patches side by side.")
    prepared = split(prepare(images, patch_shape(backbone), settings), settings)
    counts = settings.fit_sets, settings.test_sets
    with tqdm(total=sum(counts), desc=f"arrangements of {backbone.name}", unit="set") as bar:
        fitted, tested = (
            list(features_of_sets(backbone, part, count, settings, 2 * seed + number, bar))
            for number, (part, count) in enumerate(zip(prepared, counts, strict=True))
        )
    figures = {question: probe(fitted, tested, question, settings.patches, seed) for question in QUESTIONS}
    figures |= {f"change_{question}": [relative_change(entry, question) for entry in tested] for question in QUESTIONS}
    parameters = asdict(settings) | {"size": settings.grid * patch_shape(backbone)[0], "probe": "shrunk LDA"}
    return make_record("arrangement", mean_and_std(figures), dataset, backbone, parameters, seed, stopwatch)


def arrangement_figure(arranged: Mapping[str, Arranged], records: Sequence[Mapping[str, Any]]) -> Figure:
    """An example of each arrangement above, how often each model tells them below.

    Args:
        arranged: from `draw_arrangements`.
        records: from `measure`, a group of bars each.
    """
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.5])
    above, below = parts
    for axes, (name, one) in zip(above.subplots(1, len(arranged)), arranged.items(), strict=True):
        axes.imshow(one.pixels)
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    above.suptitle("the same patches in different order (the last two: those of one micrograph)", fontsize=11)
    for axes, (question, names) in zip(below.subplots(1, len(QUESTIONS), sharey=True), QUESTIONS.items(), strict=True):
        values = [record["metrics"][question] for record in records]
        spread = [record["metrics"][f"{question}_std"] for record in records]
        colours = [line_colours()[1 + number % 6] for number in range(len(records))]
        bars = axes.bar(range(len(records)), values, yerr=spread, color=colours, width=0.7, capsize=3)
        axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=9)
        axes.axhline(1 / len(names), color="black", linestyle="--", linewidth=1)
        axes.annotate("guessing", (-0.45, 1 / len(names)), (0, 2), textcoords="offset points", fontsize=8)
        axes.set_xticks(range(len(records)), [record["model"]["name"] for record in records], fontsize=9)
        axes.set_ylim(0, 1.1)
        axes.set_title(" or ".join((", ".join(names[:-1]), names[-1])) + "?", fontsize=10)
    below.supylabel("patches that tell", fontsize=10)
    return figure


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = models_parser(__doc__)
    parser.add_argument("--images", required=True, help="folder of four micrographs or more")
    parser.add_argument("--grid", type=int, default=Settings.grid, help="patches a side, a multiple of 8")
    parser.add_argument("--fit-sets", type=int, default=Settings.fit_sets, help="sets of patches to fit on")
    parser.add_argument("--test-sets", type=int, default=Settings.test_sets, help="sets of patches to test on")
    parser.add_argument("--patches", type=int, default=Settings.patches, help="of an image that the probe sees")
    parser.add_argument("--source", type=int, default=Settings.source, help="shortest side of micrographs in pixels")
    parser.add_argument("--output-folder", type=Path, required=True, help="for a result record (JSON) of each model")
    parser.add_argument("--figure", type=Path, required=True, help="file for the picture (PNG)")
    return parser


def command(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The records that the options ask for, each as soon as it is measured; the picture is written at the end."""
    names = ("grid", "fit_sets", "test_sets", "patches", "source")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    images = read_folder(arguments.images)
    dataset = describe_images(Path(arguments.images).name, images)
    backbones = named_backbones(arguments)
    records = []
    for backbone in backbones:
        records.append(measure(backbone, images, dataset, settings, arguments.seed))
        yield records[-1]
    patch = patch_shape(backbones[0])
    shown = split(prepare(images, patch, settings), settings)[1]
    example = draw_arrangements(shown, patch, settings.grid, np.random.default_rng((2 * arguments.seed + 1, 0)))
    save_figure(arrangement_figure(example, records), arguments.figure)
    for record in records:
        figures = {name: value for name, value in record["metrics"].items() if not name.endswith("_std")}
        print(record["model"]["name"], *(f"{name} {value:.3g}" for name, value in figures.items()), sep="  ")


def main(argv: Sequence[str] | None = None) -> None:
    run_records(make_parser(), command, argv)


if __name__ == "__main__":
    main()
