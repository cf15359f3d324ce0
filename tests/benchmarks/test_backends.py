# SPDX-License-Identifier: Apache-2.0
"""The benchmark of back ends compares each with PyTorch in float32. No time is judged here."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks.backends import REFERENCE, cosines, main, quickest
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

BFLOAT16 = "torch bfloat16"


@pytest.mark.filterwarnings("ignore:bfloat16 may be slower")
def test_command_reports_time_and_cosine_of_every_back_end(tmp_path, tiny_model, capsys, monkeypatch):
    tiny_model().save_pretrained(tmp_path / "model")
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path / "model")
    (tmp_path / "images").mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (60, 70), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{number}.png")
    places = ["--model", tmp_path / "model", "--images", tmp_path / "images", "--output", tmp_path / "out.json"]
    options = [*places, "--size", 56, "--repeats", 1, "--backends", BFLOAT16]
    monkeypatch.setattr(sys, "argv", ["backends", *map(str, options)])
    main()
    record = json.loads((tmp_path / "out.json").read_text())
    assert list(record["images"]) == ["1.png"], "the others are for calibration"
    assert list(record["rows"]) == [REFERENCE, BFLOAT16]
    assert min(row["seconds"] for row in record["rows"].values()) > 0
    assert record["rows"][REFERENCE]["least cosine"] == pytest.approx(1, abs=1e-6)
    # bfloat16 has 8 significant bits.
    assert 0.99 < record["rows"][BFLOAT16]["least cosine"] < 0.9999999
    assert f"| {BFLOAT16} |" in capsys.readouterr().out


def test_cosines_are_of_each_token():
    reference = np.eye(3, dtype=np.float32)[None]
    found = np.array([[[2, 0, 0], [1, 0, 0], [0, 1, 1]]], dtype=np.float32)
    assert cosines(found, reference) == pytest.approx([1, 0, 0.5**0.5])


def test_of_each_library_the_quickest_that_is_close_enough_is_worth_a_closer_look():
    figures = {
        REFERENCE: (3, 1),
        BFLOAT16: (2, 0.9999),
        "torch odd": (1, 0.9),
        "other a": (2, 1),
        "other b": (1, 0.9995),
    }
    rows = {name: {"seconds": seconds, "cosine": cosine} for name, (seconds, cosine) in figures.items()}
    assert quickest(rows) == [REFERENCE, "other b", BFLOAT16]
