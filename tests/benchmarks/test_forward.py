# SPDX-License-Identifier: Apache-2.0
"""The benchmark compares models that compute the same, and reports all it was asked for. No time is judged here."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.cases import CASES, Setting, attention_bytes, build_model
from benchmarks.forward import main
from modeling_alibi_dinov2 import Dinov2AlibiConfig, Dinov2AlibiModel
from tests.comparison import assert_close, largest_difference

SETTING = Setting(70, batch=2, layers=2, width=128)


def features(case: str) -> torch.Tensor:
    with torch.no_grad():
        return build_model(case, SETTING)(SETTING.pixels()).last_hidden_state


@pytest.mark.parametrize("case", ["alibi_blockwise", "eager", "reference"])
def test_every_way_with_the_bias_gives_the_same_features(case):
    assert_close(features(case), features("sdpa"), 1e-4, "the kernels round differently")


def test_the_bias_shows_in_the_features():
    assert largest_difference(features("stock"), features("sdpa")) > 0.01


def test_the_stock_model_is_ours_without_a_bias():
    ours = build_model("sdpa", SETTING)
    without = Dinov2AlibiModel(Dinov2AlibiConfig(**ours.config.to_dict() | {"position_encoding": "none"})).eval()
    without.load_state_dict(ours.state_dict())
    with torch.no_grad():
        expected = without(SETTING.pixels()).last_hidden_state
    assert_close(features("stock"), expected, 1e-5, "the same kernels")


def test_attention_memory_by_hand():
    setting = Setting(28, batch=3, width=128)  # 2 heads, 4 patches and 5 prefix tokens: 81 entries of 4 bytes
    assert [attention_bytes(case, setting) // 4 for case in CASES] == [0, 81, 3 * 81, 13 * 81, 15 * 81]


def run(*options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks.forward", "--layers", "1", "--width", "64", "--repeats", "1", *options]
    return subprocess.run(command, capture_output=True, text=True)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_command_prints_a_table_saves_it_and_completes_it(tmp_path):
    output = tmp_path / "results" / "forward.json"
    options = ("--sizes", "28", "--batches", "1", "--output", str(output))
    first = run(*options, "--dtypes", "float32")
    assert first.returncode == 0, first.stderr
    assert [cells(line)[:4] for line in first.stdout.splitlines()[2:]] == [["28", "1", "float32", c] for c in CASES]

    record = json.loads(output.read_text())
    (rows,) = record["comparisons"].values()
    assert [row["case"] for row in rows] == list(CASES)
    for row in rows:
        assert row["seconds"] > 0
        assert row["ratio"] > 0
        assert row["process_bytes"] > row["memory_bytes"] >= 0
        assert row.get("difference", 0) < 1e-4
    assert record["machine"]["torch"] == torch.__version__

    second = run(*options, "--dtypes", "float32", "bfloat16")
    assert second.returncode == 0, second.stderr
    completed = json.loads(output.read_text())["comparisons"]
    assert next(iter(completed.values())) == rows
    assert len(completed) == 2
    assert len(second.stdout.splitlines()) == 2 + 2 * len(CASES)


def test_the_huge_grid_is_measured_alone_and_beside_sdpa_at_half_its_side():
    result = run("--huge", "56")
    assert result.returncode == 0, result.stderr
    rows = [cells(line) for line in result.stdout.splitlines()[2:]]
    assert [(row[0], row[3]) for row in rows] == [("56", "alibi_blockwise"), ("28", "sdpa"), ("28", "alibi_blockwise")]
    assert rows[0][5] == "–"
    assert rows[2][5].endswith("× sdpa")


@pytest.mark.parametrize(
    "options", [("--sizes", "100"), ("--huge", "7"), ("--width", "100"), ("--repeats", "0")], ids=" ".join
)
def test_a_bad_option_is_an_error(options, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["forward", *options])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert options[1] in capsys.readouterr().err.splitlines()[-1]


def test_a_file_of_other_conditions_is_not_added_to(tmp_path, monkeypatch, capsys):
    (tmp_path / "forward.json").write_text('{"repeats": 7}')
    monkeypatch.setattr(sys, "argv", ["forward", "--output", str(tmp_path / "forward.json")])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "Choose another file" in capsys.readouterr().err
    assert (tmp_path / "forward.json").read_text() == '{"repeats": 7}'
