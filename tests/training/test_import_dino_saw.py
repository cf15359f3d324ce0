# SPDX-License-Identifier: Apache-2.0
"""Importing the authors' checkpoints: forward parity with an independent reference, and strictness."""

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor, Dinov2AlibiModel
from tests.comparison import assert_close
from training.import_dino_saw import build_model, import_checkpoint, read_checkpoint

WIDTH, HEADS, DEPTH, PATCH, REGISTERS = 128, 2, 3, 14, 4
GRID = (5, 7)
ROUNDING = "float32 against float64"

Tensors = dict[str, torch.Tensor]


def timm_tensors(*, learned: bool = False, registers: int = REGISTERS, position_grid: int | None = 37) -> Tensors:
    """A state dict as `vit_small_patch14_reg4_dinov2` has it, small and random, its position embedding zeroed."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, mean: float = 0.0, std: float = 0.2) -> torch.Tensor:
        return mean + std * torch.randn(shape, generator=generator)

    tensors = OrderedDict(cls_token=random(1, 1, WIDTH))
    if position_grid:
        tensors["pos_embed"] = torch.zeros(1, position_grid**2, WIDTH)
    if registers:
        tensors["reg_token"] = random(1, registers, WIDTH)
    tensors["patch_embed.proj.weight"] = random(WIDTH, 3, PATCH, PATCH, std=0.05)
    tensors["patch_embed.proj.bias"] = random(WIDTH)
    for index in range(DEPTH):
        block = f"blocks.{index}."
        for norm in ("norm1", "norm2"):
            tensors[f"{block}{norm}.weight"] = random(WIDTH, mean=1.0)
            tensors[f"{block}{norm}.bias"] = random(WIDTH)
        if learned:
            tensors[f"{block}attn.m"] = random(HEADS, 1, 1, mean=3.0, std=1.0)
        for linear, outputs, inputs in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", 4 * WIDTH, WIDTH),
            ("mlp.fc2", WIDTH, 4 * WIDTH),
        ):
            tensors[f"{block}{linear}.weight"] = random(outputs, inputs, std=inputs**-0.5)
            tensors[f"{block}{linear}.bias"] = random(outputs)
        tensors[f"{block}ls1.gamma"] = random(WIDTH, mean=0.5)
        tensors[f"{block}ls2.gamma"] = random(WIDTH, mean=0.5)
    tensors["norm.weight"] = random(WIDTH, mean=1.0)
    tensors["norm.bias"] = random(WIDTH)
    return tensors


def reference_bias(slopes: list[float], registers: int, *, wrap: bool, normalize: bool) -> torch.Tensor:
    """The bias of the paper's equations by a slow double loop, `(heads, tokens, tokens)`."""
    rows, columns = GRID
    places = [(row, column) for row in range(rows) for column in range(columns)]
    distances = torch.zeros(len(places), len(places), dtype=torch.float64)
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            down, right = abs(row - other_row), abs(column - other_column)
            if wrap:
                down, right = min(down, rows - down), min(right, columns - right)
            distances[i, j] = (down**2 + right**2) ** 0.5
    if normalize:
        distances = distances / distances.max()
    prefix = 1 + registers
    bias = torch.zeros(len(slopes), prefix + len(places), prefix + len(places), dtype=torch.float64)
    for head, slope in enumerate(slopes):
        bias[head, prefix:, prefix:] = -slope * distances
    return bias


def reference_forward(tensors: Tensors, pixels: torch.Tensor, biases: list[torch.Tensor]) -> torch.Tensor:
    """timm's vision transformer with the authors' attention, written out: `(B, 3, H, W)` -> `(B, tokens, width)`.

    In float64, so that the comparison shows the converted model's own rounding.
    """
    weights = {name: tensor.double() for name, tensor in tensors.items()}

    def linear(name: str, tokens: torch.Tensor) -> torch.Tensor:
        return tokens @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, tokens: torch.Tensor) -> torch.Tensor:
        centred = tokens - tokens.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    patches = functional.conv2d(
        pixels.double(), weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=PATCH
    )
    batch = len(pixels)
    prefix = [weights[name].repeat(batch, 1, 1) for name in ("cls_token", "reg_token") if name in weights]
    tokens = torch.cat([*prefix, patches.flatten(2).mT], dim=1)
    for index, bias in enumerate(biases):
        block = f"blocks.{index}"
        packed = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", tokens))
        outputs = []
        for head in range(HEADS):
            start = head * 64
            query, key, value = (packed[..., part * WIDTH + start : part * WIDTH + start + 64] for part in range(3))
            attention = (query @ key.mT / 8 + bias[head]).softmax(dim=-1)
            outputs.append(attention @ value)
        tokens = tokens + weights[f"{block}.ls1.gamma"] * linear(f"{block}.attn.proj", torch.cat(outputs, dim=-1))
        hidden = linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", tokens))
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        tokens = tokens + weights[f"{block}.ls2.gamma"] * linear(f"{block}.mlp.fc2", hidden)
    return norm("norm", tokens)


