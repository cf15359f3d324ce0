# SPDX-License-Identifier: Apache-2.0
"""Data sets for the benchmark, in one form, from what one has downloaded.

    python -m evaluation.segmentation.benchmark.prepare --downloads downloads --output benchmark-data

What to download is in `sources.py`; a set whose download is missing is named and left out. Made sets need none. Of
each set, a few images to draw on and a few to test on are chosen at random (from a fixed seed, so that everybody has
the same) and their centres cut out, of at most 512×512 pixels. A folder of the result has

    train/images train/masks     images to draw on, which have all classes; masks hold classes from 0, 255 is void
    test/images test/masks       images to test on
    facts.json                   names of the classes, origin, licence, whether classes follow position
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from alibi_dinov2.command import run
from evaluation.command import plain_parser
from evaluation.segmentation.benchmark.sets import Facts, write_set
from evaluation.segmentation.benchmark.sources import SOURCES, Candidate, Source
from evaluation.segmentation.benchmark.synthetic import RECIPES, Recipe, make_image

NAMES = (*SOURCES, *RECIPES)
SIDE = 512  # pixels of an image, at most: what a backbone sees at once
TRAIN, TEST = 5, 8  # images of a set
LEAST = 0.01  # of the pixels of an image to draw on that each class has; half of it in one to test on


def centre(candidate: Candidate) -> Candidate:
    """The middle of an image and of its mask, `SIDE` pixels wide and high or less."""
    parts = []
    for length in candidate.mask.shape:
        start = max(length - SIDE, 0) // 2
        parts.append(slice(start, start + SIDE))
    return Candidate(candidate.name, candidate.image[tuple(parts)], candidate.mask[tuple(parts)])


def shares(mask: np.ndarray, classes: int) -> np.ndarray:
    """What fraction of the pixels of a mask each class has, `(classes,)`."""
    return np.bincount(mask[mask < classes], minlength=classes) / mask.size


def choose(source: Source, folder: Path, name: str, tests: int) -> tuple[list[Candidate], list[Candidate]]:
    """Images to draw on and images to test on.

    Raises:
        ValueError: the download has too few images with enough of every class.
        OSError: it is not what `source` says.
    """
    found = {candidate.name: candidate for candidate in map(centre, tqdm(source.read(folder), name, unit="img"))}
    least = {name: shares(one.mask, len(source.classes)).min() for name, one in found.items()}
    order = np.random.default_rng(0).permutation(sorted(found)).tolist()
    train = [one for one in source.train or order if least.get(one, 0) >= LEAST][:TRAIN]
    test = [one for one in order if one not in (*train, *source.train) and least[one] >= LEAST / 2][:tests]
    if len(train) < 2 or not test:
        raise ValueError(
            f"{folder} has {len(found)} images, {len(train)} of which can be drawn on and {len(test)} more tested on; "
            f"there must be 2 and 1 that show enough of {', '.join(source.classes)}. Get {source.origin}."
        )
    return [found[one] for one in train], [found[one] for one in test]


def made(recipe: Recipe, tests: int) -> tuple[list[Candidate], list[Candidate]]:
    """Made images to draw on and to test on."""
    images = [Candidate(f"{seed:02d}", *make_image(recipe, seed)) for seed in range(TRAIN + tests)]
    return images[:TRAIN], images[TRAIN:]


def prepare(downloads: Path | None, output: Path, names: Sequence[str], tests: int = TEST) -> Iterator[str]:
    """Make the data sets of these names; what was made, or is missing, is told as a line of text each.

    Args:
        downloads: folder with a folder of each download, if there is one.
        output: for a folder of each data set.
        names: of `NAMES`.
        tests: images to test on, at most.

    Raises:
        ValueError, OSError: a download is damaged, or is not what it should be.
    """
    for name in names:
        if name in RECIPES:
            recipe = RECIPES[name]
            chosen = made(recipe, tests)
            facts = Facts(recipe.classes, recipe.origin, "made by this program", recipe.by_position)
        else:
            source = SOURCES[name]
            folder = downloads and downloads / source.folder
            if folder is None or not folder.is_dir():
                yield f"{name}: left out, there is no folder {source.folder} among the downloads. Get {source.origin}."
                continue
            chosen = choose(source, folder, name, tests)
            facts = Facts(source.classes, source.origin, source.licence, False)
        write_set(output / name, *chosen, facts)
        yield f"{name}: {len(chosen[0])} images to draw on, {len(chosen[1])} to test on"


def command(arguments: argparse.Namespace) -> None:
    """What the options ask for."""
    for line in prepare(arguments.downloads, arguments.output, arguments.sets, arguments.test_images):
        print(line)


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = plain_parser(__doc__)
    parser.add_argument("--downloads", type=Path, help="folder of what was downloaded; none for made sets alone")
    parser.add_argument("--sets", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--test-images", type=int, default=TEST, help="of each set, at most")
    parser.add_argument("--output", type=Path, required=True, help="folder for a folder of each data set")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    run(make_parser(), command, argv)


if __name__ == "__main__":
    main()
