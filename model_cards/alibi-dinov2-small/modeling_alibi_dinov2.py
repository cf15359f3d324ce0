# SPDX-License-Identifier: Apache-2.0
"""ALiBi-DINOv2: DINOv2 (with or without registers) with a 2D ALiBi bias instead of the position embedding."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutput,
    BaseModelOutputWithPooling,
    SemanticSegmenterOutput,
)
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import (
    Dinov2WithRegistersAttention,
    Dinov2WithRegistersEncoder,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersLayer,
    Dinov2WithRegistersModel,
    Dinov2WithRegistersPreTrainedModel,
    eager_attention_forward,
)
from transformers.utils.generic import can_return_tuple

from .alibi_bias import GridSize, alibi_slopes, distances_to_bias, pad_prefix
from .attention_alibi_dinov2 import (
    ATTENTION_FUNCTIONS,
    ATTENTION_IMPLEMENTATIONS,
    BLOCKWISE,
    convert_mask,
    merge_masks,
    shared_bias,
    token_distances,
)
from .configuration_alibi_dinov2 import Dinov2AlibiConfig
from .embeddings_alibi_dinov2 import Dinov2AlibiEmbeddings


def learned_slopes(config: Dinov2AlibiConfig, counts: dict[str, int]) -> nn.Parameter | None:
    """The trainable slopes of a module: as many as `counts` has for `alibi_slopes_per`, or none."""
    count = counts.get(config.alibi_slopes_per) if config.alibi_slopes == "learned" else None
    return nn.Parameter(torch.empty(count)) if count else None


class Dinov2AlibiAttention(Dinov2WithRegistersAttention):
    """DINOv2's attention with a bias, `softmax(q kᵀ / √d_head + bias) v`, along any attention path."""

    def __init__(self, config: Dinov2AlibiConfig) -> None:
        super().__init__(config)
        self.alibi_slopes = learned_slopes(config, {"head_and_layer": config.num_attention_heads, "layer": 1})

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        alibi_distances: torch.Tensor | None = None,
        alibi_slopes: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`(B, tokens, D)` -> the same, and the attention weights where the path forms them.

        `alibi_distances`, `(tokens, tokens)`, comes in when the bias differs from layer to layer; a bias that all
        layers share is in `attention_mask` already. `alibi_slopes` are those of a layer that has none of its own.
        """
        slopes = alibi_slopes if self.alibi_slopes is None else self.alibi_slopes
        if slopes is not None:
            slopes = slopes.float().to(hidden_states.device)
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_proj(hidden_states).view(shape).transpose(1, 2)
        key = self.k_proj(hidden_states).view(shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)

        if alibi_distances is not None and slopes is not None:
            if self.config.alibi_jitter:
                prefix = self.config.num_prefix_tokens
                noise = torch.randn_like(alibi_distances[prefix:, prefix:])
                alibi_distances = alibi_distances + self.config.alibi_jitter * pad_prefix(noise, prefix)
            bias = distances_to_bias(alibi_distances, slopes).to(query.dtype)
            attention_mask = merge_masks(bias, attention_mask)
        # Where layer norms are kept in another precision than the projections, so is what the encoder has added up.
        if isinstance(attention_mask, torch.Tensor):
            attention_mask = convert_mask(attention_mask, query.dtype)

        attend = ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            alibi_slopes=slopes,
            **kwargs,
        )
        return self.o_proj(output.reshape((*hidden_states.shape[:-1], -1))), weights


class Dinov2AlibiPreTrainedModel(Dinov2WithRegistersPreTrainedModel):
    config: Dinov2AlibiConfig
    config_class = Dinov2AlibiConfig
    _no_split_modules = ["Dinov2AlibiEmbeddings", "Dinov2WithRegistersLayer"]
    _supports_flash_attn = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Dinov2AlibiEmbeddings):
            init.trunc_normal_(module.cls_token, mean=0.0, std=self.config.initializer_range)
            init.zeros_(module.mask_token)
            init.zeros_(module.register_tokens)
        if isinstance(module, (Dinov2AlibiAttention, Dinov2AlibiEncoder)) and module.alibi_slopes is not None:
            if self.config.alibi_slope is None:
                init.uniform_(module.alibi_slopes, 0.0, 1.0)
            else:
                init.constant_(module.alibi_slopes, self.config.alibi_slope)

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args, **kwargs) -> str:
        if attn_implementation is not None and attn_implementation not in ATTENTION_IMPLEMENTATIONS:
            raise ValueError(
                f"`attn_implementation` is {attn_implementation!r}; ALiBi-DINOv2 supports "
                f"{', '.join(map(repr, ATTENTION_IMPLEMENTATIONS))}. FlashAttention kernels take no attention bias: "
                f"use 'sdpa', or '{BLOCKWISE}' for very large grids."
            )
        if attn_implementation in (BLOCKWISE, "flex_attention") and self.config.alibi_jitter:
            raise ValueError(
                f"`alibi_jitter` is {self.config.alibi_jitter}, but {attn_implementation!r} never holds the distances "
                "that it disturbs. Use attn_implementation='sdpa' or 'eager', or set `alibi_jitter=0`."
            )
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)


class Dinov2AlibiEncoder(Dinov2AlibiPreTrainedModel, Dinov2WithRegistersEncoder):
    """The stack of layers; brings the bias of a grid to them."""

    def __init__(self, config: Dinov2AlibiConfig) -> None:
        # Past the stock constructor, which would mark the encoder as initialised before it has slopes.
        super(Dinov2WithRegistersEncoder, self).__init__(config)
        self.layer = nn.ModuleList([Dinov2WithRegistersLayer(config) for _ in range(config.num_hidden_layers)])
        for layer in self.layer:
            layer.attention = Dinov2AlibiAttention(config)
        self.alibi_slopes = learned_slopes(config, {"head": config.num_attention_heads, "model": 1})
        self.post_init()

    def shared_slopes(self, device: torch.device) -> torch.Tensor | None:
        """The slopes that all layers share, `(1,)` or `(heads,)`, float32; `None` if each layer has its own."""
        config = self.config
        if self.alibi_slopes is not None:
            return self.alibi_slopes.float()
        if config.alibi_slopes == "learned":
            return None
        return alibi_slopes(config.alibi_slopes, config.num_attention_heads, config.alibi_slope, device)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        grid_size: GridSize,
        **kwargs,
    ) -> BaseModelOutput:
        """`hidden_states` `(B, prefix + h·w, D)`, the caller's own 4-D mask if any, and `grid_size` `(h, w)`."""
        config = self.config
        if config.position_encoding == "alibi":
            slopes = self.shared_slopes(hidden_states.device)
            if config._attn_implementation in (BLOCKWISE, "flex_attention"):
                kwargs |= {"grid_size": grid_size, "alibi_slopes": slopes}
            elif slopes is None or config.alibi_jitter:
                distances = token_distances(config, grid_size, hidden_states.device)
                kwargs |= {"alibi_distances": distances, "alibi_slopes": slopes}
            else:
                attention_mask = merge_masks(shared_bias(config, slopes, grid_size, hidden_states), attention_mask)
        return super().forward(hidden_states, attention_mask, **kwargs)