@pytest.fixture
def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, GRID[0] * PATCH, GRID[1] * PATCH, generator=generator)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best_model.pth"
    torch.save(timm_tensors(), path)
    return path


@pytest.mark.parametrize(
    ("choices", "slopes"),
    [
        ({}, [1.0, 1.0]),
        ({"alibi_slopes": "constant"}, [1.0, 1.0]),
        ({"alibi_slopes": "geometric"}, [2**-4, 2**-8]),
        ({"alibi_wrap": False}, [1.0, 1.0]),
        ({"alibi_normalize": False}, [1.0, 1.0]),
        ({"position_encoding": "none"}, [0.0, 0.0]),
    ],
    ids=str,
)
def test_features_equal_the_reference(tmp_path, checkpoint, pixels, choices, slopes):
    import_checkpoint(checkpoint, tmp_path / "model", **choices)
    model = Dinov2AlibiModel.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        tokens = model(pixels).last_hidden_state
    bias = reference_bias(
        slopes, REGISTERS, wrap=choices.get("alibi_wrap", True), normalize=choices.get("alibi_normalize", True)
    )
    expected = reference_forward(timm_tensors(), pixels, [bias] * DEPTH)
    assert_close(tokens, expected, 2e-5, ROUNDING)


def test_learned_slopes_are_recognised_and_equal_the_reference(tmp_path, pixels):
    tensors = timm_tensors(learned=True)
    torch.save(tensors, tmp_path / "learned.pth")
    import_checkpoint(tmp_path / "learned.pth", tmp_path / "model")
    model = Dinov2AlibiModel.from_pretrained(tmp_path / "model").eval()
    assert model.config.alibi_slopes == "learned"
    with torch.no_grad():
        tokens = model(pixels).last_hidden_state
    biases = [
        reference_bias(tensors[f"blocks.{index}.attn.m"].flatten().tolist(), REGISTERS, wrap=True, normalize=True)
        for index in range(DEPTH)
    ]
    assert_close(tokens, reference_forward(tensors, pixels, biases), 2e-5, ROUNDING)


def test_a_model_without_registers_equals_the_reference(pixels):
    tensors = timm_tensors(registers=0, position_grid=None)
    model = build_model(tensors)
    assert model.config.num_register_tokens == 0
    with torch.no_grad():
        tokens = model(pixels).last_hidden_state
    bias = reference_bias([1.0, 1.0], 0, wrap=True, normalize=True)
    assert_close(tokens, reference_forward(tensors, pixels, [bias] * DEPTH), 2e-5, ROUNDING)


def test_the_architecture_is_read_from_the_shapes(checkpoint, tmp_path):
    config = import_checkpoint(checkpoint, tmp_path / "model").config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (WIDTH, DEPTH, HEADS)
    assert (config.patch_size, config.num_register_tokens, config.mlp_ratio) == (PATCH, REGISTERS, 4)
    assert not config.use_swiglu_ffn


def test_the_folder_has_the_image_processor_and_every_tensor_bit_for_bit(checkpoint, tmp_path):
    import_checkpoint(checkpoint, tmp_path / "model")
    assert Dinov2AlibiImageProcessor.from_pretrained(tmp_path / "model").patch_size == PATCH
    weights = Dinov2AlibiModel.from_pretrained(tmp_path / "model").state_dict()
    tensors = timm_tensors()
    assert torch.equal(weights["embeddings.cls_token"], tensors["cls_token"])
    packed = torch.cat([weights[f"encoder.layer.1.attention.{part}_proj.weight"] for part in "qkv"])
    assert torch.equal(packed, tensors["blocks.1.attn.qkv.weight"])
    assert not weights["embeddings.mask_token"].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_is_kept(tmp_path, dtype):
    torch.save({name: tensor.to(dtype) for name, tensor in timm_tensors().items()}, tmp_path / "half.pth")
    import_checkpoint(tmp_path / "half.pth", tmp_path / "model")
    assert Dinov2AlibiModel.from_pretrained(tmp_path / "model").dtype == dtype


@pytest.mark.parametrize("prefix", ["model.", "vit."])
def test_the_wrapper_of_a_checkpoint_is_taken_off(tmp_path, prefix):
    torch.save({f"{prefix}{name}": tensor for name, tensor in timm_tensors().items()}, tmp_path / "wrapped.pth")
    assert read_checkpoint(tmp_path / "wrapped.pth").keys() == timm_tensors().keys()


