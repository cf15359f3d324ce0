# SPDX-License-Identifier: Apache-2.0
"""`auto` is bfloat16 only where the devices compute in it; what was chosen is kept and said."""

import json
from dataclasses import replace

import pytest
from accelerate.state import AcceleratorState

from tests.alibi_dinov2.features.test_precision import processor_with
from training.configuration import Stage
from training.distill import distill
from training.precision import choose_precision

STAGES = [Stage(28, 2, None, 4, 1e-3, 0)]


@pytest.fixture(autouse=True)
def forgetful_accelerate():
    """Have Accelerate forget the precision of the runs before, as another process would."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


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
    AcceleratorState._reset_state()
    assert (distill(replace(config, resume=True)) / "model.safetensors").read_bytes() == whole
    AcceleratorState._reset_state()
    # The other precision is another run: what was kept had an effect.
    other = tiny_distillation(stages=STAGES, mixed_precision="auto", output=str(tmp_path / "other"))
    assert (distill(other) / "model.safetensors").read_bytes() != whole


def test_unknown_precision_is_refused(tiny_distillation):
    with pytest.raises(ValueError, match="mixed_precision is 'fp8'; it must be one of auto, no, bf16, fp16"):
        tiny_distillation(mixed_precision="fp8")
