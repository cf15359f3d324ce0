# SPDX-License-Identifier: Apache-2.0
"""How long a stroke takes to show: learning again and predicting what is visible, with and without a session.

    python -m benchmarks.session --output session.json

* `features`: of the whole image, in a session's background; nothing is there yet.
* `refit`: learning from one stroke more.
* `predict`: probabilities of a visible region of so many pixels, of which features are there; `filtered`, as a
  segmenter does by default, with the guided filter.
* `before`: refit and prediction by the estimator as it was without a session: features of the region computed again,
  and every tree gone through pixel by pixel by XGBoost. In the same process, in turns with the session.

With `--large` an image of that side is segmented in the background as well: seconds, the peak of the resident memory
beyond what the process had at rest, and how long it takes to cancel.

The backbone is a ViT-S/14 with registers and random weights, which takes as long as one that has learned. Images are
synthetic, strokes are those of `evaluation.segmentation.scribbles`. `agreement` is the share of pixels of the visible
region that get the same class by XGBoost on features in float32 and by the session.
"""

import statistics
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import Backbone
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.io.files import write_json
from alibi_dinov2.io.image_regions import ArrayImage
from alibi_dinov2.segmentation.guided_filter import RADIUS
from alibi_dinov2.segmentation.pixel_classifiers import CLASSIFIERS, Trees
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from alibi_dinov2.segmentation.session import Session
from benchmarks.cases import HEAD_DIM, Setting, build_model
from benchmarks.measuring import in_fresh_process, machine_facts, time_and_memory
from benchmarks.segmentation import materials
from evaluation.segmentation.scribbles import add_strokes
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

SIDES = (512, 1024)  # of visible regions


def segmenter_of(classifier: str, size: tuple[int, int]) -> TrainableSegmenter:
    """An unfitted segmenter with a backbone of random weights, of so many layers and so wide."""
    model = build_model("sdpa", Setting(DeepFeatures.window, layers=size[0], width=size[1]))
    backbone = Backbone(model, Dinov2AlibiImageProcessor(), "random", "random")
    # Without the filter, which what is compared with does not have; it is measured apart.
    return TrainableSegmenter(backbone, classifier=classifier, guided_radius=0)


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """How long something takes, and what it gives."""
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def before(segmenter: TrainableSegmenter, image: np.ndarray, region: tuple[slice, slice]) -> np.ndarray:
    """Classes of a region, with features computed anew in float32 and XGBoost's own prediction where it is one."""
    features, source = segmenter.features_, ArrayImage(image)
    grids = features.grids(source, 0)
    assert features.classical
    assert features.deep
    margin = features.classical.halo
    pixels = features.seen_pixels(features.classical, source, 0, region)
    classical = features.classical(pixels)[margin : len(pixels) - margin, margin : pixels.shape[1] - margin]
    deep = np.moveaxis(np.concatenate(list(features.deep.upsample(grids, region))), 0, -1)
    rows = np.concatenate([classical, deep], axis=-1).reshape(-1, classical.shape[-1] + deep.shape[-1])
    classifier = segmenter.classifier_
    if isinstance(classifier, Trees):
        found = classifier.booster.inplace_predict(rows, predict_type="margin")
    else:
        found = classifier.predict_proba(rows)
    return found.argmax(axis=-1).reshape(classical.shape[:2])


