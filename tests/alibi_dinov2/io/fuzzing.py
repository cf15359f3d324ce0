# SPDX-License-Identifier: Apache-2.0
"""Image files of all kinds with bytes changed at random: the reader gives pixels or its own error, nothing else.

python -m tests.alibi_dinov2.io.fuzzing --count 10000
"""

import io
import logging
import tempfile
import warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from tqdm.auto import tqdm

from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.io.open_image import open_image
from alibi_dinov2.segmentation.prediction import Outputs, predict_files, result_paths
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter

SIDE = 40  # pixels of the undamaged images
PREDICTED = 10  # of so many files that still open one is segmented


def undamaged() -> dict[str, bytes]:
    """Small files by name, of every format that can be written here."""
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    rgb = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    deep = random.integers(300, 3500, (3, SIDE, SIDE), dtype=np.uint16)
    unit = random.random((SIDE, SIDE)).astype(np.float32)
    files = {}

    def tiff(name: str, array: np.ndarray, **options) -> None:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, **options)
        files[f"{name}.tif"] = buffer.getvalue()

    tiff("plain", grey)
    tiff("rgb", rgb, photometric="rgb", compression="zlib", rowsperstrip=7)
    tiff("planar", np.moveaxis(rgb, -1, 0).copy(), photometric="rgb", planarconfig="separate")
    tiff("tiles", deep[0], tile=(16, 16), compression="lzw", predictor=True)
    tiff("big", deep[0], bigtiff=True, byteorder=">")
    tiff("float", unit, compression="zstd")
    tiff("jpeg", rgb, compression="jpeg", photometric="rgb")
    tiff("imagej", deep, imagej=True, metadata={"axes": "ZYX"})
    tiff("ome", deep, ome=True, metadata={"axes": "TYX"}, compression="packbits")
    tiff("bilevel", grey > 127, photometric="minisblack")
    for name, options in (("png", {}), ("jpeg", {}), ("webp", {"lossless": True}), ("bmp", {}), ("gif", {})):
        for mode, array in (("L", grey), ("RGB", rgb)):
            buffer = io.BytesIO()
            Image.fromarray(array).save(buffer, name, **options)
            files[f"{mode}.{name}"] = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(deep[0]).save(buffer, "png")
    files["16.png"] = buffer.getvalue()
    return files


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """A file cut off, with bytes changed, put in, left out or set to extremes, one to eight times."""
    found = bytearray(content)
    for _ in range(random.integers(1, 9)):
        # What says how a file is to be read stands at one of its ends more often than not.
        reach = len(found) if random.random() < 0.5 else min(len(found), 400)
        place = int(random.integers(max(reach, 1)))
        place = len(found) - 1 - place if random.random() < 0.3 else place
        size = int(random.choice([1, 2, 4, 8]))
        match random.integers(6):
            case 0:
                found[place : place + size] = random.bytes(size)
            case 1:
                found[place : place + size] = bytes([int(random.choice([0, 1, 127, 128, 255]))]) * size
            case 2:
                found[place:place] = random.bytes(size)
            case 3:
                del found[place : place + size]
            case 4:
                found[place : place + 1] = bytes([found[place] ^ (1 << int(random.integers(8)))]) if found else b""
            case 5:
                if random.random() < 0.3:
                    del found[place:]
    return bytes(found)


def fuzz(folder: Path, count: int, seed: int = 0, progress: bool = False) -> Iterator[str]:
    """Read `count` damaged files, segment some of those that still open; gives what became of each, in a word.

    Raises:
        Exception: something else than our own error came out of it, or something was left half-written.
    """
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    files, random = undamaged(), np.random.default_rng(seed)
    names = sorted(files)
    for name in names:
        with open_image(files[name], name) as image:
            image.read(0, slice(0, SIDE), slice(0, SIDE))
    settings = {"classical": ClassicalFeatures(sigmas=(1.0,), membrane=False), "classifier": "logistic-regression"}
    labels = np.repeat([[0, 1, 2, 0]], SIDE, axis=0).repeat(SIDE // 4, axis=1)
    segmenter = TrainableSegmenter(**settings, contrast="per-image").fit(open_image(files["tiles.tif"]), labels)
    segmenter.save(folder / "segmenter")
    opened = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in tqdm(range(count), "files", unit="file", disable=not progress):
            name = names[number % len(names)]
            path = folder / f"{number} {name}"
            path.write_bytes(damaged(files[name], random))
            try:
                with open_image(path) as image:
                    image.describe()
                    rows, columns = (slice(0, min(side, 64)) for side in image.shape)
                    region = image.read(image.slices - 1, rows, columns)
                assert region.dtype == np.uint8
                assert region.shape == (rows.stop, columns.stop, 3)
                assert image.slices >= 1
            except ValueError as error:
                if str(path) not in str(error):
                    raise AssertionError(f"{path.name}: the message names no file: {error}") from error
                path.unlink()
                yield "refused"
                continue
            opened += 1
            yield "read"
            if opened % PREDICTED == 0 and image.slices * image.shape[0] * image.shape[1] < 10 * SIDE**2:
                yield segmented(segmenter, path, folder / "results")
            path.unlink()


def segmented(segmenter: TrainableSegmenter, path: Path, output: Path) -> str:
    """Segment a file; what became of it, in a word. Nothing but whole results is left."""
    paths = {Path(path.name): path}
    ((_, found),) = predict_files(segmenter, paths, result_paths(paths, output), Outputs(overlay=False))
    if isinstance(found, dict):
        (result,) = result_paths(paths, output).values()
        assert tifffile.imread(result).dtype == np.uint8
        result.unlink()
    elif output.is_dir():
        assert not [file for file in output.iterdir() if not file.name.startswith(".")], "a result of a failure"
    for file in output.glob(".*") if output.is_dir() else ():  # progress that goes on when the file is replaced
        file.unlink() if file.is_file() else None
    return "segmented" if isinstance(found, dict) else "failed while it was segmented"


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="of files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = Counter(fuzz(Path(folder), options.count, options.seed, progress=True))
    print(", ".join(f"{count} {what}" for what, count in counts.most_common()))


if __name__ == "__main__":
    main()