class Dinov2AlibiModel(Dinov2AlibiPreTrainedModel, Dinov2WithRegistersModel):
    """DINOv2's encoder on grids of any size, its patches ordered by a 2D ALiBi bias alone (arXiv 2603.16840).

    A roll of the image by whole patches rolls the patch tokens; nothing depends on where the image begins.
    """

    def __init__(self, config: Dinov2AlibiConfig) -> None:
        # Past the stock constructor, which would build embeddings and layers only to have them replaced.
        super(Dinov2WithRegistersModel, self).__init__(config)
        self.embeddings = Dinov2AlibiEmbeddings(config)
        self.encoder = Dinov2AlibiEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        r"""
        Args:
            pixel_values: `(B, 3, H, W)`, of any floating dtype, normalised; H and W multiples of the patch size.
            bool_masked_pos: `(B, h·w)`, boolean; `True` replaces a patch by the mask token.
            attention_mask: `(B, tokens)`, 0 or `False` for tokens to ignore, or a 4-D mask; added to the bias.

        Returns:
            `BaseModelOutputWithPooling`: `last_hidden_state` `(B, prefix + h·w, D)` and `pooler_output` `(B, D)`, the
            normalised [CLS] token; `hidden_states` and `attentions` (eager only) on request.

        Raises:
            ValueError: the pixels do not fit the patches or are on another device; the message says how to mend them.
        """
        grid_size = self.embeddings.patch_embeddings.grid_size(pixel_values)
        return super().forward(pixel_values, bool_masked_pos, attention_mask, grid_size=grid_size, **kwargs)


