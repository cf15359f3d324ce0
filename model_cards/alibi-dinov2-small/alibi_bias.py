# SPDX-License-Identifier: Apache-2.0
"""Two-dimensional ALiBi: grid -> distances -> slopes -> attention bias.

Pure tensor functions of the grid and the configuration (arXiv 2603.16840, section 4; ALiBi itself: arXiv 2108.12409).
For patches at rows `r` and columns `c` of a grid of `h` rows and `w` columns

    dr = |r_i - r_j|,  dc = |c_i - c_j|;     on the torus  dr <- min(dr, h - dr),  dc <- min(dc, w - dc)
    d_ij = sqrt(dr^2 + dc^2)  or  dr + dc;   normalised    D_ij = d_ij / max(d)
    bias_ij = -slope * D_ij,                 and 0 where i or j is a prefix token ([CLS] or a register)

A grid of one patch has the distance 0, normalised or not.
"""

import torch
from torch import nn

GridSize = tuple[int, int]


def axis_distances(length: int, *, wrap: bool, device: torch.device | None = None) -> torch.Tensor:
    """Distances between all pairs of positions on one axis, in patches.

    Returns:
        `torch.Tensor` of shape `(length, length)`, float32; at most `length // 2` on a torus, else `length - 1`.
    """
    position = torch.arange(length, device=device, dtype=torch.float32)
    distance = (position[:, None] - position[None, :]).abs()
    return torch.minimum(distance, length - distance) if wrap else distance


def combine_axes(rows: torch.Tensor, columns: torch.Tensor, *, metric: str) -> torch.Tensor:
    """Combine broadcastable vertical and horizontal distances into one distance.

    Raises:
        ValueError: `metric` is neither `"euclidean"` nor `"manhattan"`.
    """
    if metric == "euclidean":
        return (rows.square() + columns.square()).sqrt_()  # in place: large grids are bound by memory traffic
    if metric == "manhattan":
        return rows + columns
    raise ValueError(f"`metric` is {metric!r}; it must be 'euclidean' or 'manhattan'.")


def largest_distance(
    grid_size: GridSize, *, metric: str, wrap: bool, device: torch.device | None = None
) -> torch.Tensor:
    """Largest distance between two patches of a grid, in patches: a float32 scalar, at least 1.

    Two patches are 1 or more apart; a grid of a single patch, whose distance is 0, gets 1, so that dividing is safe.
    """
    rows, columns = (axis_distances(length, wrap=wrap, device=device).amax(dim=(0, 1)) for length in grid_size)
    return combine_axes(rows, columns, metric=metric).clamp(min=1)


def patch_distances(
    grid_size: GridSize,
    *,
    metric: str = "euclidean",
    wrap: bool = True,
    normalize: bool = True,
    queries: slice = slice(None),
    device: torch.device | None = None,
) -> torch.Tensor:
    """Distances from some patches of a grid to all patches of it.

    With `normalize` an entry lies in [0, 1] and the distance of neighbours shrinks as the grid grows: 0.088 on 16×16
    patches, 0.039 on 37×37 (torus, Euclidean). That is the published behaviour.

    Args:
        grid_size: `(h, w)`, the rows and columns of patches.
        metric: `"euclidean"` or `"manhattan"`.
        wrap: whether opposite borders are neighbours.
        normalize: whether to divide by the largest distance of the whole grid.
        queries: the patches to start from, a slice of the row-major numbering.
        device: where to compute.

    Returns:
        `torch.Tensor` of shape `(number of queries, h·w)`, float32, patches in row-major order.
    """
    height, width = grid_size
    rows = axis_distances(height, wrap=wrap, device=device)
    columns = axis_distances(width, wrap=wrap, device=device)
    if normalize:  # before they are combined: an axis has far fewer numbers, and both metrics scale with it
        largest = largest_distance(grid_size, metric=metric, wrap=wrap, device=device)
        rows, columns = rows / largest, columns / largest
    if queries == slice(None):
        distances = combine_axes(rows[:, None, :, None], columns[None, :, None, :], metric=metric)
    else:
        query = torch.arange(height * width, device=device)[queries]
        distances = combine_axes(rows[query // width, :, None], columns[query % width, None, :], metric=metric)
    return distances.reshape(-1, height * width)


def alibi_slopes(
    kind: str, num_heads: int, constant: float | None = None, device: torch.device | None = None
) -> torch.Tensor:
    """Fixed slopes of the bias.

    Args:
        kind: `"constant"` (one number for all heads) or `"geometric"` (`2^(-8(k+1)/H)` for head `k` of `H`).
        num_heads: H.
        constant: the constant slope, `None` for the published 1.
        device: where to put them.

    Returns:
        `torch.Tensor`, float32: shape `(1,)` for `"constant"`, so that all heads share one bias, else `(num_heads,)`.

    Raises:
        ValueError: `kind` has no fixed value (`"learned"`, or an unknown name).
    """
    if kind == "constant":
        return torch.full((1,), 1.0 if constant is None else float(constant), device=device)
    if kind == "geometric":
        head = torch.arange(1, num_heads + 1, device=device, dtype=torch.float32)
        return torch.exp2(-8 * head / num_heads)
    raise ValueError(f"`kind` is {kind!r}; fixed slopes are 'constant' or 'geometric'.")


def pad_prefix(distances: torch.Tensor, num_prefix_tokens: int, *, queries: bool = True) -> torch.Tensor:
    """Put zeros before the patches for the prefix tokens, which have no place and therefore no distance.

    Args:
        distances: `(q, n)`, from `patch_distances`.
        num_prefix_tokens: tokens before the first patch.
        queries: whether the prefix tokens are queries too, as they are for a whole grid.

    Returns:
        `torch.Tensor` of shape `(prefix + q, prefix + n)`, or `(q, prefix + n)` without the prefix queries.
    """
    return nn.functional.pad(distances, (num_prefix_tokens, 0, num_prefix_tokens if queries else 0, 0))


def distances_to_bias(distances: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Attention bias `-slope * distance`.

    Args:
        distances: `(q, k)` between tokens.
        slopes: `(heads,)`, or `(1,)` for all heads alike.

    Returns:
        `torch.Tensor` of shape `(1, heads, q, k)`, differentiable with respect to the slopes.
    """
    return (-slopes[:, None, None] * distances)[None]
