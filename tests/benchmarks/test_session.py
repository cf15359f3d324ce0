# SPDX-License-Identifier: Apache-2.0
"""The benchmark of sessions runs and reports every case. No time is judged here."""

import json
import sys

import pytest

from benchmarks.session import main

SMALL = ["--layers", "1", "--width", "64", "--repeats", "1", "--classifiers", "stroke-forest"]


def test_command_reports_every_case(tmp_path, capsys, monkeypatch):
    output = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["session", *SMALL, "--large", "1024", "--output", str(output)])
    main()
    record = json.loads(output.read_text())
    row = record["rows"]["stroke-forest"]
    assert row["labelled"] == 250  # five strokes of 25 pixels for each of two classes
    assert row["agreement"] > 0.99
    for name in ("features", "refit", "predict 512", "predict 1024", "predict 512 before"):
        assert row[name] > 0
    assert record["large"]["megapixels"] == 1
    assert min(record["large"][name] for name in ("first answer", "prediction", "memory_bytes")) > 0
    assert "| stroke-forest | predict 1024 |" in capsys.readouterr().out


def test_small_sides_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["session", "--side", "512"])
    with pytest.raises(SystemExit):
        main()
    assert "1024 pixels or more" in capsys.readouterr().err
