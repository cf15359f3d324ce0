# SPDX-License-Identifier: Apache-2.0
"""The models of the paper's table 1 (arXiv 2603.16840), by short names that every `--model` takes."""

MODELS = {
    "dino-s": "facebook/dino-vits16",
    "dino-b": "facebook/dino-vitb16",
    "dinov2-s": "facebook/dinov2-small",
    "dinov2-b": "facebook/dinov2-base",
    "dinov2-s-registers": "facebook/dinov2-with-registers-small",
    "dinov2-b-registers": "facebook/dinov2-with-registers-base",
    "dinov3-s-plus": "facebook/dinov3-vits16plus-pretrain-lvd1689m",
    "mae-b": "facebook/vit-mae-base",
    "sam-b": "facebook/sam-vit-base",
    "vit-b": "google/vit-base-patch16-224",
    "deit-b": "facebook/deit-base-patch16-224",
    "deit-b-distilled": "facebook/deit-base-distilled-patch16-224",
    "clip-b": "openai/clip-vit-base-patch16",
    "eva02-b": "timm/eva02_base_patch14_224.mim_in22k",  # needs timm
}
