# SPDX-License-Identifier: Apache-2.0
"""The commands as users run them, on good and on wrong input."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from evaluation.position.noise import noise_images
from evaluation.report.card import by_model, results_table


def run(module: str, *options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", module, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_probe_writes_a_record_and_prints_its_figures(tmp_path, model_folder):
    output = tmp_path / "results" / "noise.json"
    options = ("--model", model_folder, "--name", "tiny", "--noise", 2, "--size", 140, "--output", output)
    result = run("evaluation.position.positional_probe", *options)
    assert result.returncode == 0, result.stderr
    record = json.loads(output.read_text())
    assert record["task"] == "positional_probe"
    assert record["model"]["name"] == "tiny"
    assert record["dataset"]["images"] == 2
    assert f"{record['metrics']['r2_held_out']:8.4f}" in result.stdout
    assert "tiny" in results_table(by_model([record]))


@pytest.mark.parametrize("kind", ["empty", "truncated", "missing", "small"])
def test_probe_of_wrong_input_says_what_is_wrong(tmp_path, model_folder, kind):
    folder = tmp_path / "images"
    if kind != "missing":
        folder.mkdir()
    if kind == "truncated":
        noise_images(1, 64)[0].save(folder / "broken.jpg")
        (folder / "broken.jpg").write_bytes((folder / "broken.jpg").read_bytes()[:500])
    if kind == "small":
        Image.new("RGB", (60, 60)).save(folder / "image.png")
    output = tmp_path / "record.json"
    result = run(
        "evaluation.position.positional_probe",
        "--model",
        model_folder,
        "--images",
        folder,
        "--size",
        56,
        "--output",
        output,
    )
    expected = {
        "empty": "contains no image",
        "truncated": "broken.jpg cannot be read as an image",
        "missing": "is not a folder",
        "small": "the probe needs 2 to fit on",
    }[kind]
    assert result.returncode != 0
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert not output.exists()
