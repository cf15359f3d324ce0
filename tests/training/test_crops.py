# SPDX-License-Identifier: Apache-2.0
"""Sample number k is always the same crop of the same image, whatever else happens."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from training.crops import CropRule, Crops, StreamedCrops, center_box, collate, order_of, random_box
from training.held_out import HeldOut
from training.images import load_images
from training.stopping import ignore_signals
from training.stream import StreamedRows


def test_crops_depend_on_seed_and_number_only(image_folder):
    images = load_images(str(image_folder))
    whole = Crops(images, 28, 0, 40, 0, CropRule())
    later = Crops(images, 28, 17, 40, 0, CropRule())
    other = Crops(images, 28, 0, 40, 1, CropRule())
    assert len(later) == 23
    for item in range(23):
        assert torch.equal(later[item]["pixels"], whole[17 + item]["pixels"])
    assert not torch.equal(other[3]["pixels"], whole[3]["pixels"])


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_change_nothing(image_folder, start_method):
    images = load_images(str(image_folder))
    kept_out = HeldOut.read(images.select([2]), [28]).known
    crops = Crops(images, 28, 0, 8, 0, CropRule(flip=True, turn=True, roll=True), kept_out)
    alone = list(DataLoader(crops, 4, collate_fn=collate))
    options = {"num_workers": 1, "multiprocessing_context": start_method, "worker_init_fn": ignore_signals}
    for first, second in zip(alone, DataLoader(crops, 4, collate_fn=collate, **options), strict=True):
        assert torch.equal(first["pixels"], second["pixels"])
        assert first["held_out"] == second["held_out"]


@pytest.mark.parametrize("streaming", [False, True])
def test_every_crop_of_an_image_is_another_one(tmp_path, streaming):
    # Every pixel of the image has its own colour, so that a crop tells its box.
    image = np.zeros((90, 120, 3), dtype=np.uint8)
    image[..., 0], image[..., 1] = 2 * np.arange(120), 2 * np.arange(90)[:, None]
    Image.fromarray(image).save(tmp_path / "0.png")
    images = load_images(str(tmp_path), streaming=streaming)
    if streaming:
        rows = StreamedRows(images, 0, 60, seed=0, block=4)
        loader = DataLoader(StreamedCrops(28, 0, CropRule()), 20, sampler=rows, collate_fn=collate)
    else:
        loader = DataLoader(Crops(images, 28, 0, 60, 0, CropRule()), 20, collate_fn=collate)
    for batch in loader:
        pixels = batch["pixels"].float()
        left, right = (pixels[:, 0, :, column].mean(1) / 2 for column in (0, -1))
        top, bottom = (pixels[:, 1, row].mean(1) / 2 for row in (0, -1))
        boxes = torch.stack([left, top, right, bottom], dim=1)
        # Half a pixel apart is more than rounding.
        assert len({tuple((2 * box).round().tolist()) for box in boxes}) == len(boxes)
        widths, heights = right - left, bottom - top
        for values, spread in ((widths, 30), (heights, 20), (left, 20), (top, 10)):
            assert values.max() - values.min() > spread
        assert (widths / heights).max() > 1.2 * (widths / heights).min()


def test_each_pass_sees_every_image_once_in_an_order_of_its_own():
    orders = [order_of(8, 0, epoch).tolist() for epoch in (0, 1)]
    assert [sorted(order) for order in orders] == [list(range(8))] * 2
    assert orders[0] != orders[1]


def test_center_crop_is_shortest_side_resized_and_cut():
    rule = CropRule("center")
    image = Image.new("RGB", (100, 60))
    image.paste((255, 0, 0), (20, 0, 80, 60))
    pixels = rule.cut(image, 28, np.random.default_rng(0))
    assert pixels.shape == (3, 28, 28)
    assert center_box(image.size) == (20, 0, 80, 60)
    # Inside the edge's blur all is red.
    assert (pixels[0, :, 2:-2] == 255).all()
    assert (pixels[1:, :, 2:-2] == 0).all()


def test_random_boxes_lie_in_the_image_and_keep_their_share():
    random = np.random.default_rng(0)
    for width, height in ((100, 60), (30, 300)):
        for _ in range(200):
            left, top, right, bottom = random_box((width, height), 0.25, random)
            assert 0 <= left < right <= width + 1e-9
            assert 0 <= top < bottom <= height + 1e-9
            if (width, height) == (100, 60):
                assert (right - left) * (bottom - top) >= 0.2 * width * height


@pytest.mark.parametrize("change", ["flip", "turn", "roll"])
def test_changes_rearrange_the_pixels_of_the_crop(change):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    plain = CropRule("center").cut(image, 28, np.random.default_rng(0))
    changed = [CropRule("center", **{change: True}).cut(image, 28, np.random.default_rng(seed)) for seed in range(8)]
    assert any(not torch.equal(crop, plain) for crop in changed)
    for crop in changed:
        assert torch.equal(crop.flatten(1).sort().values, plain.flatten(1).sort().values)
    by_hand = {
        "flip": [plain, plain.flip(2)],
        "turn": [plain.rot90(turns, (1, 2)) for turns in range(4)],
        "roll": [plain.roll((rows, columns), (1, 2)) for rows in range(28) for columns in range(28)],
    }[change]
    assert all(any(torch.equal(crop, expected) for expected in by_hand) for crop in changed)


def test_unreadable_image_gives_way_to_the_next_and_is_named(image_folder):
    (image_folder / "3.png").write_bytes(b"no image")
    crops = Crops(load_images(str(image_folder)), 28, 0, 8, 0, CropRule())
    samples = [crops[item] for item in range(8)]
    messages = [message for sample in samples for message in sample["unreadable"]]
    assert len(messages) == 1
    assert "3.png cannot be read as an image" in messages[0]
    assert all(sample["pixels"].shape == (3, 28, 28) for sample in samples)


def test_only_unreadable_images_are_an_error(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"None of the 2 images can be trained on\. 2 cannot be read, 0 are kept"):
        Crops(load_images(str(tmp_path)), 28, 0, 4, 0, CropRule())[0]


def test_folder_and_parquet_give_the_same(tmp_path, image_folder):
    paths = sorted(str(path) for path in image_folder.iterdir())
    (tmp_path / "tables").mkdir()
    table = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    table.to_parquet(tmp_path / "tables" / "images.parquet")
    first, second = (
        Crops(load_images(str(source)), 28, 0, 8, 0, CropRule())
        for source in (image_folder, tmp_path / "tables" / "images.parquet")
    )
    assert torch.equal(first[5]["pixels"], second[5]["pixels"])


def test_data_without_images_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="contains no image"):
        load_images(str(tmp_path))
    datasets.Dataset.from_dict({"text": ["a", "b"]}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(ValueError, match=r"has columns \['text'\]; it needs images in the column 'image'"):
        load_images(str(tmp_path))
