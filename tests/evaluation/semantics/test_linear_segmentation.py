# SPDX-License-Identifier: Apache-2.0
"""The linear head learns, resumes and is saved exactly; the score is over all images; transforms are undone."""

import inspect
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from alibi_dinov2.features.backbone import Backbone, load_backbone, preprocess
from alibi_dinov2.features.feature_cache import FeatureCache
from alibi_dinov2.pictures.panels import DPI, ROW_HEIGHT
from evaluation.position.noise import noise_images
from evaluation.semantics import linear_segmentation
from evaluation.semantics.linear_segmentation import (
    TRANSFORMS,
    Features,
    TrainingSamples,
    measure,
    restore_features,
    summarise,
    transform_pixels,
    transformed_features,
)
from evaluation.semantics.miou import VOID, confusion_matrix
from evaluation.semantics.segmentation_data import Labels, open_data
from evaluation.semantics.segmentation_head import HeadSettings, LinearHead, predict, train_head, train_step
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor


def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    """Features whose signs tell the class, and masks of 5×5 pixels a patch."""
    random = np.random.default_rng(0)
    result = []
    for rows, columns in ((3, 4), (5, 2), (4, 4), (2, 3), (3, 3)):
        features = random.normal(size=(rows, columns, 6)).astype(np.float32)
        classes = (features[..., 0] > 0).astype(np.uint8) + (features[..., 1] > 0).astype(np.uint8)
        result.append((features, np.kron(classes, np.ones((5, 5), dtype=np.uint8))))
    return result


SETTINGS = HeadSettings(epochs=12, batch_size=2, learning_rate=0.05)


def parameters(head: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in head.state_dict().items()}


def test_head_treats_images_of_any_size_as_one_batch():
    torch.manual_seed(0)
    maps = torch.randn(3, 8, 4, 5)
    head = LinearHead(8, 4, dropout=0.0)
    plain = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    plain[1].load_state_dict(head.classifier.state_dict())
    expected = plain(maps)
    found = torch.cat(head(list(maps)))
    # Sums in another order.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.batch_norm.running_var, plain[0].running_var, rtol=1e-5, atol=1e-6)
    assert [image.shape[2:] for image in head([maps[0], maps[1, :, :2], maps[2, :, :, :3]])] == [(4, 5), (2, 5), (4, 3)]


def test_dropout_takes_whole_channels_of_an_image():
    head = LinearHead(64, 64, dropout=0.5)
    nn.init.dirac_(head.classifier.weight)
    nn.init.zeros_(head.classifier.bias)
    torch.manual_seed(0)
    dropped = [(image[0] == 0).flatten(1) for image in head([torch.randn(64, 3, 4), torch.randn(64, 2, 2)])]
    assert all((channels.all(1) == channels.any(1)).all() for channels in dropped)
    assert not torch.equal(dropped[0].all(1), dropped[1].all(1))
    assert 0.2 < torch.cat(dropped, 1).float().mean() < 0.8


def test_step_is_that_on_the_mean_loss_of_all_pixels():
    torch.manual_seed(0)
    features = np.random.default_rng(0).normal(size=(3, 4, 5, 8)).astype(np.float32)
    masks = np.random.default_rng(1).choice([0, 1, 2, VOID], (3, 24, 30)).astype(np.uint8)
    masks[1] = VOID
    head = LinearHead(8, 3, dropout=0.0)
    plain = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1))
    plain[1].load_state_dict(head.classifier.state_dict())
    logits = plain(torch.from_numpy(features).permute(0, 3, 1, 2))
    pixels = nn.functional.interpolate(logits, size=(24, 30), mode="bilinear")
    loss = nn.functional.cross_entropy(pixels, torch.from_numpy(masks).long(), ignore_index=VOID)
    # Plain gradient descent: AdamW's first step is the same for gradients of any size.
    found = train_step(head, torch.optim.SGD(head.parameters(), 0.1), list(zip(features, masks, strict=True)))
    loss.backward()
    torch.optim.SGD(plain.parameters(), 0.1).step()
    assert found == pytest.approx(loss.item(), rel=1e-5)
    for mine, other in zip(head.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_head_learns_what_features_tell_and_the_seed_decides():
    state = torch.random.get_rng_state()
    head = train_head(samples(), 3, SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), state)
    again, other = train_head(samples(), 3, SETTINGS), train_head(samples(), 3, SETTINGS, seed=1)
    assert all(torch.equal(tensor, parameters(again)[name]) for name, tensor in parameters(head).items())
    assert not torch.equal(head.classifier.weight, other.classifier.weight)
    # In the middle of patches: between them the upsampled logits are a mixture.
    right = [(predict(head, features, mask.shape) == mask)[2::5, 2::5].ravel() for features, mask in samples()]
    assert np.concatenate(right).mean() > 0.8
    assert not head.training


