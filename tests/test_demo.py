# SPDX-License-Identifier: Apache-2.0
"""`make demo` runs from its first step to its last: the shipped model beside a small teacher, on small images."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.report.records import read_records
from training.import_onnx_teacher import teacher_processor

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_demo_ends_with_table_and_pictures(tmp_path, tiny_teacher):
    demo = tmp_path / "demo"
    made = {"VENV": tmp_path / "venv", "WHEEL": tmp_path / "teacher.whl"}
    made["VENV"].mkdir()
    # Newer than what environments are made of, older than the teacher: nothing is left to install or to download.
    for file in (made["VENV"] / "installed", made["WHEEL"]):
        file.touch()
    # As wide as the shipped model, which is compared with it.
    shipped = json.loads((REPOSITORY / "model_cards" / "alibi-dinov2-small" / "config.json").read_text("utf-8"))
    width = {name: shipped[name] for name in ("hidden_size", "num_attention_heads")}
    tiny_teacher(**width, num_hidden_layers=1).save_pretrained(demo / "teacher")
    teacher_processor().save_pretrained(demo / "teacher")

    # `false` is no Python: a demo that makes an environment, which would be installed into the one of the tests, fails.
    variables = made | {
        "PYTHON": "false",
        "DEMO": demo,
        "BIN": Path(sys.executable).parent,
        "PROBE_SIZE": 126,
        "AGREEMENT_SIZE": 56,
    }
    command = ["make", "demo", *(f"{name}={value}" for name, value in variables.items())]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "cosine to the teacher" in run.stdout
    tasks = [record["task"] for record in read_records([demo / "results"]).values()]
    assert sorted(tasks) == ["positional_probe"] * 4 + ["teacher_agreement"] * 2
    for name in ("pca.png", "biased-labels.png"):
        assert (demo / name).stat().st_size > 10_000
