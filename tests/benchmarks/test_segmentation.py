# SPDX-License-Identifier: Apache-2.0
"""The benchmark of segmentation runs and reports every case. No time is judged here."""

import json
import sys

import pytest

from benchmarks.segmentation import main


def test_command_reports_every_case(tmp_path, capsys, monkeypatch):
    output = tmp_path / "out.json"
    options = ["--sides", "512", "--layers", "1", "--width", "64", "--features", "deep", "both"]
    monkeypatch.setattr(sys, "argv", ["segmentation", *options, "--output", str(output)])
    main()
    rows = json.loads(output.read_text())["rows"]
    assert [(row["features"], row["side"]) for row in rows] == [("deep", 512), ("both", 512)]
    for row in rows:
        assert row["labelled"] == 100  # two strokes of 25 pixels for each of two classes
        assert row["memory_bytes"] > 0
        assert min(row[name] for name in ("features_seconds", "fit", "refit", "predict")) > 0
    assert "| both | 0.25 |" in capsys.readouterr().out


def test_small_sides_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["segmentation", "--sides", "100"])
    with pytest.raises(SystemExit):
        main()
    assert "must be 512 or more" in capsys.readouterr().err
