# SPDX-License-Identifier: Apache-2.0
"""Both ways to probe channels find the same, and the benchmark reports it. No time is judged here."""

import json
import subprocess
import sys

import pytest

from benchmarks.probe import Setting, main, probe_one_by_one
from evaluation.position.channel_probes import channel_r2
from tests.comparison import assert_close


def test_both_ways_give_the_same_scores():
    setting = Setting(layers=2, draws=2, side=20, channels=5)
    sample = setting.sample()
    arguments = (setting.features().reshape(2, -1, 5), setting.targets(), sample.train, sample.held_out)
    found, expected = channel_r2(*arguments), probe_one_by_one(*arguments)
    assert expected.held_out.max() > 0.1
    assert_close(found.all_patches, expected.all_patches, 1e-9, "double precision")
    assert_close(found.held_out, expected.held_out, 1e-9, "double precision")


def test_the_command_prints_a_table_and_saves_the_result(tmp_path):
    output = tmp_path / "results" / "probe.json"
    command = [sys.executable, "-m", "benchmarks.probe", "--repeats", "1", "--output", str(output)]
    result = subprocess.run([*command, "--side", "9", "--channels", "3"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    record = json.loads(output.read_text())
    assert record["difference"] < 1e-9
    assert record["ratio"] == record["scikit_learn_seconds"] / record["closed_form_seconds"]
    assert record["report_seconds"] == 15 * record["report_seconds_per_image"] > 0
    assert record["whole"] == {"layers": 13, "draws": 10, "side": 9, "channels": 3}
    assert f"{record['scikit_learn_seconds']:.3f}" in result.stdout


@pytest.mark.parametrize("options", [("--layers", "0"), ("--side", "8"), ("--repeats", "0")], ids=" ".join)
def test_a_bad_option_is_an_error(options, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["probe", *options])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "at least 1, and the side 9" in capsys.readouterr().err
