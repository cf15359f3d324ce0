# SPDX-License-Identifier: Apache-2.0
"""Does a single patch's feature tell how the patches around it are arranged?

    python -m evaluation.semantics.arrangement --models teacher nope alibi --names DINOv2 NoPE ALiBi \\
        --images data/micrographs --output-folder results --figure arrangement.png

Images are made of the same patches in different order. Patches of two micrographs, as many of each, become stripes
across or along, a checkerboard, blocks or halves; all patches of a part of a micrograph stay where they are or are
shuffled within neighbourhoods. Each arrangement is drawn several times, with the patches of a kind in other places. A
linear probe on the features of single patches is fitted on half of the patches in some of these orders, and tells the
arrangement from the other half of the patches in the other orders. Of two micrographs it sees the patches of the
brighter one, so that what is around them is all that it has to tell.

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
from evaluation.report.records import DatasetFacts, Stopwatch, data_name, describe_images, make_record, mean_and_std

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
        sets: sets of patches, each of two micrographs and with a probe of its own.
        orders: how often each arrangement of a set is drawn.
        test_orders: of these the probe is tested on so many, and fitted on the others.
        source: shortest side in pixels that micrographs are brought to before patches are cut.
    """

    grid: int = 16
    sets: int = 15
    orders: int = 8
    test_orders: int = 2
    source: int = 518

    def __post_init__(self) -> None:
        if self.grid < PERIOD or self.grid % PERIOD:
            raise ValueError(f"The grid is {self.grid}; it must be a multiple of {PERIOD} patches, such as 16.")
        if self.sets < 1 or not 0 < self.test_orders < self.orders:
            raise ValueError(
                f"There are {self.sets} sets of {self.orders} orders, {self.test_orders} of them to test on; there "
                "must be 1 set or more, and an order at least to fit on and one to test on."
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


@dataclass(frozen=True)
class PatchSet:
    """What the arrangements of a set are made of.

    Args:
        patches: `(grid², height, width, 3)` uint8, those of the brighter micrograph in the first half.
        part: `(grid², height, width, 3)`, neighbouring patches of the brighter micrograph, row by row.
    """

    patches: np.ndarray
    part: np.ndarray


def draw_set(images: Sequence[np.ndarray], patch: tuple[int, int], grid: int, random: np.random.Generator) -> PatchSet:
    """Random patches of two random images, and a random part of the brighter one.

    Args:
        images: `(H, W, 3)` uint8; two or more, of at least `grid` patches a side.
        patch: height and width of a patch in pixels.
    """
    pair = [images[index] for index in random.choice(len(images), 2, replace=False)]
    first, second = (cut_patches(image, patch) for image in sorted(pair, key=np.mean, reverse=True))
    half = grid**2 // 2
    kinds = [part.reshape(-1, *part.shape[2:]) for part in (first, second)]
    patches = np.concatenate([kind[random.choice(len(kind), half, replace=len(kind) < half)] for kind in kinds])
    row, column = (int(random.integers(count - grid + 1)) for count in first.shape[:2])
    return PatchSet(patches, first[row : row + grid, column : column + grid].reshape(-1, *first.shape[2:]))


def draw_arrangements(patch_set: PatchSet, grid: int, random: np.random.Generator) -> dict[str, Arranged]:
    """All arrangements of a set, each in an order drawn anew."""
    places = np.arange(grid**2).reshape(grid, grid)
    return {name: put_together(patch_set.patches, draw_order(name, grid, random)) for name in PATTERNS} | {
        IN_PLACE: put_together(patch_set.part, places),
        SHUFFLED: put_together(patch_set.part, shuffle_neighbourhoods(places, random)),
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


def by_patch(features: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Features `(rows, columns, D)` of an arrangement in the order of the patches' numbers, `(n, D)`."""
    found = np.empty((order.size, features.shape[-1]), dtype=features.dtype)
    found[order.ravel()] = features.reshape(order.size, -1)
    return found


def features_of_orders(
    backbone: Backbone, patch_set: PatchSet, settings: Settings, random: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    """For each order the features `(grid², D)` of a set's patches in every arrangement, ordered by patch."""
    found = []
    for _ in range(settings.orders):
        arranged = draw_arrangements(patch_set, settings.grid, random)
        pictures = [Image.fromarray(one.pixels) for one in arranged.values()]
        maps = dense_features(backbone, pictures, min(pictures[0].size))
        found.append(
            {name: by_patch(features, one.order) for (name, one), features in zip(arranged.items(), maps, strict=True)}
        )
    return found


def relative_change(features: Mapping[str, np.ndarray], question: str) -> float:
    """How far patches' features move between the arrangements of a question, over their length; the mean."""
    first, *others = (features[name].astype(np.float64) for name in QUESTIONS[question])
    length = np.linalg.norm(first, axis=1)
    return float(np.mean([np.linalg.norm(other - first, axis=1) / length for other in others]))


def samples(
    orders: Sequence[Mapping[str, np.ndarray]], question: str, patches: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features `(orders · arrangements · patches, D)` of some patches, and the number of their arrangement."""
    names = QUESTIONS[question]
    features = [entry[name][patches] for entry in orders for name in names]
    return np.concatenate(features), np.repeat(np.tile(np.arange(len(names)), len(orders)), len(patches))


def probe(
    orders: Sequence[Mapping[str, np.ndarray]], question: str, test_orders: int, random: np.random.Generator
) -> float:
    """Share of patches not fitted on whose arrangement a linear probe tells, in orders not fitted on.

    The probe is linear discriminant analysis with shrunk covariance: as linear as logistic regression, it looks in
    directions of small variance just as well, where arrangement is if it is anywhere.
    """
    total = len(next(iter(orders[0].values()))) // (1 if question == "shuffles" else 2)
    fitted, tested = np.array_split(random.permutation(total), 2)
    classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    classifier.fit(*samples(orders[:-test_orders], question, fitted))
    return float(classifier.score(*samples(orders[-test_orders:], question, tested)))


def measure(
    backbone: Backbone,
    images: Sequence[Image.Image],
    dataset: DatasetFacts,
    settings: Settings | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Images -> arrangements of their patches -> features -> probe -> result record.

    Its figures are `stripes`, `patterns`, `shuffles`, the shares of test patches whose arrangement the probe tells, and
    for each question `change_…`; all are means over sets, with their standard deviation.

    Raises:
        ValueError: there are fewer than two images, they are too small, or patches overlap.
    """
    stopwatch, settings = Stopwatch(), settings or Settings()
    if patch_step(backbone) != patch_shape(backbone):
        raise ValueError(f"The patches of {backbone.source} overlap; rearranged images need patches side by side.")
    if len(images) < 2:
        raise ValueError(f"There are {len(images)} images; patches of two are arranged.")
    prepared = prepare(images, patch_shape(backbone), settings)
    figures: dict[str, list[float]] = {}
    for number in tqdm(range(settings.sets), desc=f"arrangements of {backbone.name}", unit="set"):
        random = np.random.default_rng((seed, number))
        patch_set = draw_set(prepared, patch_shape(backbone), settings.grid, random)
        orders = features_of_orders(backbone, patch_set, settings, random)
        for question in QUESTIONS:
            figures.setdefault(question, []).append(probe(orders, question, settings.test_orders, random))
            figures.setdefault(f"change_{question}", []).append(relative_change(orders[0], question))
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
    parser.add_argument("--images", required=True, help="folder of two micrographs or more")
    parser.add_argument("--grid", type=int, default=Settings.grid, help="patches a side, a multiple of 8")
    parser.add_argument("--sets", type=int, default=Settings.sets, help="sets of patches, each of two micrographs")
    parser.add_argument("--orders", type=int, default=Settings.orders, help="how often each arrangement is drawn")
    parser.add_argument("--test-orders", type=int, default=Settings.test_orders, help="orders of these to test on")
    parser.add_argument("--source", type=int, default=Settings.source, help="shortest side of micrographs in pixels")
    parser.add_argument("--output-folder", type=Path, required=True, help="for a result record (JSON) of each model")
    parser.add_argument("--figure", type=Path, required=True, help="file for the picture (PNG)")
    return parser


def command(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The records that the options ask for, each as soon as it is measured; the picture is written at the end."""
    names = ("grid", "sets", "orders", "test_orders", "source")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    images = read_folder(arguments.images)
    dataset = describe_images(data_name(arguments.images), images)
    backbones = named_backbones(arguments)
    records = []
    for backbone in backbones:
        records.append(measure(backbone, images, dataset, settings, arguments.seed))
        yield records[-1]
    patch, random = patch_shape(backbones[0]), np.random.default_rng((arguments.seed, 0))
    shown = draw_set(prepare(images, patch, settings), patch, settings.grid, random)
    example = draw_arrangements(shown, settings.grid, random)
    save_figure(arrangement_figure(example, records), arguments.figure)
    for record in records:
        figures = {name: value for name, value in record["metrics"].items() if not name.endswith("_std")}
        print(record["model"]["name"], *(f"{name} {value:.3g}" for name, value in figures.items()), sep="  ")


def main(argv: Sequence[str] | None = None) -> None:
    run_records(make_parser(), command, argv)


if __name__ == "__main__":
    main()
