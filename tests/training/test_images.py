# SPDX-License-Identifier: Apache-2.0
"""Streams: the same crops whoever decodes them and wherever a run begins; and which images are kept for validation."""

from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from training.configuration import Stage
from training.crops import CropRule, StreamedCrops, collate
from training.distill import distill
from training.images import decode, load_images, split_images
from training.journal import read_metrics
from training.stream import StreamedRows


@pytest.fixture
def table(tmp_path, image_folder):
    """A parquet file with the images in a column `picture`, beside one of text."""
    paths = sorted(str(path) for path in image_folder.iterdir())
    rows = datasets.Dataset.from_dict({"picture": paths, "caption": paths})
    rows.cast_column("picture", datasets.Image()).to_parquet(tmp_path / "images.parquet")
    return tmp_path / "images.parquet"


def batches(images, start, stop, workers=0):
    rows = StreamedRows(images, start, stop, seed=0, block=4)
    crops = StreamedCrops(28, 0, CropRule(flip=True))
    return list(DataLoader(crops, 4, sampler=rows, num_workers=workers, collate_fn=collate))


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_stream_goes_on_where_it_was_and_workers_change_nothing(kind, image_folder, table):
    source = {"folder": (str(image_folder), "train", "image"), "parquet": (str(table), "train", "picture")}[kind]
    images = load_images(*source, streaming=True)
    whole, later, decoded_elsewhere = batches(images, 0, 24), batches(images, 12, 24), batches(images, 0, 24, workers=2)
    assert len(whole) == 6
    for first, second in zip(whole, decoded_elsewhere, strict=True):
        assert torch.equal(first["pixels"], second["pixels"])
    for first, second in zip(whole[3:], later, strict=True):
        assert torch.equal(first["pixels"], second["pixels"])


def test_each_pass_over_a_stream_sees_every_image_once_in_an_order_of_its_own(image_folder):
    images = load_images(str(image_folder), streaming=True)
    passes = [
        [row["image"]["path"] for _, row in StreamedRows(images, first, first + 8, seed=0, block=4)] for first in (0, 8)
    ]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(str(path) for path in image_folder.iterdir())
    assert passes[0] != passes[1]


def test_stream_and_list_hold_the_same_images(image_folder, table):
    for source, column in ((image_folder, "image"), (table, "picture")):
        listed, streamed = (load_images(str(source), column=column, streaming=flag) for flag in (False, True))
        pairs = list(zip(listed, streamed, strict=True))
        assert len(pairs) == 8
        assert all(np.array_equal(*(np.asarray(decode(row["image"])) for row in pair)) for pair in pairs)


def test_missing_column_is_named(table):
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"has columns \['picture', 'caption'\]; it needs images in .* 'image'"):
            load_images(str(table), streaming=streaming)


def test_unreadable_image_of_a_stream_gives_way_to_the_crop_before(image_folder):
    for name in ("2.png", "5.png"):
        (image_folder / name).write_bytes(b"no image")
    found = batches(load_images(str(image_folder), streaming=True), 0, 8)
    assert sum(len(batch["unreadable"]) for batch in found) == 2
    for batch in found:
        crops = {crop.numpy().tobytes() for crop in batch["pixels"]}
        assert len(crops) == 4 - len(batch["unreadable"])
    with pytest.raises(
        ValueError, match=r"None of the 1 images of a batch can be trained on\. 1 .*; the first: broken"
    ):
        collate([{"unreadable": ["broken"], "held_out": []}])


def test_validation_images_are_not_trained_on(image_folder):
    paths = {}
    for streaming in (False, True):
        training, held_out = split_images(load_images(str(image_folder), streaming=streaming), None, 3)
        paths[streaming] = [[row["image"]["path"] for row in part] for part in (training, held_out)]
        assert len(held_out) == 3
        assert len(paths[streaming][0]) == 5
        assert not set(paths[streaming][0]) & set(paths[streaming][1])
    everything = sorted(str(path) for path in image_folder.iterdir())
    assert paths[False][1] == everything[-3:]
    assert paths[True][1] == everything[:3]
    with pytest.raises(ValueError, match="no more than the 8 images that validation_count"):
        split_images(load_images(str(image_folder), streaming=True), None, 8)


def test_streaming_run_resumed_is_the_uninterrupted_run_bit_for_bit(tiny_distillation, tmp_path):
    options = {"streaming": True, "shuffle_buffer": 3, "checkpoint_every": 3}
    whole = distill(tiny_distillation(**options))
    (tmp_path / "run").rename(tmp_path / "whole")
    config = tiny_distillation(**options, keep_checkpoints=9)
    distill(config)
    for step in (9, 10):
        for path in sorted((tmp_path / "run" / "checkpoints" / f"step-{step:08d}").iterdir()):
            path.unlink()
        (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").rmdir()
    resumed = load_file(distill(replace(config, resume=True)) / "model.safetensors")
    expected = load_file(tmp_path / "whole" / whole.name / "model.safetensors")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_streams_have_no_epochs(tiny_distillation):
    with pytest.raises(ValueError, match="give stages steps instead of epochs"):
        tiny_distillation(streaming=True, stages=[Stage(28, None, 2.0)])


def test_stages_have_images_of_their_own(tiny_distillation, tmp_path):
    (tmp_path / "red").mkdir()
    for number in range(5):
        Image.new("RGB", (20, 20), (200 + number, 0, 0)).save(tmp_path / "red" / f"{number}.png")
    stages = [Stage(28, 2, None, 2, 1e-3, 0), Stage(28, None, 2.0, 2, 1e-3, 0, images=str(tmp_path / "red"))]
    distill(tiny_distillation(stages=stages))
    metrics = {entry["step"]: entry for entry in read_metrics(tmp_path / "run" / "metrics.jsonl")}
    # Two passes over five images, two at a time, all of them smaller than the crops.
    assert max(metrics) == 2 + 5
    assert ["enlarged" in metrics[step] for step in (1, 2, 3, 7)] == [False, False, True, True]
    assert metrics[7]["enlarged"] == 2
