# SPDX-License-Identifier: Apache-2.0
"""Both ways of distilling train the same student. No time is judged here."""

import json
import sys

import pytest
import torch

from benchmarks.cases import PATCH, ReferenceModel
from benchmarks.distill import PREFIX, main, make_teacher
from modeling_alibi_dinov2 import Dinov2AlibiConfig
from tests.comparison import assert_close
from training.create_student import create_student
from training.target import PATCHES, cosine_loss, read_tokens


def test_reference_student_learns_what_ours_does():
    teacher = make_teacher(64, 2)
    ours = create_student(teacher)
    reference = ReferenceModel(Dinov2AlibiConfig(**ours.config.to_dict() | {"position_encoding": "none"})).eval()
    reference.set_attn_implementation("eager")
    reference.load_state_dict(ours.state_dict())
    pixels = torch.randn(2, 3, 5 * PATCH, 4 * PATCH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        target = read_tokens(teacher, pixels, [PATCHES], PREFIX)[PATCHES]
    for student in (ours, reference):
        cosine_loss(read_tokens(student, pixels, [PATCHES], PREFIX)[PATCHES], target).backward()
    gradients = [
        {name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None}
        for student in (ours, reference)
    ]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, 1e-5, f"{name}: the kernels round differently")


@pytest.mark.parametrize("more", [[], ["--compile"]])
def test_command_reports_every_way(tmp_path, capsys, monkeypatch, more):
    options = ["--size", "28", "--batch", "2", "--repeats", "1", "--layers", "1", "--width", "64", "--output"]
    monkeypatch.setattr(sys, "argv", ["distill", *options, str(tmp_path / "out.json"), *more])
    with torch.compiler.set_stance("force_eager"):  # the compiler takes minutes, and is not what is tested
        main()
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["case"] for row in rows] == [
        *("reference", "reference_bf16", "ours", "cached"),
        *(["compiled"] if more else []),
        "processes",
    ]
    assert rows[0]["ratio"] == 1
    assert all(row["images_per_second"] > 0 for row in rows)
    assert "| cached |" in capsys.readouterr().out


def test_wrong_size_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["distill", "--size", "30"])
    with pytest.raises(SystemExit):
        main()
    assert "size 30 must be a multiple of 14" in capsys.readouterr().err
