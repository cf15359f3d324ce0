# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from modeling_alibi_dinov2.alibi_bias import (
    alibi_slopes,
    combine_axes,
    distances_to_bias,
    largest_distance,
    pad_prefix,
    patch_distances,
)
from tests.comparison import assert_close
from tests.modeling.reference import ALL_GRIDS, slow_bias, slow_slopes

ROUNDING = "float32 rounding of a few operations on numbers below 10"


@pytest.mark.parametrize("grid_size", ALL_GRIDS)
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("slopes", ["constant", "geometric"])
@pytest.mark.parametrize("num_prefix_tokens", [1, 5])
def test_bias_equals_the_slow_double_loop(grid_size, metric, wrap, normalize, slopes, num_prefix_tokens):
    distances = patch_distances(grid_size, metric=metric, wrap=wrap, normalize=normalize)
    bias = distances_to_bias(pad_prefix(distances, num_prefix_tokens), alibi_slopes(slopes, 3))
    expected = slow_bias(
        grid_size,
        slopes=slow_slopes(slopes, 3),
        metric=metric,
        wrap=wrap,
        normalize=normalize,
        num_prefix_tokens=num_prefix_tokens,
    )
    assert_close(bias.expand(expected.shape), expected, 2e-6, ROUNDING)


@pytest.mark.parametrize(("grid_size", "neighbours"), [((16, 16), 0.088), ((37, 37), 0.039)])
def test_the_distance_of_neighbours_shrinks_as_the_grid_grows(grid_size, neighbours):
    distances = patch_distances(grid_size)
    below = grid_size[1]
    for patch in (1, below, below - 1):  # to the right, below, and to the left across the border
        assert distances[0, patch].item() == pytest.approx(neighbours, abs=5e-4)


@pytest.mark.parametrize("grid_size", [(6, 9), (5, 5)])
@pytest.mark.parametrize("wrap", [True, False])
def test_a_normalised_distance_lies_between_zero_and_one(grid_size, wrap):
    distances = patch_distances(grid_size, wrap=wrap)
    assert distances.min() == 0
    # Some processors round the square root of a sum of squares to the number below 1.
    assert distances.max() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "wrap", "largest"),
    [("euclidean", True, 5.0), ("manhattan", True, 7.0), ("euclidean", False, 74**0.5), ("manhattan", False, 12.0)],
)
def test_largest_distance_of_a_grid(metric, wrap, largest):
    assert largest_distance((6, 8), metric=metric, wrap=wrap).item() == pytest.approx(largest, rel=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_a_single_patch_has_the_distance_zero(metric, normalize):
    distances = patch_distances((1, 1), metric=metric, normalize=normalize)
    assert distances.tolist() == [[0.0]]


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_some_queries_are_rows_of_the_whole(metric, wrap, normalize):
    choices = {"metric": metric, "wrap": wrap, "normalize": normalize}
    whole = patch_distances((4, 7), **choices)
    for queries in (slice(0, 28), slice(0, 5), slice(5, 19), slice(27, 28)):
        part = patch_distances((4, 7), queries=queries, **choices)
        assert_close(part, whole[queries], 0.0, "the same operations on the same numbers")


def test_prefix_tokens_have_no_distance():
    distances = patch_distances((2, 3))
    padded = pad_prefix(distances, 4)
    assert padded.shape == (10, 10)
    assert padded[:4].count_nonzero() == 0
    assert padded[:, :4].count_nonzero() == 0
    assert torch.equal(padded[4:, 4:], distances)


def test_prefix_keys_alone_for_a_block_of_patch_queries():
    distances = patch_distances((2, 3), queries=slice(1, 3))
    padded = pad_prefix(distances, 4, queries=False)
    assert padded.shape == (2, 10)
    assert padded[:, :4].count_nonzero() == 0
    assert torch.equal(padded[:, 4:], distances)


def test_all_heads_share_one_bias_when_the_slope_is_constant():
    assert alibi_slopes("constant", 12).tolist() == [1.0]
    assert alibi_slopes("constant", 12, constant=-2.5).tolist() == [-2.5]
    assert alibi_slopes("constant", 12, constant=0).tolist() == [0.0]


def test_geometric_slopes_are_those_of_alibi():
    assert_close(alibi_slopes("geometric", 8), 0.5 ** torch.arange(1, 9), 0.0, "powers of two are exact")


def test_the_bias_is_differentiable_in_the_slopes():
    slopes = torch.rand(3, requires_grad=True)
    distances = patch_distances((2, 3))
    distances_to_bias(distances, slopes).sum().backward()
    assert_close(slopes.grad, -distances.sum().expand(3), 1e-5, "float32 sum of 36 terms")


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="`metric` is 'chebyshev'; it must be 'euclidean' or 'manhattan'"):
        combine_axes(torch.zeros(1), torch.zeros(1), metric="chebyshev")
    with pytest.raises(ValueError, match="`kind` is 'learned'; fixed slopes are 'constant' or 'geometric'"):
        alibi_slopes("learned", 3)
