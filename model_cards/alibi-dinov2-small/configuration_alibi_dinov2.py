# SPDX-License-Identifier: Apache-2.0
"""Configuration of ALiBi-DINOv2."""

from .transformers_version import MINIMUM_TRANSFORMERS  # noqa: F401  # isort: skip  (must come first)

from huggingface_hub.dataclasses import strict
from transformers.models.dinov2_with_registers.configuration_dinov2_with_registers import Dinov2WithRegistersConfig

POSITION_ENCODINGS = ("alibi", "none")
METRICS = ("euclidean", "manhattan")
SLOPES = ("constant", "geometric", "learned")
SLOPES_PER = ("head_and_layer", "head", "layer", "model")


@strict
class Dinov2AlibiConfig(Dinov2WithRegistersConfig):
    r"""Configuration of [`Dinov2AlibiModel`]: every field of `Dinov2WithRegistersConfig`, and the choice of bias.

    The defaults describe the published model of "What DINO saw" (arXiv 2603.16840, section 4): Euclidean distances on
    a torus, divided by the largest distance of the grid, with slope 1 in every head of every layer.

    Args:
        patch_size (`int` or pair of `int`, defaults to 14):
            Side of a patch in pixels.
        patch_stride (`int`, pair of `int` or `None`, defaults to `None`):
            Step between neighbouring patches in pixels; it must divide `patch_size`. `None` means `patch_size`, the
            model's usual grid. A smaller step gives overlapping patches, hence a finer grid, from the same weights.
        num_register_tokens (`int`, defaults to 4):
            Number of register tokens, 0 or more.
        position_encoding (`"alibi"` or `"none"`, defaults to `"alibi"`):
            `"none"` is the paper's NoPE baseline: neither an embedding nor a bias.
        alibi_metric (`"euclidean"` or `"manhattan"`, defaults to `"euclidean"`):
            Distance between two patches of the grid.
        alibi_wrap (`bool`, defaults to `True`):
            Whether opposite borders of the grid are neighbours (a torus).
        alibi_normalize (`bool`, defaults to `True`):
            Whether distances are divided by the largest one of the grid. The slope per patch then depends on the grid:
            keep the tile size fixed when a large image is tiled.
        alibi_slopes (`"constant"`, `"geometric"` or `"learned"`, defaults to `"constant"`):
            One fixed number for every head and layer; `2^(-8(k+1)/H)` for head `k` of `H`; or trainable numbers, which
            may become negative: a head then prefers what is far away.
        alibi_slopes_per (`"head_and_layer"`, `"head"`, `"layer"` or `"model"`, defaults to `"head_and_layer"`):
            What has a learned slope of its own. With one per model the learned bias costs no more than the constant
            one; with one per head or layer the forward has a bias for each.
        alibi_slope (`float` or `None`, defaults to `None`):
            The constant slope, `None` for the published 1; or where learned slopes start, `None` for random numbers
            from [0, 1), as published. A saved model has its learned slopes among its weights.
        alibi_jitter (`float`, defaults to 0.0):
            Standard deviation of the noise added to the distances, drawn afresh in each layer (for analysis only).
        classifier_dropout (`float`, defaults to 0.1):
            Dropout probability of the segmentation head.
        semantic_loss_ignore_index (`int`, defaults to 255):
            Label that the segmentation loss ignores.

    Raises:
        StrictDataclassError: (of `huggingface_hub.errors`) a field has a value that is not allowed, or two fields
            contradict each other; the message names the field, its value and the allowed ones.
    """

    model_type = "dinov2_alibi"

    patch_size: int | list[int] | tuple[int, int] = 14
    patch_stride: int | list[int] | tuple[int, int] | None = None
    position_encoding: str = "alibi"
    alibi_metric: str = "euclidean"
    alibi_wrap: bool = True
    alibi_normalize: bool = True
    alibi_slopes: str = "constant"
    alibi_slopes_per: str = "head_and_layer"
    alibi_slope: float | int | None = None
    alibi_jitter: float | int = 0.0
    classifier_dropout: float | int = 0.1
    semantic_loss_ignore_index: int = 255

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        return as_pair(self.patch_size)

    @property
    def stride_shape(self) -> tuple[int, int]:
        """Vertical and horizontal step between patches in pixels."""
        return as_pair(self.patch_size if self.patch_stride is None else self.patch_stride)

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the first patch: [CLS] and the registers."""
        return 1 + self.num_register_tokens

    def validate_choices(self):
        for name, allowed in (
            ("position_encoding", POSITION_ENCODINGS),
            ("alibi_metric", METRICS),
            ("alibi_slopes", SLOPES),
            ("alibi_slopes_per", SLOPES_PER),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}.")

    def validate_ranges(self):
        if self.num_register_tokens < 0:
            raise ValueError(
                f"`num_register_tokens` is {self.num_register_tokens}; it must be 0 (no registers) or more."
            )
        if not 0 <= self.alibi_jitter < float("inf"):
            raise ValueError(f"`alibi_jitter` is {self.alibi_jitter}; it must be 0 (no noise) or a positive number.")
        if self.alibi_slope is not None and not -float("inf") < self.alibi_slope < float("inf"):
            raise ValueError(f"`alibi_slope` is {self.alibi_slope}; it must be a finite number, or None.")
        if not 0 <= self.classifier_dropout <= 1:
            raise ValueError(f"`classifier_dropout` is {self.classifier_dropout}; it must lie in [0, 1].")
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`num_attention_heads` is {self.num_attention_heads}; it must divide `hidden_size`, which is "
                f"{self.hidden_size}."
            )

    def validate_patches(self):
        for axis, patch, stride in zip(("height", "width"), self.patch_shape, self.stride_shape, strict=True):
            if patch < 1:
                raise ValueError(f"`patch_size` has {axis} {patch}; it must be 1 pixel or more.")
            if not 1 <= stride <= patch or patch % stride:
                divisors = [step for step in range(1, patch + 1) if patch % step == 0]
                raise ValueError(
                    f"`patch_stride` has {axis} {stride}; it must divide the patch's {patch} pixels, that is, be one "
                    f"of {divisors}."
                )

    def validate_slopes(self):
        if self.alibi_slopes != "learned" and self.alibi_slopes_per != "head_and_layer":
            raise ValueError(
                f"`alibi_slopes_per` is {self.alibi_slopes_per!r}, which is of learned slopes, but `alibi_slopes` is "
                f"{self.alibi_slopes!r}. Set `alibi_slopes='learned'`, or leave it at 'head_and_layer'."
            )
        if self.alibi_slopes == "geometric" and self.alibi_slope is not None:
            raise ValueError(
                f"`alibi_slope` is {self.alibi_slope}, but geometric slopes follow from the number of heads. Leave it "
                "at None, or choose `alibi_slopes='constant'` or 'learned'."
            )

    def validate_position_encoding(self):
        given = self.alibi_slopes != "constant" or self.alibi_slope is not None or self.alibi_jitter
        if self.position_encoding == "none" and given:
            raise ValueError(
                f"`position_encoding` is 'none', which has no bias, but `alibi_slopes` is {self.alibi_slopes!r}, "
                f"`alibi_slope` is {self.alibi_slope} and `alibi_jitter` is {self.alibi_jitter}. Set "
                "`position_encoding='alibi'`, or leave the three at 'constant', None and 0."
            )


def as_pair(value: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """Read `value` as (height, width); a single number stands for both."""
    if isinstance(value, int):
        return value, value
    if len(value) != 2:
        raise ValueError(f"Expected one number or a (height, width) pair, got {value!r}.")
    return value[0], value[1]


__all__ = ["Dinov2AlibiConfig"]
