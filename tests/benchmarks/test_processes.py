# SPDX-License-Identifier: Apache-2.0
"""The benchmark of processes runs the command and compares its files. No time is judged here."""

import json
import subprocess
import sys

import pytest

from benchmarks import processes
from benchmarks.processes import differing, main, summary, youngest
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor


def test_rounds_of_several_calls_are_taken_together(tmp_path, tiny_model, capsys, monkeypatch):
    tiny_model().save_pretrained(tmp_path / "model")
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path / "model")
    monkeypatch.setattr(processes, "WAYS", {"one": 1})
    output = tmp_path / "out.json"
    options = ["--model", tmp_path / "model", "--images", 2, "--shape", 60, 70, "--rounds", 1, "--output", output]
    monkeypatch.setattr(sys, "argv", ["processes", *map(str, options)])
    main()
    record = json.loads(output.read_text())
    (first,) = record["rounds"]
    assert first["files"] == 2 * 2 + 1, "class maps, overlays and the table"
    assert first["seconds"]["one"] > 0
    assert "| one |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--images", "3"])
    with pytest.raises(SystemExit):
        main()
    assert "choose another file" in capsys.readouterr().err


def test_ratios_are_of_medians_with_and_without_startup(monkeypatch):
    monkeypatch.setattr(processes, "WAYS", {"one": 1, "two": 2})
    seconds = [(110, 60), (100, 58), (500, 62)]
    rounds = [
        {"seconds": {"one": one, "two": two}, "startup": {"one": 10, "two": 10}, "files": 1} for one, two in seconds
    ]
    found = summary(rounds)["two"]
    assert found["ratio"] == pytest.approx(110 / 60)
    assert found["ratio without startup"] == pytest.approx(100 / 50)


def test_files_that_differ_or_are_missing_are_named():
    assert differing({"one": {"a": "1", "b": "2"}, "two": {"a": "1", "b": "3"}, "three": {"a": "1"}}) == ["b"]
    assert differing({"one": {"a": "1"}, "two": {"a": "1"}}) == []


def test_the_youngest_process_that_another_one_started_is_found():
    program = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        try:
            assert youngest(parent.pid) == child
        finally:
            subprocess.run(["kill", str(child)], check=True)