def measure_strokes(classifier: str, size: tuple[int, int], side: int, repeats: int, threads: int) -> dict[str, Any]:
    """Figures of strokes on an image; to be called in a process of its own."""
    torch.set_num_threads(threads)
    image, rough = materials(side)
    random = np.random.default_rng(0)
    labels = np.zeros(image.shape, dtype=np.uint8)
    for _ in range(4):
        labels = add_strokes(labels, rough, random)
    times: dict[str, list[float]] = {}

    def note(name: str, run: Callable[[], Any]) -> Any:
        took, found = seconds(run)
        times.setdefault(name, []).append(took)
        return found

    middles = {visible: slice((side - visible) // 2, (side + visible) // 2) for visible in SIDES}
    regions = {visible: (middle, middle) for visible, middle in middles.items()}
    usual = segmenter_of(classifier, size)
    with Session(segmenter_of(classifier, size), image) as session:
        note("features", lambda: session.start().result())
        usual.fit(image, labels)
        session.learn(labels)
        agreements = []
        for _ in range(repeats):
            labels = add_strokes(labels, rough, random)
            note("refit", partial(session.learn, labels))
            note("refit before", partial(usual.fit, image, labels))
            for visible, region in regions.items():
                found = note(f"predict {visible}", partial(session.probabilities, 0, *region))
                filtered = replace(session.require_learned(), guided_radius=RADIUS)
                note(f"filtered {visible}", partial(filtered.probabilities, 0, region))
                old = note(f"predict {visible} before", partial(before, usual, image, region))
                agreements.append(float((found.argmax(axis=-1) == old).mean()))
    return {"labelled": int((labels > 0).sum()), "agreement": min(agreements)} | {
        name: statistics.median(found) for name, found in times.items()
    }


def measure_large(classifier: str, size: tuple[int, int], side: int, threads: int) -> dict[str, Any]:
    """Figures of a large image in the background; to be called in a process of its own."""
    torch.set_num_threads(threads)
    image, rough = materials(side)
    labels = np.zeros(image.shape, dtype=np.uint8)
    corner = (slice(0, min(side, 1024)),) * 2
    for seed in range(4):
        labels[corner] = add_strokes(labels[corner], rough[corner], np.random.default_rng(seed))
    del rough
    segmenter = segmenter_of(classifier, size)
    figures: dict[str, Any] = {"megapixels": side**2 / 2**20}

    def everything() -> None:
        with Session(segmenter, image) as session:
            figures["first answer"], _ = seconds(lambda: session.learn(labels).probabilities(0, *corner))
            figures["prediction"], _ = seconds(lambda: session.predict_slice(0).result())
            session.predict_slice(0)
            time.sleep(1)
            figures["cancel"], _ = seconds(session.close)  # when the step that is being done has ended

    return figures | time_and_memory(everything)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The medians as Markdown."""
    lines = ["| classifier | what | session, s | before, s | ratio |", "|---|---|---:|---:|---:|"]
    for classifier, row in rows.items():
        for name in ("refit", *(f"{what} {side}" for side in SIDES for what in ("predict", "filtered"))):
            now, old = row[name], row.get(f"{name} before")
            compared = f"{old:.3f} | {old / now:.1f}" if old else "– | –"
            lines.append(f"| {classifier} | {name} | {now:.3f} | {compared} |")
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--classifiers", nargs="+", choices=CLASSIFIERS, default=list(CLASSIFIERS))
    parser.add_argument("--side", type=int, default=max(SIDES), help="of the image in pixels")
    parser.add_argument("--repeats", type=int, default=5, help="strokes")
    parser.add_argument("--large", type=int, help="side of a large image in pixels, such as 4096")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=384, help=f"a multiple of {HEAD_DIM}")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    if min(options.side, options.large or options.side) < max(SIDES) or options.repeats < 1:
        parser.error(f"sides must be {max(SIDES)} pixels or more, and there must be one stroke or more.")
    threads, size = torch.get_num_threads(), (options.layers, options.width)
    rows = {
        classifier: in_fresh_process(measure_strokes, classifier, size, options.side, options.repeats, threads)
        for classifier in tqdm(options.classifiers, "classifiers")
    }
    large = None
    if options.large:
        large = in_fresh_process(measure_large, options.classifiers[0], size, options.large, threads)
    if options.output:
        settings = {name: getattr(options, name) for name in ("side", "repeats", "layers", "width")}
        write_json(options.output, {"machine": machine_facts(), "settings": settings, "rows": rows, "large": large})
    print(table(rows))
    for name, value in (large or {}).items():
        print(f"{name:<16}{value:12.2f}")


if __name__ == "__main__":
    main()