class Dinov2AlibiForImageClassification(Dinov2AlibiPreTrainedModel, Dinov2WithRegistersForImageClassification):
    """A linear layer on the [CLS] token beside the mean patch token; `forward` as in the stock class.

    `labels`, of any integer dtype, are `(B,)` classes, or `(B, num_labels)` marks of several classes; with one label,
    or `problem_type="regression"`, they are values.
    """

    def __init__(self, config: Dinov2AlibiConfig) -> None:
        super(Dinov2WithRegistersForImageClassification, self).__init__(config)
        self.num_labels = config.num_labels
        self.dinov2_with_registers = Dinov2AlibiModel(config)
        self.classifier = (
            nn.Linear(config.hidden_size * 2, config.num_labels) if config.num_labels > 0 else nn.Identity()
        )
        self.post_init()

    def loss_function(
        self,
        labels: torch.Tensor,
        logits: torch.Tensor,
        config: Dinov2AlibiConfig,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """The mean of Transformers' loss for classification; see `share_of_batch` for `num_items_in_batch`."""
        values = labels.is_floating_point() or labels.shape == logits.shape or config.num_labels == 1
        if config.problem_type == "single_label_classification" or (config.problem_type is None and not values):
            labels = class_indices(labels)
        elif not labels.is_floating_point():
            labels = labels.float()
        return share_of_batch(super().loss_function(labels, logits, config), labels, num_items_in_batch)


class Dinov2AlibiForSemanticSegmentation(Dinov2AlibiPreTrainedModel):
    """The paper's linear segmentation head: batch norm, dropout and a 1×1 convolution on the patch features."""

    def __init__(self, config: Dinov2AlibiConfig) -> None:
        super().__init__(config)
        self.dinov2_with_registers = Dinov2AlibiModel(config)
        self.batch_norm = nn.BatchNorm2d(config.hidden_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Conv2d(config.hidden_size, config.num_labels, kernel_size=1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> SemanticSegmenterOutput:
        r"""
        Args:
            pixel_values: `(B, 3, H, W)`, as for `Dinov2AlibiModel`.
            labels: `(B, H, W)`, classes in `[0, num_labels)` of any integer dtype; `semantic_loss_ignore_index` is left
                out, and where no other label is left, the loss is 0.
            attention_mask: as for `Dinov2AlibiModel`.
            num_items_in_batch: see `share_of_batch`.

        Returns:
            `SemanticSegmenterOutput`: `logits` `(B, num_labels, H, W)`, upsampled bilinearly from the patches, and the
            cross entropy as `loss` when there are labels.

        Raises:
            ValueError: the labels have another shape or size than the pixels, or are no integers.
        """
        size = pixel_values.shape[-2:]
        if labels is not None:
            labels = class_indices(labels)
            if self.config.num_labels < 2:
                raise ValueError(
                    f"`num_labels` is {self.config.num_labels}; there is nothing to learn unless there are 2 classes "
                    "or more, of which one may be the background."
                )
            if labels.ndim != 3 or labels.shape[-2:] != size:
                raise ValueError(
                    f"`labels` has shape {tuple(labels.shape)} and size {tuple(labels.shape[-2:])}, the pixels "
                    f"{tuple(size)}. Pass one (height, width) map for each image; resize it with nearest-neighbour "
                    "interpolation, or pass pixels of its size."
                )
        outputs = self.dinov2_with_registers(pixel_values, attention_mask=attention_mask, **kwargs)
        grid_size = self.dinov2_with_registers.embeddings.patch_embeddings.grid_size(pixel_values)
        features = tokens_to_map(outputs.last_hidden_state, self.config.num_prefix_tokens, grid_size)
        logits = self.classifier(self.dropout(self.batch_norm(features)))
        logits = nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)

        loss = None
        if labels is not None:
            labels, ignored = labels.to(logits.device), self.config.semantic_loss_ignore_index
            loss = nn.functional.cross_entropy(logits.float(), labels, ignore_index=ignored, reduction="sum")
            loss = share_of_batch(loss / labels.ne(ignored).sum().clamp(min=1), labels, num_items_in_batch)
        return SemanticSegmenterOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class Dinov2AlibiBackbone(BackboneMixin, Dinov2AlibiPreTrainedModel):
    """Feature maps of chosen stages, for DETR, MaskFormer and their like."""

    def __init__(self, config: Dinov2AlibiConfig) -> None:
        super().__init__(config)
        self.num_features = [config.hidden_size for _ in range(config.num_hidden_layers + 1)]
        self.embeddings = Dinov2AlibiEmbeddings(config)
        self.encoder = Dinov2AlibiEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self, pixel_values: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> BackboneOutput:
        r"""
        Args:
            pixel_values: `(B, 3, H, W)`, as for `Dinov2AlibiModel`.
            attention_mask: as for `Dinov2AlibiModel`.

        Returns:
            `BackboneOutput` whose `feature_maps` are one `(B, D, h, w)` per stage of `out_features`, normalised by the
            last layer norm if `apply_layernorm`; `(B, prefix + h·w, D)` unless `reshape_hidden_states`.
        """
        grid_size = self.embeddings.patch_embeddings.grid_size(pixel_values)
        embeddings = self.embeddings(pixel_values)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=embeddings, attention_mask=attention_mask)
        output = self.encoder(embeddings, attention_mask=mask, grid_size=grid_size, **kwargs)
        feature_maps = []
        for stage, hidden_state in zip(self.stage_names, output.hidden_states, strict=True):
            if stage in self.out_features:
                if self.config.apply_layernorm:
                    hidden_state = self.layernorm(hidden_state)
                if self.config.reshape_hidden_states:
                    hidden_state = tokens_to_map(hidden_state, self.config.num_prefix_tokens, grid_size)
                feature_maps.append(hidden_state)
        return BackboneOutput(
            feature_maps=tuple(feature_maps), hidden_states=output.hidden_states, attentions=output.attentions
        )


def class_indices(labels: torch.Tensor) -> torch.Tensor:
    """Classes of any integer dtype, or boolean, as the int64 that the cross entropy takes.

    Raises:
        ValueError: the labels are floating.
    """
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"`labels` has dtype {labels.dtype}; classes must be integers. Convert them: `labels.long()`.")
    return labels.long()


def share_of_batch(
    mean_loss: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """The part that these labels have in the mean loss of a batch that comes in several pieces.

    `Trainer` accumulates gradients by adding up the losses of the pieces, and tells each piece how many labels there
    are in all, as `num_items_in_batch`; -100 does not count. Without that number the mean is returned as it is.
    """
    if num_items_in_batch is None:
        return mean_loss
    if isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(mean_loss.device)
    return mean_loss * labels.ne(-100).sum() / num_items_in_batch


def tokens_to_map(tokens: torch.Tensor, num_prefix_tokens: int, grid_size: GridSize) -> torch.Tensor:
    """Patch tokens `(B, prefix + h·w, D)` as a map `(B, D, h, w)`."""
    return tokens[:, num_prefix_tokens:].unflatten(1, grid_size).permute(0, 3, 1, 2).contiguous()


__all__ = [
    "Dinov2AlibiBackbone",
    "Dinov2AlibiForImageClassification",
    "Dinov2AlibiForSemanticSegmentation",
    "Dinov2AlibiModel",
    "Dinov2AlibiPreTrainedModel",
]
