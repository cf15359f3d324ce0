# SPDX-License-Identifier: Apache-2.0
"""The page's examples: shipped micrographs, and the features that the teacher and NoPE have of them.

python web/make_examples.py --teacher demo/teacher --nope-figure docs/pca.png --output web/public/examples

Features of the teacher are computed, rotated to their 32 leading directions (which keeps their cosines) and stored with
8 bits. Of NoPE, whose weights the repository does not keep, its colours in the published figure are read, a square for
each patch.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from alibi_dinov2 import load_backbone
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.feature_cache import MemoryCache
from alibi_dinov2.io.image_regions import ArrayImage

MICROGRAPHS = Path(__file__).parents[1] / "data" / "micrographs"
EXAMPLES = {
    "superalloy_spot4_180d_2": "Superalloy 1",
    "superalloy_spot3_0d_3": "Superalloy 2",
    "superalloy_pt2_15kx": "Superalloy 3",
}
DIRECTIONS = 32
# Where the figure has NoPE's column and its rows, which are the micrographs by name; 7 screen pixels are a patch.
FIGURE_LEFT, FIGURE_TOP, FIGURE_STEP, FIGURE_PATCH, GRID = 530, 30, 265, 7, 37


def directions(features: np.ndarray) -> np.ndarray:
    """Features `(h, w, D)` in the basis of their leading singular vectors, `(h, w, 32)` float32; not centred."""
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    _, _, basis = np.linalg.svd(flat, full_matrices=False)
    return (flat @ basis[:DIRECTIONS].T).reshape(*features.shape[:2], -1).astype(np.float32)


def colours_in_figure(figure: Path, row: int) -> np.ndarray:
    """The colours of the patches of a row's NoPE panel, `(37, 37, 3)` float32.

    Raises:
        ValueError: the figure is not made of such squares there.
    """
    side = GRID * FIGURE_PATCH
    top = FIGURE_TOP + row * FIGURE_STEP
    panel = np.asarray(Image.open(figure).convert("RGB"))[top : top + side, FIGURE_LEFT : FIGURE_LEFT + side]
    squares = panel.reshape(GRID, FIGURE_PATCH, GRID, FIGURE_PATCH, 3)
    centres = squares[:, FIGURE_PATCH // 2, :, FIGURE_PATCH // 2]
    if (squares != centres[:, None, :, None]).any():
        raise ValueError(f"{figure} has no panel of {GRID} × {GRID} squares in row {row}; give docs/pca.png.")
    return centres.astype(np.float32) - 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="folder that training.import_onnx_teacher wrote")
    parser.add_argument("--nope-figure", type=Path, required=True, help="the figure with NoPE's colours")
    parser.add_argument("--output", type=Path, required=True, help="folder for the examples")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    deep = DeepFeatures(load_backbone(arguments.teacher))
    rows = sorted(path.stem for path in MICROGRAPHS.glob("*.png"))
    index = []
    for name, title in EXAMPLES.items():
        shutil.copyfile(MICROGRAPHS / f"{name}.png", arguments.output / f"{name}.png")
        image = ArrayImage(np.asarray(Image.open(MICROGRAPHS / f"{name}.png").convert("RGB")))
        ((_, _, features),) = deep.windows(image, 0, MemoryCache())
        grids = {"DINOv2": directions(features), "NoPE": colours_in_figure(arguments.nope_figure, rows.index(name))}
        models = []
        for model, grid in grids.items():
            scales = np.abs(grid).max(axis=(0, 1)) / 127
            file = f"{name}.{model.lower()}.bin"
            np.rint(grid / scales).astype(np.int8).tofile(arguments.output / file)
            models.append({"model": model, "file": file, "rows": GRID, "columns": GRID, "scales": scales.tolist()})
            lost = np.linalg.norm(features, axis=-1).mean() if model == "DINOv2" else None
            if lost:
                kept = np.linalg.norm(np.rint(grid / scales) * scales, axis=-1).mean() / lost
                print(f"{name}: {kept:.3f} of the length of the teacher's features is kept")
        index.append({"name": name, "title": title, "image": f"{name}.png", "models": models})
    (arguments.output / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(MICROGRAPHS / "LICENSE.md", arguments.output / "LICENSE.md")


if __name__ == "__main__":
    main()