def test_killed_training_goes_on_to_the_same_head(tmp_path):
    checkpoint = tmp_path / "head.safetensors"
    script = f"""
import time
from pathlib import Path
import numpy as np
from evaluation.semantics.segmentation_head import HeadSettings, train_head
{inspect.getsource(samples)}
class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)
train_head(Slow(samples()), 3, {SETTINGS}, checkpoint=Path({str(checkpoint)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    with safe_open(checkpoint, "pt") as file:
        done = int(file.metadata()["epochs"])
    assert 0 < done < SETTINGS.epochs
    resumed = train_head(samples(), 3, SETTINGS, checkpoint=checkpoint)
    whole = train_head(samples(), 3, SETTINGS)
    for name, tensor in parameters(whole).items():
        torch.testing.assert_close(parameters(resumed)[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}, {"pixels_per_patch": -1}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"they must be 1 or more"):
        HeadSettings(**options)


def test_finished_head_is_not_trained_again_and_a_damaged_checkpoint_is_refused(tmp_path):
    checkpoint = tmp_path / "head.safetensors"
    head = train_head(samples(), 3, SETTINGS, checkpoint=checkpoint)
    blind = [(features, np.zeros_like(mask)) for features, mask in samples()]
    assert torch.equal(train_head(blind, 3, SETTINGS, checkpoint=checkpoint).classifier.weight, head.classifier.weight)
    with pytest.raises(ValueError, match=r"(?s)head\.safetensors is no checkpoint of this head .* Remove it"):
        train_head(samples(), 4, SETTINGS, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"head\.safetensors is no checkpoint of this head"):
        train_head(samples(), 3, SETTINGS, checkpoint=checkpoint)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (5, 2)])
def test_transforms_are_undone(random_pixels, tiny_model, transform, grid):
    def patch_means(pixels: torch.Tensor) -> np.ndarray:
        return pixels[0].unfold(1, 14, 14).unfold(2, 14, 14).mean((-2, -1)).permute(1, 2, 0).numpy()

    backbone = Backbone(tiny_model(), Dinov2AlibiImageProcessor(), "source", "name")
    pixels = random_pixels(1, *grid)
    changed = transform_pixels(pixels, transform, (14, 28))
    assert (changed.shape == pixels.shape and torch.equal(changed, pixels)) == (transform == "none")
    # Sums of the same numbers in another order.
    restored = restore_features(patch_means(changed), transform, (1, 2), backbone)
    np.testing.assert_allclose(restored, patch_means(pixels), atol=1e-6)


def test_roll_leaves_the_students_features_and_changes_the_teachers(tiny_model, tiny_teacher):
    processor = Dinov2AlibiImageProcessor()
    image = noise_images(1, 70)[0].resize((98, 70))
    backbones = [Backbone(model, processor, "source", "name") for model in (tiny_model(), tiny_teacher())]
    differences = [
        np.abs(transformed_features(backbone, image, 70, "roll") - transformed_features(backbone, image, 70)).max()
        for backbone in backbones
    ]
    # float32 through three layers, sums in another order; features are about 2 large.
    assert differences[0] < 1e-4
    assert differences[1] > 0.1


@pytest.fixture
def data_folder(tmp_path):
    """Photographs whose left part is red (8), right part blue (3) and last rows void; 5 and 4 of them."""
    random = np.random.default_rng(0)
    for split, count in (("train", 5), ("validation", 4)):
        for kind in ("images", "masks"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
        for number in range(count):
            width, edge = 84 + 10 * number, 20 + 12 * number
            values = np.full((70, width), 3, dtype=np.uint8)
            values[:, :edge] = 8
            picture = random.integers(0, 60, (70, width, 3), dtype=np.uint8)
            picture[..., 0] += np.where(values == 8, 190, 0).astype(np.uint8)
            picture[..., 2] += np.where(values == 3, 190, 0).astype(np.uint8)
            values[-6:] = VOID
            Image.fromarray(picture).save(tmp_path / "data" / split / "images" / f"{number}.png")
            Image.fromarray(values).save(tmp_path / "data" / split / "masks" / f"{number}.png")
    return tmp_path / "data"


def test_training_masks_have_the_size_of_the_backbones_pixels_or_a_smaller_one(tmp_path, data_folder, model_folder):
    train, _ = open_data(data_folder, Labels((3, 8)))
    features = Features(load_backbone(model_folder), train, 140, FeatureCache(tmp_path / "cache")).extract()
    for pixels in (14, 7, 1):
        samples = TrainingSamples(features, (pixels, pixels))
        for index in range(len(samples)):
            found, mask = samples[index]
            assert mask.shape == (found.shape[0] * pixels, found.shape[1] * pixels)
            assert set(np.unique(mask)) == {0, 1, VOID}
            # The edge stays in its place, to a pixel.
            edge = (20 + 12 * index) / (84 + 10 * index)
            assert abs((mask[0] == 1).mean() - edge) <= 1 / mask.shape[1]


def test_features_that_were_removed_meanwhile_are_computed_again(tmp_path, data_folder, model_folder, monkeypatch):
    train, _ = open_data(data_folder, Labels((3, 8)))
    backbone, cache = load_backbone(model_folder), FeatureCache(tmp_path / "cache")
    features = Features(backbone, train, 70, cache).extract()
    before = [features[index] for index in range(5)]
    cache.files.path(features.keys[1]).unlink()
    cache.files.path(features.keys[3]).write_bytes(b"damaged")
    computed = []
    compute = features.compute
    monkeypatch.setattr(features, "compute", lambda index: computed.append(index) or compute(index))
    for index in range(5):
        np.testing.assert_array_equal(features[index], before[index])
    assert computed == [1, 3]


def test_cache_that_holds_nothing_gives_the_same_features(tmp_path, data_folder, model_folder):
    train, _ = open_data(data_folder, Labels((3, 8)))
    backbone = load_backbone(model_folder)
    kept = Features(backbone, train, 70, FeatureCache(tmp_path / "large")).extract()
    full = FeatureCache(tmp_path / "none", limit=0)
    for index, features in enumerate(Features(backbone, train, 70, full).extract()):
        np.testing.assert_array_equal(features, kept[index])
    assert not list((tmp_path / "none").rglob("*.safetensors"))


def test_score_is_over_all_pixels_of_all_images(tmp_path, data_folder, model_folder, monkeypatch):
    train, validation = open_data(data_folder, Labels((3, 8, 9), ("blue", "red", "green")))
    backbone, cache = load_backbone(model_folder), FeatureCache(tmp_path / "cache")
    settings = HeadSettings(epochs=8, batch_size=2, learning_rate=0.02)
    record, head = measure(backbone, train, validation, 70, cache, settings, TRANSFORMS)
    matrix = np.zeros((3, 3), dtype=np.int64)
    for index in range(4):
        image, mask = validation.pair(index)
        matrix += confusion_matrix(predict(head, transformed_features(backbone, image, 70), mask.shape), mask, 3)
    assert matrix.sum() == sum(64 * (84 + 10 * number) for number in range(4))
    # Cached features are rounded to half precision.
    assert record["metrics"]["miou"] == pytest.approx(summarise(matrix, ("blue", "red", "green"))["miou"], abs=2e-3)
    assert record["metrics"]["miou"] > 0.7
    assert record["metrics"]["miou_roll"] == pytest.approx(record["metrics"]["miou"], abs=2e-3)
    assert {"miou_flip_ud", "miou_rot90", "iou_red", "iou_blue"} < record["metrics"].keys()
    assert "iou_green" not in record["metrics"]
    assert record["parameters"]["classes_left_out"] == ["green"]
    assert record["parameters"]["classes_not_trained"] == ["green"]
    assert record["parameters"]["train"]["images"] == 5
    assert record["dataset"]["images"] == 4

    def fail(*_):
        raise AssertionError("features were extracted twice")

    monkeypatch.setattr(linear_segmentation, "patch_features", fail)
    again, _ = measure(backbone, train, validation, 70, cache, settings, TRANSFORMS)
    assert again["metrics"] == record["metrics"]


def run(monkeypatch, capsys, *options) -> tuple[int, str, str]:
    """The command in this process: its exit status and what it printed."""
    monkeypatch.setattr(sys, "argv", ["linear_segmentation", *map(str, options)])
    try:
        linear_segmentation.main()
        status = 0
    except SystemExit as exit:
        status = exit.code
    return status, *capsys.readouterr()


def test_command_writes_record_panel_and_a_segmenter_that_a_fresh_process_loads(
    tmp_path, data_folder, model_folder, monkeypatch, capsys
):
    options = ["--model", model_folder, "--data", data_folder, "--classes", 3, 8, "--class-names", "blue", "red"]
    options += ["--size", 70, "--epochs", 4, "--batch-size", 2, "--cache", tmp_path / "cache"]
    options += ["--panel", tmp_path / "panel.png", "--save-head", tmp_path / "head", "--output", tmp_path / "r.json"]
    status, printed, _ = run(monkeypatch, capsys, *options)
    assert status == 0
    record = json.loads((tmp_path / "r.json").read_text())
    assert f"{record['metrics']['miou']:8.4f}" in printed
    with Image.open(tmp_path / "panel.png") as picture:
        assert picture.height > 4 * ROW_HEIGHT * DPI, "a row for each image"

    script = (
        "import sys, torch, numpy as np\n"
        "from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation\n"
        "import modeling_alibi_dinov2\n"
        "from PIL import Image\n"
        "folder, image, output = sys.argv[1:]\n"
        "model = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()\n"
        "pixels = AutoImageProcessor.from_pretrained(folder, backend='pil')(Image.open(image), return_tensors='pt')\n"
        "assert model.config.id2label == {0: 'blue', 1: 'red'}\n"
        "with torch.no_grad(): np.save(output, model(**pixels).logits.numpy())\n"
    )
    image = data_folder / "validation" / "images" / "2.png"
    command = [sys.executable, "-c", script, tmp_path / "head", image, tmp_path / "logits.npy"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    head = LinearHead(48, 2).eval()
    (checkpoint,) = (tmp_path / "cache" / "heads").iterdir()
    with safe_open(checkpoint, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith("head.")}  # noqa: SIM118
    head.load_state_dict({name.removeprefix("head."): tensor for name, tensor in tensors.items()})
    backbone, picture = load_backbone(model_folder), Image.open(image)
    features = torch.from_numpy(transformed_features(backbone, picture, 70)).permute(2, 0, 1)
    size = preprocess(backbone, [picture], 70).shape[-2:]
    with torch.no_grad():
        expected = nn.functional.interpolate(head([features])[0], size=size, mode="bilinear")
    # The same float32 operations in another process.
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "kind",
    [
        *("unknown label", "other size", "missing mask", "only void", "void validation"),
        *("head of another model", "head after a removal"),
    ],
)
def test_wrong_input_ends_with_a_message(tmp_path, data_folder, model_folder, tiny_teacher, monkeypatch, capsys, kind):
    classes = [3, 8]
    mask = data_folder / "train" / "masks" / "1.png"
    expected = {
        "unknown label": "1.png has unknown labels: 7",
        "other size": "1.png has 5×5 pixels",
        "missing mask": "1.png: there is no mask of the same name",
        "only void": "All pixels of the masks of data train are void",
        "void validation": "All pixels of the masks of data validation are void",
        "head after a removal": "The head was trained after blank-channels, which a saved segmenter would not do",
        "head of another model": "is a Dinov2WithRegistersModel; only the head of a Dinov2AlibiModel",
    }[kind]
    extra = []
    if kind == "unknown label":
        Image.fromarray(np.full((70, 94), 7, dtype=np.uint8)).save(mask)
    elif kind == "other size":
        Image.fromarray(np.full((5, 5), 3, dtype=np.uint8)).save(mask)
    elif kind == "missing mask":
        mask.unlink()
    elif kind == "only void":
        classes, extra = [1, 2], ["--others-void"]
    elif kind == "void validation":
        for path in (data_folder / "validation" / "masks").iterdir():
            Image.fromarray(np.full_like(np.asarray(Image.open(path)), VOID)).save(path)
    elif kind == "head after a removal":
        extra = ["--save-head", tmp_path / "head", "--removal", "blank-channels", "--removal-channels", 3]
    else:
        tiny_teacher().save_pretrained(model_folder)
        extra = ["--save-head", tmp_path / "head"]
    options = ["--model", model_folder, "--data", data_folder, "--classes", *classes, "--size", 56, *extra]
    output = tmp_path / "record.json"
    status, _, error = run(monkeypatch, capsys, *options, "--cache", tmp_path / "cache", "--output", output)
    assert status == 2
    assert expected in error
    assert not output.exists()
    assert not (tmp_path / "cache").exists()
