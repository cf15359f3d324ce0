# SPDX-License-Identifier: Apache-2.0
"""Which devices compute in bfloat16 is known, and a backbone that only emulates it says so."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.features.precision import computes_in_bf16
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor


def processor_with(monkeypatch, *units: str) -> None:
    monkeypatch.setattr(
        "torch.cpu.get_capabilities", lambda: dict.fromkeys(units, True) | {"avx2": True}, raising=False
    )


@pytest.mark.parametrize(
    ("units", "able", "reason"),
    [
        ([], False, "the processor has neither avx512_bf16 nor amx_bf16"),
        (["avx512_vnni"], False, "the processor has neither avx512_bf16 nor amx_bf16"),
        (["avx512_bf16"], True, "the processor has avx512_bf16"),
        (["amx_bf16", "avx512_bf16"], True, "the processor has avx512_bf16 and amx_bf16"),
    ],
)
def test_processor_needs_units_for_it(monkeypatch, units, able, reason):
    processor_with(monkeypatch, *units)
    assert computes_in_bf16(torch.device("cpu")) == (able, reason)


@pytest.mark.parametrize("able", [True, False])
def test_graphics_card_is_asked_without_emulation(monkeypatch, able):
    asked = []
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported", lambda including_emulation: asked.append(including_emulation) or able
    )
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Card")
    found, reason = computes_in_bf16(torch.device("cuda", 0))
    assert (found, asked) == (able, [False])
    assert reason == ("Card computes in bfloat16" if able else "Card does not compute in bfloat16")


def test_device_of_which_nothing_is_known_computes_in_full_precision():
    assert computes_in_bf16(torch.device("mps")) == (False, "of mps it is not known whether it computes in bfloat16")


def test_a_backbone_in_bfloat16_is_nearly_that_in_float32_and_says_if_it_is_slow(monkeypatch, tmp_path, tiny_model):
    tiny_model().save_pretrained(tmp_path)
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 70, 3), dtype=np.uint8))
    processor_with(monkeypatch, "avx512_bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        single, half = (load_backbone(tmp_path, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    (first,), (second,) = (dense_features(backbone, [image], 56) for backbone in (single, half))
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    # bfloat16 has 8 significant bits: an error of 2⁻⁹ for each operation, of which there are some dozens.
    assert ((first * second).sum(axis=-1) / lengths).min() > 0.999
    assert not np.array_equal(first, second)
    processor_with(monkeypatch)
    with pytest.warns(UserWarning, match="bfloat16 may be slower .* neither avx512_bf16 nor amx_bf16"):
        load_backbone(tmp_path, dtype=torch.bfloat16)
