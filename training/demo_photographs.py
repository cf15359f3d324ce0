# SPDX-License-Identifier: Apache-2.0
"""Write the photographs that ship inside scikit-image and scikit-learn into a folder to distil on.

    python -m training.demo_photographs --output photographs

`train/` holds the photographs; `held_out_crops/` holds crops of photographs that are not in `train/`.
"""

import argparse
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from alibi_dinov2.command import run
from alibi_dinov2.io.files import new_folder
from alibi_dinov2.io.images import read_image
from training.crops import random_box

# Named one by one: both packages also ship drawings, text and stereo pairs, which are no photographs.
TRAIN = {
    "skimage.data": (
        *("brick.png", "camera.png", "cell.png", "chelsea.png", "coins.png", "grass.png", "gravel.png"),
        *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
    ),
    "sklearn.datasets.images": ("china.jpg",),
}
HELD_OUT = {"skimage.data": ("astronaut.png", "coffee.png"), "sklearn.datasets.images": ("flower.jpg",)}
LONGEST_SIDE = 640  # pixels; larger ones only cost decoding time
CROPS_PER_PHOTOGRAPH, CROP_SIZE, CROP_SCALE = 8, 224, 0.15


def read_photographs(names: dict[str, tuple[str, ...]]) -> dict[str, Image.Image]:
    """Photographs of installed packages by file name, at most `LONGEST_SIDE` pixels long.

    Raises:
        FileNotFoundError: an installed package does not ship one of them.
        ModuleNotFoundError: a package is not installed.
    """
    photographs = {}
    for package, members in names.items():
        for member in members:
            image = read_image(files(package).joinpath(member).read_bytes(), name=f"{package}/{member}")
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            photographs[Path(member).stem] = image
    return photographs


def random_crops(image: Image.Image, random: np.random.Generator) -> list[Image.Image]:
    """Square crops of random place and size."""
    boxes = [random_box(image.size, CROP_SCALE, random) for _ in range(CROPS_PER_PHOTOGRAPH)]
    return [image.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BICUBIC, box=box) for box in boxes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="of the held-out crops")

    def command(arguments: argparse.Namespace) -> None:
        random = np.random.default_rng(arguments.seed)
        with new_folder(arguments.output) as folder:
            for part in ("train", "held_out_crops"):
                (folder / part).mkdir()
            for name, image in read_photographs(TRAIN).items():
                image.save(folder / "train" / f"{name}.png")
            for name, image in read_photographs(HELD_OUT).items():
                for number, crop in enumerate(random_crops(image, random)):
                    crop.save(folder / "held_out_crops" / f"{name}_{number}.png")
        print(f"{arguments.output}: photographs of scikit-image and scikit-learn")

    run(parser, command)


if __name__ == "__main__":
    main()
