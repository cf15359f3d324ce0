# SPDX-License-Identifier: Apache-2.0
"""`auto` is bfloat16 only where the device computes in it; what was chosen is kept and said."""

import json
from dataclasses import replace

import pytest
import torch

from training.configuration import Stage
from training.distill import distill
from training.precision import choose_precision, computes_in_bf16

STAGES = [Stage(28, 2, None, 4, 1e-3, 0)]


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


def test_all_processes_take_what_all_of_them_can(monkeypatch):
    found = [(True, "the processor has avx512_bf16"), (False, "the processor has neither"), (True, "…")]
    monkeypatch.setattr("training.precision.gather_object", lambda mine: found)
    assert choose_precision("auto") == ("no", "the processor has neither")
    monkeypatch.setattr("training.precision.gather_object", lambda mine: found[:1])
    assert choose_precision("auto") == ("bf16", "the processor has avx512_bf16")
    assert choose_precision("fp16") == ("fp16", "as asked for")
    assert choose_precision(None)[0] is None


@pytest.mark.parametrize(("units", "precision"), [([], "no"), (["avx512_bf16"], "bf16")])
def test_run_keeps_what_it_began_with_on_another_machine(
    tiny_distillation, tmp_path, monkeypatch, capsys, units, precision
):
    processor_with(monkeypatch, *units)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    config = tiny_distillation(stages=STAGES, mixed_precision="auto", checkpoint_every=1, keep_checkpoints=9)
    whole = (distill(config) / "model.safetensors").read_bytes()
    chosen, reason = json.loads((tmp_path / "run" / "config.json").read_text())["precision"]
    assert (chosen, reason.startswith("the processor has")) == (precision, True)
    assert f"Precision {precision}: {reason}" in capsys.readouterr().out
    (tmp_path / "run" / "checkpoints" / "step-00000002").rename(tmp_path / "last")
    processor_with(monkeypatch, *([] if units else ["amx_bf16"]))
    assert (distill(replace(config, resume=True)) / "model.safetensors").read_bytes() == whole
    # The other precision is another run: what was kept had an effect.
    other = tiny_distillation(stages=STAGES, mixed_precision="auto", output=str(tmp_path / "other"))
    assert (distill(other) / "model.safetensors").read_bytes() != whole


def test_unknown_precision_is_refused(tiny_distillation):
    with pytest.raises(ValueError, match="mixed_precision is 'fp8'; it must be one of auto, no, bf16, fp16"):
        tiny_distillation(mixed_precision="fp8")
