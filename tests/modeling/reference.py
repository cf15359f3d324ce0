# SPDX-License-Identifier: Apache-2.0
"""The bias written as slowly and plainly as the definition, with nothing of the package in it."""

import math

import torch

ALL_GRIDS = [(4, 4), (7, 3), (2, 5), (1, 1), (1, 6), (5, 1)]


def slow_bias(
    grid_size: tuple[int, int],
    *,
    slopes: list[float],
    metric: str = "euclidean",
    wrap: bool = True,
    normalize: bool = True,
    num_prefix_tokens: int = 0,
) -> torch.Tensor:
    """`(1, len(slopes), prefix + h·w, prefix + h·w)`, from two loops over the patches."""
    height, width = grid_size
    places = [(row, column) for row in range(height) for column in range(width)]
    distances = []
    for row_i, column_i in places:
        for row_j, column_j in places:
            rows, columns = abs(row_i - row_j), abs(column_i - column_j)
            if wrap:
                rows, columns = min(rows, height - rows), min(columns, width - columns)
            distances.append(math.sqrt(rows**2 + columns**2) if metric == "euclidean" else rows + columns)
    if normalize and max(distances) > 0:
        largest = max(distances)
        distances = [distance / largest for distance in distances]

    tokens = num_prefix_tokens + len(places)
    bias = torch.zeros(1, len(slopes), tokens, tokens, dtype=torch.float64)
    for head, slope in enumerate(slopes):
        for i in range(len(places)):
            for j in range(len(places)):
                bias[0, head, num_prefix_tokens + i, num_prefix_tokens + j] = -slope * distances[i * len(places) + j]
    return bias.float()


def slow_slopes(kind: str, num_heads: int, constant: float | None = None) -> list[float]:
    """One fixed slope per head: the constant one, 1 unless another is given, or `2^(-8(k+1)/H)`."""
    constant = 1.0 if constant is None else constant
    return [constant if kind == "constant" else 2 ** (-8 * (head + 1) / num_heads) for head in range(num_heads)]
