# SPDX-License-Identifier: Apache-2.0
"""Streams: the same crops whoever decodes them and wherever a run begins; and which images are kept for validation."""

import json
import shutil
import zipfile
from dataclasses import replace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from alibi_dinov2.io.image_regions import ArrayImage
from alibi_dinov2.io.images import read_image
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor
from training.configuration import Stage
from training.crops import CropRule, Crops, StreamedCrops, collate
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


@pytest.mark.parametrize("column", ["image", "picture"])
def test_stream_decodes_nothing_before_it_is_asked(tmp_path, column):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({column: pa.array([{"bytes": b"no image", "path": "a.png"}] * 3, type=kind)})
    table = table.replace_schema_metadata(datasets.Features({column: datasets.Image()}).arrow_schema.metadata)
    pq.write_table(table, tmp_path / "images.parquet")
    images = load_images(str(tmp_path / "images.parquet"), column=column, streaming=True)
    assert [row["image"]["bytes"] for row in images] == [b"no image"] * 3


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


def test_resumed_streaming_run_reads_nothing_before_its_block(tiny_distillation, tmp_path, monkeypatch):
    config = tiny_distillation(streaming=True, shuffle_buffer=3, checkpoint_every=3, keep_checkpoints=9)
    distill(config)
    run = tmp_path / "run" / "checkpoints"
    for step in (9, 10):
        shutil.rmtree(run / f"step-{step:08d}")
    # Six steps of four images each: the last row read is the last of the second block of the fourth pass over six.
    assert json.loads((run / "step-00000006" / "streams.json").read_text()) == {
        config.images: {"row": 21, "epoch": 3, "shard": 0, "offset": 3}
    }
    begun = []
    blocks = StreamedRows.blocks
    monkeypatch.setattr(StreamedRows, "blocks", lambda self, place: begun.append(place.row) or blocks(self, place))
    distill(replace(config, resume=True))
    assert begun == [21]


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


@pytest.fixture
def tables(tmp_path, image_folder):
    """A folder of parquet files with four images to train on, two to validate on and two to test on, told by name."""
    paths = sorted(str(path) for path in image_folder.iterdir())
    (tmp_path / "tables").mkdir()
    for name, part in (("train", paths[:4]), ("validation", paths[4:6]), ("test", paths[6:])):
        rows = datasets.Dataset.from_dict({"image": part}).cast_column("image", datasets.Image())
        rows.to_parquet(tmp_path / "tables" / f"{name}-00000-of-00001.parquet")
    (tmp_path / "tables" / "._train-00000-of-00001.parquet").write_bytes(b"what a system puts there")
    return tmp_path / "tables"


def names(images):
    return [row["image"]["path"].rsplit("/")[-1] for row in images]


@pytest.mark.parametrize("streaming", [False, True])
def test_split_of_a_folder_of_tables(tables, streaming):
    found = {
        split: names(load_images(str(tables), split=split, streaming=streaming))
        for split in ("train", "validation", "test")
    }
    assert found == {
        "train": ["0.png", "1.png", "2.png", "3.png"],
        "validation": ["4.png", "5.png"],
        "test": ["6.png", "7.png"],
    }
    with pytest.raises(ValueError, match=r"dev.*\['train', 'validation', 'test'\]"):
        load_images(str(tables), split="dev", streaming=streaming)
    with pytest.raises(
        ValueError, match="has the splits train, validation, test; say which one, as in --validation_split"
    ):
        load_images(str(tables), split=None, streaming=streaming)


def test_tables_without_names_of_splits_are_one(tmp_path, tables):
    (tmp_path / "others").mkdir()
    for number, path in enumerate(sorted(tables.glob("[!.]*"))):
        path.rename(tmp_path / "others" / f"part-{number}.parquet")
    for split in ("train", None):
        assert len(load_images(str(tmp_path / "others"), split=split)) == 8
    with pytest.raises(ValueError, match="test"):
        load_images(str(tmp_path / "others"), split="test")


@pytest.mark.parametrize("streaming", [False, True])
def test_split_of_a_folder_of_images(image_folder, streaming):
    def load(split):
        return names(load_images(str(image_folder), split=split, streaming=streaming))

    with pytest.raises(ValueError, match="has no split 'test'; it has train, and 'all'"):
        load("test")
    (image_folder / "train").mkdir()
    (image_folder / "val").mkdir()
    for number in (0, 1, 2):
        (image_folder / f"{number}.png").rename(image_folder / "train" / f"{number}.png")
    (image_folder / "3.png").rename(image_folder / "val" / "tensile_test_3.png")
    assert load("train") == ["0.png", "1.png", "2.png"]
    assert load("validation") == ["tensile_test_3.png"]
    assert len(load("all")) == 8
    with pytest.raises(ValueError, match="has the splits train, validation"):
        load(None)


