# SPDX-License-Identifier: Apache-2.0
"""Convert a checkpoint of "What DINO saw" (tldr-group/dino-saw) to a model folder.

    python -m training.import_dino_saw --checkpoint alibi_dv2_vits14_reg4.pth --output alibi-dinov2

The folder loads with `Dinov2AlibiModel.from_pretrained`; `training.export` makes a Hub folder of it.

A checkpoint is the plain state dict of timm's `vit_small_patch14_reg4_dinov2`, without a configuration: whether the
distances were wrapped and normalised, and whether a model without learned slopes has constant ones or no bias at all,
is for its user to know and to choose here. The defaults are those of the published `alibi_…` models; for `nope_…` give
`--position-encoding none`. Learned slopes are in the checkpoint, as `blocks.N.attn.m`, and are recognised.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

from alibi_dinov2.command import run
from alibi_dinov2.features.weights import HEAD_DIM, require_same_tensors
from alibi_dinov2.io.files import new_folder, require_new_folder, sha256_of
from modeling_alibi_dinov2 import Dinov2AlibiConfig, Dinov2AlibiImageProcessor, Dinov2AlibiModel
from modeling_alibi_dinov2.configuration_alibi_dinov2 import SLOPES
from training.create_student import add_bias_arguments
from training.pth_files import read_pth

# A checkpoint is saved from the transformer itself, or from a wrapper that calls it `model` (early) or `vit`.
WRAPPER_PREFIXES = ("model.", "vit.")
POSITION_EMBEDDING = "pos_embed"
SLOPES_SUFFIX = ".attn.m"
NAMES_SHOWN = 8

# timm's names, and the model's names for the same tensors.
ROOT_NAMES = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
LAYER_NAMES = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attn.proj.weight": "attention.o_proj.weight",
    "attn.proj.bias": "attention.o_proj.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "ls2.gamma": "layer_scale2.lambda1",
}


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.pth` file, under timm's names; no code in the file is run.

    Raises:
        ValueError: the file is damaged, holds more than tensors, or tensors that are no finite floating numbers of one
            dtype.
        FileNotFoundError: there is no such file.
    """
    content = read_pth(path)
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        found = sorted(map(str, content)) if isinstance(content, Mapping) else [type(content).__name__]
        raise ValueError(
            f"{path} holds {shortened(found)}; it must be a flat state dict, names to tensors. Save the bare "
            "`model.state_dict()`."
        )
    for name, tensor in content.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(f"{path}: {name} ({tensor.dtype}) must be floating, without NaN or infinite values.")
    dtypes = {tensor.dtype for tensor in content.values()}
    if len(dtypes) > 1:
        raise ValueError(f"{path} mixes {', '.join(sorted(map(str, dtypes)))}; convert all tensors to one dtype.")
    return without_prefix(dict(content))


