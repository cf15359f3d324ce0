# SPDX-License-Identifier: Apache-2.0
"""The checksum of a model tells weights apart, whatever their shape and dtype."""

import torch
from torch import nn

from alibi_dinov2.features.weights import weights_sha256


def test_checksum_depends_on_every_tensor_and_its_dtype():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))  # with a counter, which has no dimension
    first = weights_sha256(model)
    assert weights_sha256(model) == first
    sums = {first, weights_sha256(model.half())}
    model.float()
    for tensor in model.state_dict().values():
        tensor += 1
        sums.add(weights_sha256(model))
    assert len(sums) == 2 + len(model.state_dict())
