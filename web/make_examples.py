# SPDX-License-Identifier: Apache-2.0
"""The page's examples: shipped micrographs, and the features that the teacher and NoPE have of them.

python web/make_examples.py --teacher demo/teacher --nope nope-dinov2-small --output web/public/examples

Features are rotated to their 32 leading directions (which keeps their cosines) and stored with 8 bits.
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


def directions(features: np.ndarray) -> np.ndarray:
    """Features `(h, w, D)` in the basis of their leading singular vectors, `(h, w, 32)` float32; not centred."""
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    _, _, basis = np.linalg.svd(flat, full_matrices=False)
    return (flat @ basis[:DIRECTIONS].T).reshape(*features.shape[:2], -1).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="folder that training.import_onnx_teacher wrote")
    parser.add_argument("--nope", required=True, help="folder of NoPE's weights, from docs/training.md")
    parser.add_argument("--output", type=Path, required=True, help="folder for the examples")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    sources = {"DINOv2": arguments.teacher, "NoPE": arguments.nope}
    deep = {model: DeepFeatures(load_backbone(source)) for model, source in sources.items()}
    index = []
    for name, title in EXAMPLES.items():
        shutil.copyfile(MICROGRAPHS / f"{name}.png", arguments.output / f"{name}.png")
        image = ArrayImage(np.asarray(Image.open(MICROGRAPHS / f"{name}.png").convert("RGB")))
        models = []
        for model, of_model in deep.items():
            ((_, _, features),) = of_model.windows(image, 0, MemoryCache())
            grid = directions(features)
            scales = np.abs(grid).max(axis=(0, 1)) / 127
            stored = np.rint(grid / scales)
            file = f"{name}.{model.lower()}.bin"
            stored.astype(np.int8).tofile(arguments.output / file)
            rows, columns = features.shape[:2]
            models.append({"model": model, "file": file, "rows": rows, "columns": columns, "scales": scales.tolist()})
            kept = (np.linalg.norm(stored * scales, axis=-1) / np.linalg.norm(features, axis=-1)).mean()
            print(f"{name}: {kept:.3f} of the length of {model}'s features is kept")
        index.append({"name": name, "title": title, "image": f"{name}.png", "models": models})
    (arguments.output / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(MICROGRAPHS / "LICENSE.md", arguments.output / "LICENSE.md")


if __name__ == "__main__":
    main()