def without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without the name of the wrapper, if all of them have it."""
    for prefix in WRAPPER_PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def config_of(
    tensors: Mapping[str, torch.Tensor],
    *,
    position_encoding: str = "alibi",
    alibi_slopes: str | None = None,
    **bias,
) -> Dinov2AlibiConfig:
    """The architecture that the tensors' shapes tell, with the bias that was chosen.

    Args:
        tensors: under timm's names.
        position_encoding: `"alibi"`, or `"none"` for the NoPE baseline.
        alibi_slopes: `"constant"`, `"geometric"` (called `fixed` in dino-saw) or `"learned"`. `None` is `"learned"`
            where the checkpoint has slopes, else `"constant"`.
        bias: other fields of `Dinov2AlibiConfig`, such as `alibi_wrap`.

    Raises:
        ValueError: a tensor that tells the architecture is missing or of another rank, or the choices contradict the
            checkpoint.
    """
    learned = any(name.endswith(SLOPES_SUFFIX) for name in tensors)
    if position_encoding == "none" and learned:
        raise ValueError(
            f"The checkpoint has learned slopes (`blocks.N{SLOPES_SUFFIX}`), so it has a bias; "
            "`position_encoding` must be 'alibi', not 'none'."
        )
    if alibi_slopes is not None and learned != (alibi_slopes == "learned"):
        raise ValueError(
            f"`alibi_slopes` is {alibi_slopes!r}, but the checkpoint has {'' if learned else 'no '}learned slopes "
            f"(`blocks.N{SLOPES_SUFFIX}`). Leave the choice to the checkpoint, or choose "
            + ("'learned'." if learned else "'constant' or 'geometric'.")
        )
    width, channels, patch_size, _ = shape_of(tensors, "patch_embed.proj.weight", 4)
    hidden, _ = shape_of(tensors, "blocks.0.mlp.fc1.weight", 2)
    if width % HEAD_DIM or hidden % width:
        raise ValueError(
            f"The checkpoint has width {width} and {hidden} hidden units; the width of a DINOv2 is a multiple of "
            f"{HEAD_DIM}, and the hidden units of its blocks are a multiple of the width (SwiGLU cannot be converted)."
        )
    return Dinov2AlibiConfig(
        hidden_size=width,
        num_hidden_layers=len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
        num_attention_heads=width // HEAD_DIM,
        mlp_ratio=hidden // width,
        num_channels=channels,
        patch_size=patch_size,
        num_register_tokens=shape_of(tensors, "reg_token", 3)[1] if "reg_token" in tensors else 0,
        position_encoding=position_encoding,
        alibi_slopes=alibi_slopes or ("learned" if learned else "constant"),
        **bias,
    )


def shape_of(tensors: Mapping[str, torch.Tensor], name: str, rank: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there and have `rank` dimensions, else a `ValueError`."""
    if name not in tensors or tensors[name].ndim != rank:
        found = f"is of shape {tuple(tensors[name].shape)}" if name in tensors else "is missing"
        raise ValueError(
            f"{name} {found}; it must be there with {rank} dimensions. Convert a checkpoint of timm's "
            f"vit_*_patch14_reg4_dinov2; this one has {shortened(sorted(tensors)) or 'no tensors'}."
        )
    return tuple(tensors[name].shape)


def checkpoint_shapes(config: Dinov2AlibiConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that a checkpoint of this configuration has, under timm's names; no position embedding."""
    width, hidden = config.hidden_size, config.hidden_size * config.mlp_ratio
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "patch_embed.proj.weight": (width, config.num_channels, *config.patch_shape),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    if config.num_register_tokens:
        shapes["reg_token"] = (1, config.num_register_tokens, width)
    layer = dict.fromkeys(LAYER_NAMES, (width,)) | {
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width, hidden),
    }
    if config.alibi_slopes == "learned":
        layer["attn.m"] = (config.num_attention_heads, 1, 1)
    for index in range(config.num_hidden_layers):
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in layer.items()}
    return shapes


def require_tensors(tensors: Mapping[str, torch.Tensor], config: Dinov2AlibiConfig) -> None:
    """Raise a `ValueError` unless these are exactly the tensors of a checkpoint of this configuration.

    A position embedding may be there if it is zero, as the authors' training leaves it: it then adds nothing.
    """
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = checkpoint_shapes(config)
    if POSITION_EMBEDDING in tensors:
        number = found[POSITION_EMBEDDING][1] if len(found[POSITION_EMBEDDING]) == 3 else 0
        expected[POSITION_EMBEDDING] = (1, number, config.hidden_size)
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "misshapen": [
            f"{name} {found[name]} instead of {shape}"
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ],
    }
    if any(problems.values()):
        raise ValueError(
            f"The checkpoint has not the tensors of a DINOv2 of width {config.hidden_size} and "
            f"{config.num_hidden_layers} blocks, as timm names them. "
            + "; ".join(f"{kind}: {shortened(names)}" for kind, names in problems.items() if names)
            + ". Nothing is dropped or guessed: DINOv3, SwiGLU and models without [CLS] cannot be converted."
        )
    if POSITION_EMBEDDING in tensors and tensors[POSITION_EMBEDDING].any():
        raise ValueError(
            f"{POSITION_EMBEDDING} is not zero: the checkpoint adds a learned or sinusoidal position embedding to its "
            "input, which ALiBi-DINOv2 has not. Convert a checkpoint that was trained without one."
        )


