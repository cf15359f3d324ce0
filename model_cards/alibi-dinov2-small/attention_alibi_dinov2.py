# SPDX-License-Identifier: Apache-2.0
"""How the bias reaches the attention: one tensor a forward for eager and SDPA, coordinates for blockwise and flex."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import compile_friendly_flex_attention
from transformers.masking_utils import sdpa_mask
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import Dinov2WithRegistersAttention

from .alibi_bias import (
    GridSize,
    combine_axes,
    distances_to_bias,
    largest_distance,
    pad_prefix,
    patch_distances,
)
from .configuration_alibi_dinov2 import Dinov2AlibiConfig

BLOCKWISE = "alibi_blockwise"
ATTENTION_IMPLEMENTATIONS = ("sdpa", "eager", BLOCKWISE, "flex_attention")

# The bias of a block. Small enough that the allocator reuses the memory of the block before (glibc returns 32 MiB and
# more to the system at once, and fetching it anew takes longer than the arithmetic), large enough that the kernel works
# on whole tiles of queries.
BLOCK_BYTES = 16 * 2**20

# With a bias beside its activations a forward pass of 518 px outgrows what glibc keeps of freed memory, and each layer
# fetches its pages anew (8 % of the time). Freeing a block of just under 32 MiB, no page of which is touched, makes
# glibc keep up to twice as much from then on.
KEPT_BYTES = 31 * 2**20


def shared_bias(
    config: Dinov2AlibiConfig, slopes: torch.Tensor, grid_size: GridSize, hidden_states: torch.Tensor
) -> torch.Tensor:
    """The bias that all layers share, `(1, 1 or heads, tokens, tokens)`, in the dtype of the queries to come.

    Args:
        slopes: `(1,)` or `(heads,)`, float32.
        hidden_states: what the first layer gets.

    It lives as long as one forward pass: building it takes less than a hundredth of that, and a bias that outlived the
    pass would hold gigabytes for large images.
    """
    device = hidden_states.device
    autocast = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else hidden_states.dtype
    return distances_to_bias(token_distances(config, grid_size, device), slopes).to(dtype)


def token_distances(config: Dinov2AlibiConfig, grid_size: GridSize, device: torch.device) -> torch.Tensor:
    """Distances between all tokens of a grid, `(tokens, tokens)`, float32; 0 to and from prefix tokens."""
    if device.type == "cpu":
        torch.empty(KEPT_BYTES, dtype=torch.uint8)
    return pad_prefix(config_distances(config, grid_size, device=device), config.num_prefix_tokens)


def query_blocks(num_patches: int, bytes_per_query: int) -> Iterator[slice]:
    """Cut the patches into runs of queries whose bias stays within `BLOCK_BYTES` (one query at least)."""
    step = max(1, BLOCK_BYTES // bytes_per_query)
    for start in range(0, num_patches, step):
        yield slice(start, min(start + step, num_patches))


def alibi_blockwise_attention_forward(
    module: Dinov2WithRegistersAttention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    grid_size: GridSize | None = None,
    alibi_slopes: torch.Tensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Exact attention in blocks of queries through SDPA; memory grows with the tokens, not with their square.

    Args:
        query, key, value: `(B, heads, tokens, head_dim)`.
        attention_mask: `None`, or the caller's own mask, broadcastable to `(B, heads, tokens, tokens)`.
        grid_size: rows and columns of patches; `None` for a model without bias.
        alibi_slopes: of this layer, `(heads,)` or `(1,)`, float32; needed with a bias.

    Returns:
        The output `(B, tokens, heads, head_dim)`, and `None` for the weights, which are never formed.
    """
    prefix = module.config.num_prefix_tokens
    num_patches = query.shape[2] - prefix

    def attend(block: slice, slopes: torch.Tensor | None) -> torch.Tensor:
        tokens = slice(block.start + prefix, block.stop + prefix)
        mask = None if attention_mask is None else mask_rows(attention_mask, tokens)
        if slopes is not None and grid_size is not None:
            distances = config_distances(module.config, grid_size, device=query.device, queries=block)
            bias = distances_to_bias(pad_prefix(distances, prefix, queries=False), slopes)
            mask = merge_masks(bias.to(query.dtype), mask)
        return nn.functional.scaled_dot_product_attention(
            query[:, :, tokens], key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
        )

    # The prefix tokens have no bias: a block of their own, numbered before the first patch.
    outputs = [attend(slice(-prefix, 0), None)]
    heads = 1 if alibi_slopes is None else len(alibi_slopes)
    # Kept for the backward pass, the blocks' biases would add up to the tensor this function avoids.
    recompute = torch.is_grad_enabled() and query.requires_grad
    for block in query_blocks(num_patches, heads * query.shape[2] * 4):
        arguments = (block, alibi_slopes)
        outputs.append(checkpoint(attend, *arguments, use_reentrant=False) if recompute else attend(*arguments))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def alibi_flex_attention_forward(
    module: Dinov2WithRegistersAttention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: BlockMask | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    grid_size: GridSize | None = None,
    alibi_slopes: torch.Tensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """FlexAttention whose score function computes the bias from coordinates; made for CUDA.

    On a CPU it runs forward only. Arguments and result as in `alibi_blockwise_attention_forward`.

    Raises:
        ValueError: dropout or a four-dimensional mask is asked for, or a gradient on a CPU.
    """
    if dropout or isinstance(attention_mask, torch.Tensor):
        raise ValueError(
            f"flex_attention got attention dropout {dropout} and a mask of type {type(attention_mask).__name__}; it "
            "takes no dropout, and only masks of shape (batch, tokens). Use attn_implementation='sdpa' or "
            f"'{BLOCKWISE}'."
        )
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
        raise ValueError(
            "flex_attention has no backward pass on a CPU. Run it under torch.no_grad(), or train with "
            f"attn_implementation='sdpa' or '{BLOCKWISE}'."
        )
    score_mod = None
    if grid_size is not None and alibi_slopes is not None:
        config, (height, width) = module.config, grid_size
        prefix = config.num_prefix_tokens
        slopes = alibi_slopes.expand(query.shape[1])
        if config.alibi_normalize:
            slopes = slopes / largest_distance(
                grid_size, metric=config.alibi_metric, wrap=config.alibi_wrap, device=query.device
            )

        def score_mod(score, batch, head, query_token, key_token):
            query_patch, key_patch = query_token - prefix, key_token - prefix
            rows = (query_patch // width - key_patch // width).abs()
            columns = (query_patch % width - key_patch % width).abs()
            if config.alibi_wrap:
                rows = torch.minimum(rows, height - rows)
                columns = torch.minimum(columns, width - columns)
            distance = combine_axes(rows.float(), columns.float(), metric=config.alibi_metric)
            between_patches = (query_patch >= 0) & (key_patch >= 0)
            return score - torch.where(between_patches, slopes[head] * distance, 0.0).to(score.dtype)

    output = compile_friendly_flex_attention(
        query,
        key,
        value,
        score_mod=score_mod,
        block_mask=attention_mask,
        scale=scaling,
        training=module.training,
    )
    return output.transpose(1, 2).contiguous(), None


def config_distances(
    config: Dinov2AlibiConfig, grid_size: GridSize, *, device: torch.device | None, queries: slice = slice(None)
) -> torch.Tensor:
    """`patch_distances` with the metric, borders and normalisation of a configuration."""
    return patch_distances(
        grid_size,
        metric=config.alibi_metric,
        wrap=config.alibi_wrap,
        normalize=config.alibi_normalize,
        queries=queries,
        device=device,
    )


def mask_rows(mask: torch.Tensor, rows: slice) -> torch.Tensor:
    """The part of a mask, broadcastable to `(B, heads, tokens, tokens)`, that belongs to some query tokens."""
    return mask if mask.shape[-2] == 1 else mask[..., rows, :]


def merge_masks(bias: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Add a caller's mask, see `convert_mask`, to the bias, in its dtype; shapes broadcast."""
    if mask is None:
        return bias
    mask = convert_mask(mask, bias.dtype)
    return bias.masked_fill(~mask, torch.finfo(bias.dtype).min) if mask.dtype == torch.bool else bias + mask


def convert_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean mask (`False` is masked) as it is, an additive one in the dtype of the queries, which kernels need.

    Raises:
        ValueError: the mask holds integers, which could mean either.
    """
    if mask.dtype in (dtype, torch.bool):
        return mask
    if not mask.is_floating_point():
        raise ValueError(
            f"A mask of {mask.ndim} dimensions has dtype {mask.dtype}; it must be boolean (`False` is masked) or "
            "floating (added to the scores). Convert it with `mask.bool()`, or pass one of shape (batch, tokens)."
        )
    return mask.clamp(min=torch.finfo(dtype).min).to(dtype)  # -inf for all keys of a query would give NaN


AttentionInterface.register(BLOCKWISE, alibi_blockwise_attention_forward)
AttentionMaskInterface.register(BLOCKWISE, sdpa_mask)

# A table of this model's own: everywhere else `flex_attention` keeps its meaning.
ATTENTION_FUNCTIONS = AttentionInterface()
ATTENTION_FUNCTIONS["flex_attention"] = alibi_flex_attention_forward
