# SPDX-License-Identifier: Apache-2.0
"""Where vision models keep their patch tokens, and what each must be told to give them all, in order, at any size."""

import inspect
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from transformers import AutoImageProcessor, BaseImageProcessor, BitImageProcessorPil, PreTrainedConfig, PreTrainedModel

from modeling_alibi_dinov2.configuration_alibi_dinov2 import as_pair

VISION_TOWERS = ("vision_model", "vision_encoder")  # of CLIP and its kind, and of SAM
# Parameters of the tokens before the patches, by the last part of their names, in Transformers and in timm.
PREFIX_PARAMETERS = ("cls_token", "class_embedding", "distillation_token", "dist_token", "register_tokens", "reg_token")


def prepare_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration, changed in place where a model would not give all patches, or only those of one image size."""
    if config.model_type == "vit_mae":
        config.mask_ratio = 0.0
    if config.model_type == "timm_wrapper":
        config.model_args = {"dynamic_img_size": True} | (config.model_args or {})
    return config


def load_processor(source: str, config: PreTrainedConfig) -> BaseImageProcessor:
    """The image processor of a model or, where Transformers has none without torchvision, one of its mean and standard
    deviation; nothing else of it is used."""
    if config.model_type == "timm_wrapper":
        statistics = config.pretrained_cfg
        return BitImageProcessorPil(image_mean=list(statistics["mean"]), image_std=list(statistics["std"]))
    if config.model_type == "dinov3_vit":
        return BitImageProcessorPil.from_pretrained(source)
    return AutoImageProcessor.from_pretrained(source, backend="pil")


def vision_tower(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a model that sees images, such as CLIP's vision model or SAM's encoder; mostly the model itself."""
    for name in VISION_TOWERS:
        if isinstance(tower := getattr(model, name, None), PreTrainedModel):
            return tower
    return model


def patch_size_of(model: PreTrainedModel) -> tuple[int, int]:
    """Height and width of a patch in pixels.

    Raises:
        ValueError: the model has no patch size.
    """
    holder = model.config
    if holder.model_type == "timm_wrapper":
        holder = getattr(model.timm_model, "patch_embed", None)
    patch_size = getattr(holder, "patch_size", None)
    if patch_size is None:
        raise ValueError(
            f"{type(model).__name__} has no patch_size; dense features need a model that cuts images into patches."
        )
    return as_pair(patch_size)


def stride_of(model: PreTrainedModel) -> tuple[int, int]:
    """How many pixels patches lie below and beside each other: `patch_stride` of the model's configuration, or the
    patch's own height and width, as in most models; raises what `patch_size_of` raises."""
    stride = getattr(model.config, "patch_stride", None)
    return patch_size_of(model) if stride is None else as_pair(stride)


def prefix_tokens(model: PreTrainedModel) -> int:
    """How many tokens come before the patches: [CLS], registers, DeiT's distillation token; 0 if there is none."""
    return sum(
        parameter.numel() // parameter.shape[-1]
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[2] in PREFIX_PARAMETERS
    )


def patch_maps(
    model: PreTrainedModel, pixel_values: torch.Tensor, layers: bool = False
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """Pixels `(B, 3, H, W)` -> the patch tokens of the model's output, and of its layers if asked for, `(B, h, w, D)`.

    The output is normalised by the model's last norm. SAM's is that of its neck: 256 channels, normalised as well.

    Args:
        model: from `vision_tower`, its configuration from `prepare_config`.
        pixel_values: sides are multiples of the patch's.
        layers: whether to give the hidden states too, by number: 0 is the embeddings (timm gives none), n the output
            of the n-th layer.

    Raises:
        ValueError: the model gives other than one token per patch after its prefix tokens.
    """
    outputs = forward(model, pixel_values, **({"output_hidden_states": True} if layers else {}))
    output, hidden_states, first = outputs.last_hidden_state, outputs.hidden_states or (), 0
    match model.config.model_type:
        case "clip_vision_model":
            # CLIP itself normalises [CLS] only.
            output = model.post_layernorm(output)
        case "sam_vision_model":
            output = output.movedim(1, -1)
        case "timm_wrapper":
            hidden_states, first = [state.movedim(1, -1) for state in hidden_states], 1
    # Found once, not for every layer: it goes through all parameters.
    grid, prefix = grid_of(model, pixel_values), prefix_tokens(model)
    maps = {number: as_map(model, state, grid, prefix) for number, state in enumerate(hidden_states, first)}
    return as_map(model, output, grid, prefix), maps


def grid_of(model: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[int, int]:
    """Rows and columns of patches of `(B, 3, H, W)` pixels; with a stride below their size patches overlap."""
    rows, columns = (
        (side - patch) // stride + 1
        for side, patch, stride in zip(pixel_values.shape[-2:], patch_size_of(model), stride_of(model), strict=True)
    )
    return rows, columns


def forward(model: PreTrainedModel, pixel_values: torch.Tensor, **options: Any):
    """The model's output for any image size, with all patches in order."""
    if model.config.model_type == "sam_vision_model":
        return forward_sam(model, pixel_values, **options)
    if model.config.model_type == "vit_mae":
        # Patches are shuffled by sorting this, even when none is masked.
        rows, columns = grid_of(model, pixel_values)
        options["noise"] = torch.arange(rows * columns, device=pixel_values.device).expand(len(pixel_values), -1)
    if "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
        options["interpolate_pos_encoding"] = True
    return model(pixel_values=pixel_values, **options)


def forward_sam(model: PreTrainedModel, pixel_values: torch.Tensor, **options: Any):
    """SAM's encoder resizes the relative positions of its attention to the image, but refuses all sizes save its own
    because of its absolute positions; here these are resized too, as other models do."""
    model.patch_embed.image_size = tuple(pixel_values.shape[-2:])
    grid = grid_of(model, pixel_values)
    replaced = {}
    if model.pos_embed is not None and model.pos_embed.shape[1:3] != grid:
        channels_first = model.pos_embed.movedim(-1, 1)
        replaced["pos_embed"] = nn.functional.interpolate(channels_first, grid, mode="bicubic").movedim(1, -1)
    return functional_call(model, replaced, (pixel_values,), options)


def as_map(model: PreTrainedModel, tokens: torch.Tensor, grid: tuple[int, int], prefix: int) -> torch.Tensor:
    """Tokens `(B, prefix + h·w, D)`, or a map `(B, h, w, D)` already -> map `(B, h, w, D)`."""
    if tokens.ndim == 4 and tokens.shape[1:3] == grid:
        return tokens
    patches = grid[0] * grid[1]
    if tokens.ndim != 3 or tokens.shape[1] != prefix + patches:
        raise ValueError(
            f"{type(model).__name__} gave an output of shape {tuple(tokens.shape)} for {grid[0]}×{grid[1]} patches "
            f"and {prefix} prefix tokens; dense features need one token per patch."
        )
    return tokens[:, prefix:].unflatten(1, grid)