def test_a_prefix_on_some_tensors_only_is_an_error():
    tensors = timm_tensors()
    tensors["model.norm.bias"] = tensors.pop("norm.bias")
    with pytest.raises(ValueError, match=r"missing: norm\.bias; unexpected: model\.norm\.bias"):
        build_model(tensors)


@pytest.mark.parametrize("name", [name for name in timm_tensors() if name != "pos_embed" and name != "reg_token"])
def test_a_missing_tensor_is_named(name):
    tensors = timm_tensors()
    del tensors[name]
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        build_model(tensors)


@pytest.mark.parametrize(
    "name", ["head.weight", "mask_token", "blocks.0.attn.q_norm.weight", "distance_matrix.matrix", "blocks.9.ls1.gamma"]
)
def test_an_unexpected_tensor_is_named(name):
    with pytest.raises(ValueError, match=f"unexpected: {name}|missing: blocks\\.3"):
        build_model(timm_tensors() | {name: torch.zeros(3)})


@pytest.mark.parametrize("name", list(timm_tensors()))
def test_a_misshapen_tensor_is_named(name):
    tensors = timm_tensors()
    tensors[name] = torch.cat([tensors[name], tensors[name][..., :1]], dim=-1)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        build_model(tensors)


def test_learned_slopes_of_one_layer_are_not_enough():
    tensors = timm_tensors(learned=True)
    del tensors["blocks.1.attn.m"]
    with pytest.raises(ValueError, match=r"missing: blocks\.1\.attn\.m"):
        build_model(tensors)


@pytest.mark.parametrize(
    ("learned", "choices"),
    [
        (True, {"alibi_slopes": "constant"}),
        (True, {"alibi_slopes": "geometric"}),
        (True, {"position_encoding": "none"}),
        (False, {"alibi_slopes": "learned"}),
    ],
    ids=str,
)
def test_a_choice_against_the_checkpoint_is_an_error(learned, choices):
    with pytest.raises(ValueError, match=r"blocks\.N\.attn\.m"):
        build_model(timm_tensors(learned=learned), **choices)


def test_a_position_embedding_that_is_not_zero_is_an_error():
    tensors = timm_tensors()
    tensors["pos_embed"][0, 5, 5] = 1e-6
    with pytest.raises(ValueError, match="pos_embed is not zero"):
        build_model(tensors)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_an_error_and_leaves_nothing(tmp_path, checkpoint, share, zipped):
    torch.save(timm_tensors(), checkpoint, _use_new_zipfile_serialization=zipped)
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"best_model\.pth cannot be read as tensors"):
        import_checkpoint(checkpoint, tmp_path / "model")
    assert os.listdir(tmp_path) == [checkpoint.name]


def test_a_text_file_is_an_error(tmp_path):
    (tmp_path / "page.pth").write_text("<!doctype html><title>Not found</title>")
    with pytest.raises(ValueError, match=r"page\.pth cannot be read as tensors"):
        read_checkpoint(tmp_path / "page.pth")


class MakesAFile:
    """Pickled, it would make a file on loading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, zipped):
    trap = tmp_path / "ran"
    torch.save(
        timm_tensors() | {"extra": MakesAFile(trap)}, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(ValueError, match="never loaded"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": timm_tensors(), "epoch": 3}, "holds epoch, state_dict"),
        ([torch.zeros(2)], "holds list"),
        (timm_tensors() | {"norm.bias": torch.full((WIDTH,), float("nan"))}, r"norm\.bias"),
        (timm_tensors() | {"norm.bias": torch.zeros(WIDTH, dtype=torch.int64)}, r"norm\.bias"),
        (timm_tensors() | {"norm.bias": torch.zeros(WIDTH, dtype=torch.float16)}, "mixes torch.float16, torch.float32"),
    ],
    ids=["nested", "list", "nan", "integer", "mixed"],
)
def test_other_content_is_an_error(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "other.pth")


def test_an_empty_checkpoint_is_an_error():
    with pytest.raises(ValueError, match=r"patch_embed\.proj\.weight is missing"):
        build_model({})


def test_an_output_with_something_in_it_is_kept(tmp_path, checkpoint):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        import_checkpoint(checkpoint, tmp_path / "model")
    assert os.listdir(tmp_path / "model") == ["notes.txt"]


def test_the_command_makes_a_folder_or_says_why_not(tmp_path, checkpoint):
    command = [sys.executable, "-m", "training.import_dino_saw", "--checkpoint", str(checkpoint), "--output"]
    run = subprocess.run([*command, str(tmp_path / "model"), "--no-alibi-wrap"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "3 layers of width 128, 4 registers, constant slopes" in run.stdout
    assert not Dinov2AlibiModel.from_pretrained(tmp_path / "model").config.alibi_wrap

    run = subprocess.run(
        [*command, str(tmp_path / "other"), "--alibi-slopes", "learned"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "choose 'constant' or 'geometric'" in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "other").exists()