def test_run_validates_on_the_split_it_is_told(tiny_distillation, tables, tmp_path):
    stages = [Stage(28, 2, None, 2, 1e-3, 0)]
    config = tiny_distillation(
        images=str(tables), validation_images=str(tables), validation_split="test", validation_count=9, stages=stages
    )
    distill(config)
    listed = json.loads((tmp_path / "run" / "images.json").read_text())
    assert [len(listed[str(tables)]), len(listed["the validation"])] == [4, 2]
    with pytest.raises(ValueError, match="validation_split is 'test' without validation_images"):
        tiny_distillation(validation_split="test")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("missing", [None, {"bytes": None, "path": None}, {"bytes": b"", "path": "0.png"}])
def test_missing_image_of_a_table_counts_as_unreadable(tiny_distillation, image_folder, tmp_path, streaming, missing):
    paths = sorted(image_folder.iterdir())
    entries = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    entries[3] = entries[5] = missing
    # As other programs write it: `datasets` itself refuses some of these.
    source = tmp_path / "table.parquet"
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array(entries, type=kind)}), source)
    options = {"images": str(source), "streaming": streaming, "shuffle_buffer": 4, "checkpoint_every": 99}
    stages = [Stage(28, 2, None, 4, 1e-3, 0)]
    distill(tiny_distillation(**options, stages=stages, max_unreadable=0.6))
    listed = (tmp_path / "run" / "unreadable.txt").read_text().splitlines()
    # Rows of a table are told apart though they have no names.
    assert len(listed) >= 2
    assert all("row " in line or "sample " in line for line in listed)
    with pytest.raises(ValueError, match=r"more than the share of 0\.2 that max_unreadable allows"):
        distill(tiny_distillation(**options, stages=stages, max_unreadable=0.2, output=str(tmp_path / "strict")))


def test_image_that_is_gone_counts_as_unreadable(image_folder):
    images = load_images(str(image_folder))
    (image_folder / "2.png").unlink()
    crops = Crops(images, 28, 0, 8, 0, CropRule())
    messages = [message for item in range(8) for message in crops[item]["unreadable"]]
    assert messages == [f"{image_folder}/2.png is not there any more."]


@pytest.fixture
def archive(tmp_path, image_folder, monkeypatch):
    """An archive of the images; `datasets` reads it as it reads one on the Hub."""
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        for path in sorted(image_folder.iterdir()):
            file.write(path, f"photographs/{path.name}")
        file.writestr("photographs/broken.png", b"no image")
    load = datasets.load_dataset

    def from_archive(source, split, streaming):
        return load("imagefolder", data_files=str(tmp_path / source), split=split, streaming=streaming)

    monkeypatch.setattr("datasets.load_dataset", from_archive)
    return "images.zip"


def test_streamed_archive_of_images_is_read(archive, image_folder, tiny_distillation, tmp_path):
    images = load_images(archive, streaming=True)
    rows = list(images)
    assert rows[0]["image"]["path"].startswith("zip://")
    readable = [row["image"] for row in rows if "broken" not in row["image"]["path"]]
    for entry, path in zip(readable, sorted(image_folder.iterdir()), strict=True):
        np.testing.assert_array_equal(np.asarray(decode(entry)), np.asarray(Image.open(path)))
    with pytest.raises(ValueError, match=r"zip://\S+broken\.png\S* cannot be read as an image"):
        decode(next(row["image"] for row in rows if "broken" in row["image"]["path"]))
    with pytest.raises(ValueError, match="is not there any more"):
        decode({"bytes": None, "path": readable[0]["path"].replace("0.png", "none.png")})
    stages = [Stage(28, 2, None, 4, 1e-3, 0)]
    distill(tiny_distillation(images=archive, streaming=True, stages=stages, max_unreadable=0.5))
    assert "zip://" in (tmp_path / "run" / "unreadable.txt").read_text()


def test_training_model_and_segmenter_see_the_same_of_12_bits_in_16(tmp_path):
    values = np.random.default_rng(0).integers(300, 3500, (56, 70), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", values)
    trained = np.asarray(decode({"path": str(tmp_path / "image.tif"), "bytes": None}))
    segmented = ArrayImage(values).read(0, slice(0, 56), slice(0, 70))
    np.testing.assert_array_equal(trained, segmented)
    assert len(np.unique(trained)) > 200
    processor = Dinov2AlibiImageProcessor(do_resize=False, do_center_crop=False, do_normalize=False)
    (seen,) = processor(read_image(tmp_path / "image.tif"), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(seen * 255, np.moveaxis(segmented, -1, 0), atol=1e-4)
