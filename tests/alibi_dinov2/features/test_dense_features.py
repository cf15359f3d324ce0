# SPDX-License-Identifier: Apache-2.0
"""One way from images to features, for stock DINOv2, ALiBi-DINOv2 and other backbones."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from alibi_dinov2.features.backbone import load_backbone, preprocess
from alibi_dinov2.features.dense_features import dense_features, patch_features
from alibi_dinov2.io.files import sha256_of
from evaluation.position.noise import noise_images
from evaluation.report.records import Stopwatch, describe_images, make_record
from evaluation.semantics.agreement import mean_cosine
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor


@pytest.fixture
def saved(tmp_path):
    """Save a model and a processor into a folder."""

    def save(model, name="model"):
        model.save_pretrained(tmp_path / name)
        processor = BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
        processor.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def test_features_are_the_patch_tokens_of_the_model(saved, tiny_model, tiny_teacher):
    image = noise_images(1, 100)[0].resize((200, 100))
    students = [tiny_model(num_register_tokens=registers) for registers in (0, 4)]
    teachers = [tiny_teacher(num_register_tokens=4), tiny_teacher(Dinov2Model, Dinov2Config)]
    for number, (model, prefix) in enumerate(zip([*students, *teachers], (1, 5, 5, 1), strict=True)):
        backbone = load_backbone(saved(model, f"model-{number}"))
        (features,) = dense_features(backbone, [image], size=56)
        with torch.no_grad():
            tokens = model(preprocess(backbone, [image], 56)).last_hidden_state
        assert features.shape == (4, 8, 48)
        assert features.dtype == np.float32
        np.testing.assert_array_equal(features.reshape(-1, 48), tokens[0, prefix:].numpy())


def test_other_architectures_walk_the_same_path(saved):
    model = ViTModel(ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8))
    (features,) = dense_features(load_backbone(saved(model)), noise_images(1, 50), size=32)
    assert features.shape == (4, 4, 32)


def test_pixels_are_normalised_with_the_backbones_own_statistics(saved, tiny_model):
    folder = saved(tiny_model())
    backbone = load_backbone(folder)
    grey = Image.fromarray(np.full((56, 56, 3), 128, dtype=np.uint8))
    pixels = preprocess(backbone, [grey], 56)
    mean, std = (torch.tensor(getattr(backbone.processor, name)) for name in ("image_mean", "image_std"))
    torch.testing.assert_close(pixels[0, :, 0, 0], (128 / 255 - mean) / std, rtol=1e-5, atol=1e-5)


def test_batches_give_the_same_as_single_images(saved, tiny_model):
    backbone = load_backbone(saved(tiny_model()))
    images = noise_images(3, 56)
    single = np.stack(list(dense_features(backbone, images, 56)))
    batched = np.stack(list(dense_features(backbone, images, 56, batch_size=2)))
    # Matrix products of other shapes add up in another order.
    np.testing.assert_allclose(batched, single, atol=1e-5)


def test_layers_are_the_hidden_states_of_one_forward_pass(saved, tiny_model):
    model = tiny_model(num_register_tokens=4)
    backbone = load_backbone(saved(model))
    images = noise_images(3, 56)
    maps = list(dense_features(backbone, images, 56, batch_size=2, layers=[0, 2]))
    with torch.no_grad():
        states = model(preprocess(backbone, images[2:], 56), output_hidden_states=True).hidden_states
    assert len(maps) == 3
    assert maps[2].shape == (2, 4, 4, 48)
    for found, layer in zip(maps[2], (0, 2), strict=True):
        # The model's own pass runs in another mode and may lie elsewhere in memory.
        np.testing.assert_allclose(found.reshape(-1, 48), states[layer][0, 5:].numpy(), atol=1e-6)
    with pytest.raises(ValueError, match=r"Layers \[9\] .* has 0 to \d"):
        patch_features(backbone, preprocess(backbone, images, 56), layers=[9])


def test_features_that_are_not_finite_are_refused(saved, tiny_model):
    model = tiny_model()
    torch.nn.init.constant_(model.layernorm.weight, float("nan"))
    backbone = load_backbone(saved(model))
    with pytest.raises(ValueError, match="NaN or infinite"):
        patch_features(backbone, preprocess(backbone, noise_images(1, 56), 56))


def test_bar_ends_before_an_error_is_told(saved, tiny_model, capsys):
    backbone = load_backbone(saved(tiny_model()))
    images = iter([*noise_images(1, 56), "no image"])
    # The error holds the loop's variables, and with them a bar that nobody closed.
    with pytest.raises(ValueError, match="image") as error:
        list(dense_features(backbone, images, 56, progress=True))
    assert capsys.readouterr().err.endswith("\n"), error.value


def test_missing_model_is_an_error_of_its_own(tmp_path):
    with pytest.raises(OSError, match="missing"):
        load_backbone(tmp_path / "missing")


def test_noise_is_uniform_and_that_of_the_seed():
    first, second = (np.asarray(image) for image in noise_images(2, 64, seed=5))
    np.testing.assert_array_equal(first, np.asarray(noise_images(1, 64, seed=5)[0]))
    assert (first != second).mean() > 0.9
    # 12,288 draws: the mean's standard error is 0.67.
    assert abs(first.mean() - 127.5) < 4
    assert first.min() < 3
    assert first.max() > 252


def test_record_tells_all_that_is_needed(saved, tiny_model):
    folder = saved(tiny_model())
    images = noise_images(2, 56)
    record = make_record(
        "probe", {"r2": 0.5}, describe_images("noise", images), load_backbone(folder), {"size": 56}, 7, Stopwatch()
    )
    assert record["model"]["weights_sha256"] == sha256_of(folder / "model.safetensors")
    assert record["model"]["name"] == "model"
    assert record["model"]["config"]["alibi_metric"] == "euclidean"
    assert record["dataset"]["images"] == 2
    assert record["seed"] == 7
    assert str(folder.parent) not in str(record)


def test_fingerprint_tells_pixels_and_order_apart():
    images = noise_images(2, 8)
    fingerprint = describe_images("noise", images).fingerprint
    assert fingerprint == describe_images("other name", images).fingerprint
    assert fingerprint != describe_images("noise", images[::-1]).fingerprint
    changed = np.array(images[0])
    changed[0, 0, 0] ^= 1
    assert fingerprint != describe_images("noise", [Image.fromarray(changed), images[1]]).fingerprint


def test_cosine_leaves_channels_out():
    random = np.random.default_rng(0)
    features = random.normal(size=(3, 4, 6))
    other = features.copy()
    other[..., 2] += 100
    assert mean_cosine(features, features) == pytest.approx(1)
    assert mean_cosine(features, -features) == pytest.approx(-1)
    assert mean_cosine(features, other) < 0.9
    assert mean_cosine(features, other, zero_channels=[2]) == pytest.approx(1)
    with pytest.raises(ValueError, match="cannot be compared"):
        mean_cosine(features, features[:2])


def test_processor_of_the_package_is_found_by_the_auto_class(tmp_path, tiny_model):
    tiny_model().save_pretrained(tmp_path)
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path)
    assert isinstance(load_backbone(tmp_path).processor, Dinov2AlibiImageProcessor)