def shortened(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def model_weights(tensors: Mapping[str, torch.Tensor], config: Dinov2AlibiConfig) -> dict[str, torch.Tensor]:
    """The state dict of `Dinov2AlibiModel` from tensors that passed `require_tensors`.

    timm's models have no mask token: it is zero here. Their [CLS] token, where there are registers, contains DINOv2's
    position embedding of [CLS], and is taken as it is.
    """
    token = tensors["cls_token"]
    weights = {
        "embeddings.mask_token": token.new_zeros(1, config.hidden_size),
        "embeddings.register_tokens": token.new_zeros(1, 0, config.hidden_size),
    }
    weights |= {ours: tensors[timm] for timm, ours in ROOT_NAMES.items() if timm in tensors}
    for index in range(config.num_hidden_layers):
        block, layer = f"blocks.{index}", f"encoder.layer.{index}"
        weights |= {f"{layer}.{ours}": tensors[f"{block}.{timm}"] for timm, ours in LAYER_NAMES.items()}
        for kind in ("weight", "bias"):
            parts = tensors[f"{block}.attn.qkv.{kind}"].chunk(3)
            weights |= {
                f"{layer}.attention.{part}_proj.{kind}": tensor for part, tensor in zip("qkv", parts, strict=True)
            }
        if config.alibi_slopes == "learned":
            weights[f"{layer}.attention.alibi_slopes"] = tensors[f"{block}{SLOPES_SUFFIX}"].flatten()
    return weights


def build_model(tensors: Mapping[str, torch.Tensor], **bias) -> Dinov2AlibiModel:
    """The model with exactly these tensors, in their dtype and in evaluation mode.

    Args:
        tensors: under timm's names, from `read_checkpoint`.
        bias: choices of the bias, as for `config_of`.

    Raises:
        ValueError: tensors are missing, unexpected or misshapen, the position embedding is not zero, or the choices
            contradict the checkpoint.
    """
    config = config_of(tensors, **bias)
    require_tensors(tensors, config)
    weights = model_weights(tensors, config)
    model = Dinov2AlibiModel(config).to(tensors["cls_token"].dtype)
    model.load_state_dict(weights, strict=True)
    return model.eval()


def import_checkpoint(checkpoint: str | Path, output: str | Path, **bias) -> Dinov2AlibiModel:
    """Checkpoint -> model folder with weights, configuration and image processor, verified by reloading.

    Args:
        checkpoint: the `.pth` file.
        output: the folder to make.
        bias: choices of the bias, as for `config_of`.

    Returns:
        The converted model.

    Raises:
        ValueError: the checkpoint is damaged, of another architecture, or contradicts the choices.
        FileNotFoundError: there is no such checkpoint.
        FileExistsError: `output` is a folder with something in it.
    """
    require_new_folder(output)
    model = build_model(read_checkpoint(checkpoint), **bias)
    with new_folder(output) as folder:
        model.save_pretrained(folder)
        Dinov2AlibiImageProcessor(patch_size=model.config.patch_shape[0]).save_pretrained(folder)
        require_same_tensors(Dinov2AlibiModel.from_pretrained(folder), model, "The saved model")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, help="the authors' .pth file")
    parser.add_argument("--output", required=True, type=Path, help="folder to make")
    parser.add_argument("--alibi-slopes", choices=SLOPES, help="by default learned if the checkpoint has slopes")
    add_bias_arguments(parser)

    def command(arguments: argparse.Namespace) -> None:
        choices = dict(vars(arguments))
        checkpoint, output = choices.pop("checkpoint"), choices.pop("output")
        config = import_checkpoint(checkpoint, output, **choices).config
        bias = f"{config.alibi_slopes} slopes" if config.position_encoding == "alibi" else "no bias"
        print(
            f"{output}: {config.num_hidden_layers} layers of width {config.hidden_size}, {config.num_register_tokens} "
            f"registers, {bias}, from {checkpoint} (sha256 {sha256_of(checkpoint)})"
        )

    run(parser, command)


if __name__ == "__main__":
    main()
