# SPDX-License-Identifier: Apache-2.0
"""Comparison of tensors whose failure says by how much they differ."""

import numpy as np
import torch


def as_tensor(values) -> torch.Tensor:
    """A tensor or an array as a tensor on the CPU, without its graph."""
    return values.detach().cpu() if isinstance(values, torch.Tensor) else torch.from_numpy(np.asarray(values))


def assert_close(actual, expected, atol: float, reason: str) -> None:
    """Fail unless `actual` and `expected`, tensors or arrays, have one shape and differ by `atol` at most, everywhere.

    Args:
        atol: largest absolute difference that passes; a NaN or an infinity never does.
        reason: why the two may differ by that much; printed on failure.
    """
    actual, expected = as_tensor(actual), as_tensor(expected)
    assert actual.shape == expected.shape, f"shapes differ: {tuple(actual.shape)} and {tuple(expected.shape)}"
    difference = (actual.double() - expected.double()).abs()
    assert (difference <= atol).all(), (
        f"largest absolute difference {difference.max().item():.3e}, mean {difference.mean().item():.3e}; allowed "
        f"{atol:.1e} ({reason})"
    )


def largest_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference of two tensors, for tests that expect one."""
    return (actual.detach() - expected.detach()).abs().max().item()


def first_tensor(output) -> torch.Tensor:
    """Tokens, logits or the first feature map of a model's output."""
    return output[0][0] if isinstance(output[0], tuple) else output[0]
