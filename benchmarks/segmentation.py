# SPDX-License-Identifier: Apache-2.0
"""Time and memory of trainable segmentation as the image grows, from TIFF file to TIFF file, on the CPU.

    python -m benchmarks.segmentation --output segmentation.json

* `classical`, `deep`, `both`: which features; the backbone is a ViT-S/14 with registers and random weights.
* `features`: of all pixels, nothing cached: classical ones, or windows through the backbone and principal components.
* `fit`: principal components, features of the labelled pixels and classifier, when the backbone's features are cached.
* `refit`: the same after some more strokes, as a user does who looks at the mask.
* `predict`: classes of all pixels, when the backbone's features are cached.

Each size and kind of features has a process of its own. Memory is the peak of the resident memory from the first step
to the last, less what was resident when libraries and weights were loaded. Images are synthetic: two materials, smooth
and rough. Strokes have the same number of pixels whatever the size.
"""

import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from scipy.ndimage import gaussian_filter
from sklearn.base import clone
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.feature_cache import MemoryCache
from alibi_dinov2.io.files import write_json
from alibi_dinov2.io.open_image import open_image
from alibi_dinov2.io.partial_result import Layer, PartialResult
from alibi_dinov2.io.tiled_tiff import Layout, write_result
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from benchmarks.cases import HEAD_DIM, Setting, build_model
from benchmarks.measuring import in_fresh_process, machine_facts, time_and_memory
from evaluation.segmentation.scribbles import add_strokes
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

FEATURES = ("classical", "deep", "both")
TRUTH = 512  # side in pixels of the corner that strokes are drawn in
COLOURS = np.zeros((256, 3), dtype=np.uint8)


def materials(side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A square image uint8 with smooth and rough regions, and which are rough."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((side, side), dtype=np.float32)
    rough = gaussian_filter(noise, 24) > 0
    image = 128 + np.where(rough, 40 * noise, 40 * gaussian_filter(noise, 3))
    return image.clip(0, 255).astype(np.uint8), rough


def measure_case(features: str, side: int, width: int, layers: int, threads: int) -> dict[str, Any]:
    """Figures of one case; to be called in a process of its own."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.tif"
        image, rough = materials(side)
        tifffile.imwrite(path, image, tile=(256, 256), compression="zlib")
        strokes, more = (np.zeros((side, side), dtype=np.uint8) for _ in range(2))
        random = np.random.default_rng(0)
        strokes[:TRUTH, :TRUTH] = add_strokes(strokes[:TRUTH, :TRUTH], rough[:TRUTH, :TRUTH], random)
        more[:TRUTH, :TRUTH] = add_strokes(strokes[:TRUTH, :TRUTH], rough[:TRUTH, :TRUTH], random)
        del image, rough
        model = build_model("sdpa", Setting(DeepFeatures.window, layers=layers, width=width))
        backbone = Backbone(model, Dinov2AlibiImageProcessor(), "random", "random")
        segmenter = TrainableSegmenter(
            backbone if features != "classical" else None,
            ClassicalFeatures() if features != "deep" else None,
            cache=MemoryCache(),
        )
        again: TrainableSegmenter = clone(segmenter)  # shares what the backbone gave, not the classical features
        seconds: dict[str, float] = {}

        def timed(name: str, run: Callable[[], Any]) -> None:
            start = time.perf_counter()
            run()
            seconds[name] = time.perf_counter() - start

        def predict() -> None:
            partial = PartialResult(
                Path(folder) / "mask.tif", 1, source.shape, [Layer("classes", "uint8")], "benchmark"
            )
            for number, block, probabilities in again.predict_blocks(source):
                partial.write(0, number, *block, {"classes": again.classes_[probabilities.argmax(axis=-1)]})
            write_result(partial.path, partial.mapped("classes"), Layout(), {}, COLOURS)
            partial.remove()

        def compute_features() -> None:
            # Nothing is remembered: the windows go through the backbone again.
            features = replace(segmenter.features_, cache=MemoryCache(0))
            for _ in features.of_slice(source, 0):
                pass

        def everything() -> None:
            timed("first_fit", lambda: segmenter.fit(source, strokes))
            timed("features_seconds", compute_features)
            timed("fit", lambda: again.fit(source, strokes))
            timed("refit", lambda: again.fit(source, more))
            timed("predict", predict)

        with open_image(path) as source:
            memory = time_and_memory(everything)
    return {"features": features, "side": side, "labelled": int((more > 0).sum())} | seconds | memory


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| features | megapixels | features, s/MP | fit, s | refit, s | predict, s/MP | memory, MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        megapixels = row["side"] ** 2 / 2**20
        cells = [f"{row['features_seconds'] / megapixels:.2f}", f"{row['fit']:.2f}", f"{row['refit']:.2f}"]
        cells += [f"{row['predict'] / megapixels:.2f}", f"{row['memory_bytes'] / 2**20:.0f}"]
        lines.append(f"| {row['features']} | {megapixels:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096], help="of the images in pixels")
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=list(FEATURES))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=384, help=f"a multiple of {HEAD_DIM}")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    if min(options.sides) < TRUTH or options.width % HEAD_DIM:
        parser.error(f"sides {options.sides} must be {TRUTH} or more, width {options.width} a multiple of {HEAD_DIM}")
    cases = [(features, side) for side in options.sides for features in options.features]
    rows = [
        in_fresh_process(measure_case, features, side, options.width, options.layers, torch.get_num_threads())
        for features, side in tqdm(cases, "cases", unit="case")
    ]
    settings = {name: getattr(options, name) for name in ("layers", "width")}
    if options.output:
        write_json(options.output, {"machine": machine_facts(), "settings": settings, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
