# SPDX-License-Identifier: Apache-2.0
"""Patch tokens of every architecture of the paper's table 1, against what each gives when asked by hand."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ResNetConfig,
    ResNetModel,
    SamConfig,
    SamModel,
    SamVisionConfig,
    SamVisionModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from alibi_dinov2.features.backbone import load_backbone, patch_shape, preprocess
from alibi_dinov2.features.dense_features import OUTPUT, dense_features, patch_features
from alibi_dinov2.features.token_layout import prefix_tokens, vision_tower
from alibi_dinov2.features.zoo import MODELS
from evaluation.position.noise import noise_images
from tests.comparison import assert_close

PATCH, SIDE, WIDTH = 8, 64, 24
VIT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIDE,
    "patch_size": PATCH,
    "initializer_range": 0.2,
}
SAM = {
    **{name: VIT[name] for name in VIT if name != "intermediate_size"},
    "mlp_dim": 32,
    "output_channels": 16,
    "window_size": 3,
    "global_attn_indexes": [1],
}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 10}
DECODER = {"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 8, "num_hidden_layers": 1}


def build(name: str):
    """A tiny random model of an architecture; position embeddings and special tokens are random too."""
    torch.manual_seed(0)
    model = {
        "vit": lambda: ViTModel(ViTConfig(**VIT)),
        "deit": lambda: DeiTModel(DeiTConfig(**VIT)),
        "mae": lambda: ViTMAEModel(ViTMAEConfig(**VIT)),
        "clip": lambda: CLIPModel(CLIPConfig(vision_config=VIT, text_config=TEXT, projection_dim=8)),
        "clip-vision": lambda: CLIPVisionModel(CLIPVisionConfig(**VIT)),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**VIT)),
        "dinov2-registers": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**VIT, num_register_tokens=4)),
        "dinov3": lambda: DINOv3ViTModel(DINOv3ViTConfig(**VIT, num_register_tokens=4)),
        "sam": lambda: SamModel(
            SamConfig(
                vision_config=SAM,
                prompt_encoder_config={"hidden_size": 16, "image_size": SIDE, "patch_size": PATCH},
                mask_decoder_config=DECODER,
            )
        ),
        "sam-vision": lambda: SamVisionModel(SamVisionConfig(**SAM)),
    }[name]()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("token", "tokens", "embeddings", "embedding", "pos_embed")):
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


ARCHITECTURES = (
    "vit",
    "deit",
    "mae",
    "clip",
    "clip-vision",
    "dinov2",
    "dinov2-registers",
    "dinov3",
    "sam",
    "sam-vision",
)
PREFIX = {"deit": 2, "dinov2-registers": 5, "dinov3": 5, "sam": 0, "sam-vision": 0}  # and 1 for the others


def by_hand(name: str, model, pixels: torch.Tensor) -> torch.Tensor:
    """The normalised patch tokens `(B, h, w, D)` at the size of training, as a user of each class would get them."""
    grid = (SIDE // PATCH, SIDE // PATCH)
    match name:
        case "clip":
            tokens = model.vision_model.post_layernorm(model.vision_model(pixels).last_hidden_state)
        case "clip-vision":
            tokens = model.post_layernorm(model(pixels).last_hidden_state)
        case "sam":
            return model.get_image_embeddings(pixels).permute(0, 2, 3, 1)
        case "sam-vision":
            return model(pixels).last_hidden_state.permute(0, 2, 3, 1)
        case "mae":
            # Nothing masked, randomly shuffled and put back in order.
            model.config.mask_ratio = 0.0
            output = model(pixels)
            order = output.ids_restore[..., None].expand(-1, -1, WIDTH)
            return output.last_hidden_state[:, 1:].gather(1, order).unflatten(1, grid)
        case _:
            tokens = model(pixels).last_hidden_state
    return tokens[:, PREFIX.get(name, 1) :].unflatten(1, grid)


@pytest.fixture
def saved(tmp_path):
    """`saved(model)`: the folder of a model with an image processor that has statistics of its own."""

    def save(model):
        model.save_pretrained(tmp_path / "model")
        BitImageProcessorPil(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]).save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return save


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_are_those_extracted_by_hand(saved, name):
    model = build(name)
    backbone = load_backbone(saved(model))
    assert patch_shape(backbone) == (PATCH, PATCH)
    assert prefix_tokens(backbone.model) == PREFIX.get(name, 1)
    assert tuple(backbone.processor.image_mean) == (0.4, 0.5, 0.6)
    pixels = preprocess(backbone, noise_images(2, 100), SIDE)
    with torch.no_grad():
        expected = by_hand(name, model, pixels)
    found = patch_features(backbone, pixels)
    assert found.dtype == np.float32
    # MAE's patches go through the layers in another order, so sums do too.
    assert_close(found, expected, 1e-5, "float32, sums in another order")
    # A second pass gives the same: nothing is drawn at random.
    np.testing.assert_array_equal(found, patch_features(backbone, pixels))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_and_columns_follow_the_image_at_any_size(saved, name):
    model = build(name)
    tower = vision_tower(model)
    for parameter_name, parameter in model.named_parameters():
        # No mixing of patches: what changes in the features is where the image changed.
        if parameter_name.endswith(("o_proj.weight", "out_proj.weight", "attn.proj.weight")):
            torch.nn.init.zeros_(parameter)
    if name.startswith("sam"):
        tower.neck.conv2.weight.data[..., [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    backbone = load_backbone(saved(model))
    pixels = preprocess(backbone, [noise_images(1, 128)[0].resize((104, 40))], 40)
    assert pixels.shape == (1, 3, 40, 104)
    before = patch_features(backbone, pixels)
    assert before.shape[:3] == (1, 5, 13)
    for row, column in ((0, 12), (4, 1), (2, 7)):
        changed = pixels.clone()
        changed[..., row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] *= -1
        difference = np.abs(patch_features(backbone, changed) - before).max(axis=-1)[0]
        assert difference[row, column] > 1e-2
        difference[row, column] = 0
        assert difference.max() < 1e-4


@pytest.mark.parametrize("name", ["vit", "deit", "mae", "clip", "sam", "dinov2"])
def test_position_embedding_follows_the_size(saved, name):
    backbone = load_backbone(saved(build(name)))
    (features,) = dense_features(backbone, [Image.new("RGB", (96, 48))], size=48)
    assert features.shape[:2] == (6, 12)
    # All patches of a blank image look alike; only the position embedding tells them apart.
    assert np.ptp(features, axis=(0, 1)).max() > 1e-2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_of_every_architecture(saved, name):
    model = build(name)
    backbone = load_backbone(saved(model))
    images = noise_images(2, SIDE)
    found = list(dense_features(backbone, images, SIDE, layers=[0, 2, 1]))
    assert [image.shape for image in found] == [(3, 8, 8, WIDTH)] * 2
    output = np.stack(list(dense_features(backbone, images, SIDE, layers=[OUTPUT])))[:, 0]
    np.testing.assert_allclose(output, np.stack(list(dense_features(backbone, images, SIDE))), atol=1e-6)
    with pytest.raises(ValueError, match="0 to 2 and 'output'"):
        list(dense_features(backbone, images, SIDE, layers=[3]))
    if name != "mae":
        tower, prefix = vision_tower(model), PREFIX.get(name, 1)
        with torch.no_grad():
            states = tower(preprocess(backbone, images, SIDE), output_hidden_states=True).hidden_states
        for index, layer in enumerate((0, 2, 1)):
            expected = states[layer] if states[layer].ndim == 4 else states[layer][:, prefix:].unflatten(1, (8, 8))
            assert_close(np.stack([image[index] for image in found]), expected, 1e-5, "float32")


def test_mae_gives_every_patch_whatever_its_mask_ratio(saved):
    model = build("mae")
    assert model.config.mask_ratio == 0.75
    (features,) = dense_features(load_backbone(saved(model)), noise_images(1, SIDE), SIDE)
    assert features.shape == (8, 8, WIDTH)
    assert len(np.unique(features.reshape(64, -1), axis=0)) == 64


def test_processor_without_a_pil_version_lends_its_statistics(saved):
    folder = saved(build("dinov3"))
    settings = {"image_processor_type": "DINOv3ViTImageProcessorFast", "image_mean": [0.1, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"image_std": [0.5, 0.5, 0.5]}))
    assert tuple(load_backbone(folder).processor.image_mean) == (0.1, 0.2, 0.3)


def test_names_of_the_table_stand_for_hub_ids(monkeypatch, tmp_path):
    asked = []

    def from_pretrained(source, **options):
        asked.append(source)
        raise OSError("not here")

    monkeypatch.setattr("alibi_dinov2.features.backbone.AutoConfig.from_pretrained", from_pretrained)
    for source in ("mae-b", "some/model"):
        with pytest.raises(OSError, match="not here"):
            load_backbone(source)
    assert asked == ["facebook/vit-mae-base", "some/model"]
    # A folder of that name goes first.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mae-b").mkdir()
    with pytest.raises(OSError, match="not here"):
        load_backbone("mae-b")
    assert asked[-1] == "mae-b"
    assert all(identifier.count("/") == 1 for identifier in MODELS.values())


def test_model_without_patches_is_refused(saved):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    backbone = load_backbone(saved(ResNetModel(config)))
    with pytest.raises(ValueError, match="has no patch_size"):
        list(dense_features(backbone, noise_images(1, 64), 64))


def test_tokens_that_are_not_one_per_patch_are_refused(saved):
    backbone = load_backbone(saved(build("dinov2")))
    backbone.model.config.patch_size = 4
    with pytest.raises(ValueError, match="for 16×16 patches and 1 prefix tokens"):
        patch_features(backbone, torch.zeros(1, 3, SIDE, SIDE))


def timm_folder(path):
    """A folder as of timm's own models on the Hub."""
    config = {
        "architecture": "eva02_tiny_patch14_224",
        "num_classes": 0,
        "model_args": {"depth": 2},
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 224, 224]},
    }
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_missing_timm_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"needs a library that is not installed: .* timm"):
        load_backbone(timm_folder(tmp_path / "eva"))


def test_timm_model(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is an option")
    torch.manual_seed(0)
    model = timm.create_model("eva02_tiny_patch14_224", num_classes=0, depth=2, dynamic_img_size=True).eval()
    folder = timm_folder(tmp_path / "eva")
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    backbone = load_backbone(folder)
    assert patch_shape(backbone) == (14, 14)
    assert tuple(backbone.processor.image_mean) == (0.1, 0.2, 0.3)
    image = noise_images(1, 140)[0].resize((140, 84))
    pixels = preprocess(backbone, [image], 84)
    with torch.no_grad():
        expected = model.forward_features(pixels)[:, 1:].unflatten(1, (6, 10))
        layers = model.forward_intermediates(pixels, output_fmt="NCHW", intermediates_only=True)
    assert_close(patch_features(backbone, pixels), expected, 1e-5, "float32")
    assert_close(patch_features(backbone, pixels, layers=[1, 2]), torch.stack(layers).movedim(2, -1), 1e-5, "float32")
