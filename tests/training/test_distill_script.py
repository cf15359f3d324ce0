# SPDX-License-Identifier: Apache-2.0
"""The script as users run it: started by Accelerate, killed, resumed, and given wrong input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from common.files import write_json
from training.configuration import Stage
from training.distill import distill
from training.journal import read_metrics

REPOSITORY = Path(__file__).parents[2]


def launch(config, *options: str, processes: int = 1, **kwargs) -> subprocess.Popen:
    """Start the script with a configuration file."""
    path = Path(config.output).with_suffix(".json")
    write_json(path, asdict(config))
    # With --cpu Accelerate starts a single process, whatever number is asked for; several need its other launcher.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    command += ["--multi_gpu"] if processes > 1 else ["--cpu"]
    command += ["training/distill.py", "--config", str(path), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **kwargs,
    )


def finished(process: subprocess.Popen) -> str:
    """Output of a script that must succeed."""
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


def comparable(run: Path) -> list[dict]:
    """Metrics of a run but for its speed."""
    return [
        {name: value for name, value in entry.items() if name != "images_per_second"}
        for entry in read_metrics(run / "metrics.jsonl")
    ]


def test_killed_and_resumed_run_is_the_uninterrupted_run_bit_for_bit(tiny_distillation, tmp_path):
    stages = [Stage(28, 40, None, 4, 1e-3, 2), Stage(42, 200, None, 2, 5e-4, 1)]
    changes = {"flip": True, "roll": True, "checkpoint_every": 7, "validate_every": 50}
    whole = tiny_distillation(stages=stages, output=str(tmp_path / "whole"), **changes)
    broken = tiny_distillation(stages=stages, output=str(tmp_path / "broken"), **changes)
    uninterrupted = launch(whole)
    process = launch(broken)
    deadline = time.monotonic() + 120
    while not (tmp_path / "broken" / "checkpoints" / "step-00000049").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "broken" / "student").exists()
    # A kill may cut a line in two.
    with open(tmp_path / "broken" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 9')
    output = finished(launch(broken, "--resume"))
    assert "Student:" in output
    finished(uninterrupted)
    assert comparable(tmp_path / "broken") == comparable(tmp_path / "whole")
    weights = [(tmp_path / run / "student" / "model.safetensors").read_bytes() for run in ("whole", "broken")]
    assert weights[0] == weights[1]


def test_two_processes_give_the_loss_curve_of_one(tiny_distillation, tmp_path):
    stages = [Stage(28, 8, None, 4, 1e-3, 2)]
    curves = []
    for processes in (1, 2):
        config = tiny_distillation(stages=stages, output=str(tmp_path / f"run-{processes}"), checkpoint_every=8)
        finished(launch(config, processes=processes))
        assert json.loads((Path(config.output) / "config.json").read_text())["processes"] == processes
        curves.append([entry["loss"] for entry in comparable(Path(config.output)) if "loss" in entry])
    # Half batches are summed in another order, and Adam divides small gradients by their own size.
    assert curves[0] == pytest.approx(curves[1], rel=2e-3)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, [], "holds a run. Pass --resume"),
        ({"seed": 5}, ["--resume"], "seed was 0 and is 5"),
    ],
)
def test_run_in_the_folder_is_kept(tiny_distillation, tmp_path, change, options, message):
    distill(tiny_distillation())
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    output, _ = (process := launch(tiny_distillation(**change), *options)).communicate(timeout=120)
    assert process.returncode != 0
    assert message in output
    assert "Traceback" not in output.split("distill: ")[0]
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_resume_without_a_checkpoint_begins_again_with_the_recorded_channels(tiny_distillation, tmp_path):
    config = tiny_distillation()
    distill(config)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    weights = (tmp_path / "run" / "student" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "student")
    distill(replace(config, resume=True))
    assert (tmp_path / "run" / "student" / "model.safetensors").read_bytes() == weights


def test_nothing_to_resume_is_an_error(tiny_distillation):
    with pytest.raises(FileNotFoundError, match="holds no run to resume"):
        distill(tiny_distillation(resume=True))


def test_resume_with_another_number_of_processes_is_refused(tiny_distillation, tmp_path):
    config = tiny_distillation()
    distill(config)
    path = tmp_path / "run" / "config.json"
    write_json(path, json.loads(path.read_text()) | {"processes": 4})
    with pytest.raises(ValueError, match="started with 4 processes and cannot go on with 1"):
        distill(replace(config, resume=True))
