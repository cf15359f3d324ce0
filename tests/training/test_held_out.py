# SPDX-License-Identifier: Apache-2.0
"""Training never sees a validation image: from no other folder, under no other name, at no other size, in no table."""

import io
import shutil

import datasets
import numpy as np
import pytest
from PIL import Image

from training.configuration import Stage
from training.crops import CropRule, Crops
from training.distill import distill
from training.held_out import HeldOut
from training.images import load_images, split_images
from training.known_images import KnownImages, small_copy

STAGES = [Stage(28, 4, None, 4, 1e-3, 0)]


def photograph(seed: int, side: int = 12) -> Image.Image:
    """An image of smooth random colours, as distinct from another as photographs are."""
    small = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((240, 180), Image.Resampling.BICUBIC)


def known(*images: Image.Image) -> KnownImages:
    return KnownImages(np.stack([small_copy(image) for image in images]), [f"image {n}" for n in range(len(images))])


def recoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize("seed", range(4))
def test_copies_are_known_whatever_their_size_and_compression(seed):
    image = photograph(seed)
    others = known(photograph(100), image, photograph(101))
    for copy in (
        image,
        recoded(image, 60),
        image.resize((120, 90), Image.Resampling.BICUBIC),
        image.resize((640, 480), Image.Resampling.LANCZOS),
        recoded(image.resize((171, 128), Image.Resampling.BILINEAR), 80),
    ):
        assert others.find(copy) == "image 1"


def test_other_images_are_not_known():
    # Fine grain, whose mean over a field hardly differs from one image to the next, under the same uneven light.
    light = np.linspace(-5, 5, 256)
    grain = [128 + light + np.random.default_rng(seed).normal(0, 60, (256, 256)) for seed in range(8)]
    micrographs = [Image.fromarray(np.clip(array, 0, 255).astype(np.uint8)) for array in grain]
    photographs = [photograph(seed) for seed in range(8)]
    for images in (micrographs, photographs):
        others = known(*images[1:])
        assert others.find(images[0]) is None
        assert others.find(images[3]) == "image 2"


def test_images_of_one_colour_are_the_same_only_if_it_is_the_same():
    others = known(Image.new("RGB", (50, 50), (90, 90, 90)))
    assert others.find(Image.new("RGB", (70, 20), (90, 90, 90))) == "image 0"
    assert others.find(Image.new("RGB", (50, 50), (91, 91, 91))) is None


def seen_in_training(images, held_out) -> set[int]:
    """Numbers of the photographs that come up in four passes, by their content."""
    crops = Crops(images, 28, 0, 4 * len(images), 0, CropRule("center"), held_out.known)
    rule, random = CropRule("center"), np.random.default_rng(0)
    all_of_them = {rule.cut(photograph(seed), 28, random).numpy().tobytes(): seed for seed in range(6)}
    return {all_of_them[crops[item]["pixels"].numpy().tobytes()] for item in range(len(crops))}


@pytest.fixture
def photographs(tmp_path):
    """A folder with six photographs, two of them in a folder inside."""
    (tmp_path / "photographs" / "later").mkdir(parents=True)
    for seed in range(6):
        folder = tmp_path / "photographs" / ("later" if seed > 3 else "")
        photograph(seed).save(folder / f"{seed}.png")
    return tmp_path / "photographs"


def test_validation_folder_inside_the_training_folder(photographs):
    images, held_out = split_images(load_images(str(photographs)), load_images(str(photographs / "later")), 10)
    assert seen_in_training(images, HeldOut.read(held_out, [28])) == {0, 1, 2, 3}


def test_same_folder_by_another_path(photographs, tmp_path):
    (tmp_path / "link").symlink_to(photographs)
    for other in (tmp_path / "link", shutil.copytree(photographs, tmp_path / "copy")):
        images, held_out = split_images(load_images(str(photographs)), load_images(str(other)), 2)
        assert seen_in_training(images, HeldOut.read(held_out, [28])) == {2, 3, 4, 5}


def test_table_of_the_same_images(photographs, tmp_path):
    paths = [str(photographs / f"{number}.png") for number in range(3)]
    table = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    table.to_parquet(tmp_path / "images.parquet")
    held_out = load_images(str(tmp_path / "images.parquet"))
    images, held_out = split_images(load_images(str(photographs)), held_out, 10)
    assert seen_in_training(images, HeldOut.read(held_out, [28])) == {3, 4, 5}


def test_copies_within_the_training_images_stay_out_too(photographs):
    # The last two are kept for validation; one of them is also there under another name.
    shutil.copy(photographs / "later" / "5.png", photographs / "0again.png")
    images, held_out = split_images(load_images(str(photographs)), None, 2)
    assert seen_in_training(images, HeldOut.read(held_out, [28])) == {0, 1, 2, 3}


@pytest.mark.parametrize("streaming", [False, True])
def test_run_says_which_images_it_passes_over(tiny_distillation, image_folder, tmp_path, capsys, streaming):
    shutil.copytree(image_folder, tmp_path / "validation")
    for number in range(3, 8):
        (tmp_path / "validation" / f"{number}.png").unlink()
    distill(
        tiny_distillation(
            stages=STAGES, validation_images=str(tmp_path / "validation"), validation_count=9, streaming=streaming
        )
    )
    lines = sorted((tmp_path / "run" / "held_out.txt").read_text().splitlines())
    twins = [[folder / f"{number}.png" for folder in (image_folder, tmp_path / "validation")] for number in range(3)]
    assert lines == [f"{image} shows what {twin} shows, which is kept for validation." for image, twin in twins]
    said = capsys.readouterr().out
    assert said.count("are not trained on") == 1


def test_run_on_nothing_but_validation_images_is_refused(tiny_distillation, image_folder):
    with pytest.raises(ValueError, match=r"None of the 8 images can be trained on\. 0 .*, 8 are kept for validation"):
        distill(tiny_distillation(stages=STAGES, validation_images=str(image_folder), validation_count=9))


def test_validation_images_that_cannot_be_read_count_and_are_named(tiny_distillation, image_folder, tmp_path):
    (image_folder / "7.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of 2 images cannot be read, .* The first: \S+7\.png cannot be read"):
        distill(tiny_distillation(stages=STAGES))
    distill(tiny_distillation(stages=STAGES, max_unreadable=0.5, output=str(tmp_path / "tolerant")))
    assert "7.png" in (tmp_path / "tolerant" / "unreadable.txt").read_text()
    (image_folder / "6.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="None of the 2 validation images can be read"):
        distill(tiny_distillation(stages=STAGES, max_unreadable=1.0, output=str(tmp_path / "none")))
