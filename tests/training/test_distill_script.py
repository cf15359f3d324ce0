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

from alibi_dinov2.io.files import write_json
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
    # Half batches are summed in another order, and Adam divides gradients that are nothing but rounding by their own
    # size: some processors come out 1 % apart. Other images would make it tens of per cent.
    assert curves[0] == pytest.approx(curves[1], rel=2e-2)


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


def test_full_disk_stops_the_run_with_the_last_checkpoint_intact(tiny_distillation, tmp_path):
    config = tiny_distillation(keep_checkpoints=9)
    distill(config)
    run = tmp_path / "run"
    weights = (run / "student" / "model.safetensors").read_bytes()
    for name in ("checkpoints/step-00000009", "checkpoints/step-00000010", "student"):
        shutil.rmtree(run / name)
    kept = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}
    # Smaller than the optimiser's state: to the program the disk is full.
    limit = (run / "checkpoints" / "step-00000006" / "optimizer.bin").stat().st_size // 2
    code = (
        "import resource, sys; from training.distill import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); main()"
    )
    path = tmp_path / "config.json"
    write_json(path, asdict(config))
    command = [sys.executable, "-c", code, "--config", str(path), "--resume", "True"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    stopped = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180)
    assert stopped.returncode == 1
    assert "could not be written" in stopped.stderr
    assert "the last checkpoint is intact" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert {path: path.read_bytes() for path in kept} == kept
    distill(replace(config, resume=True))
    assert (run / "student" / "model.safetensors").read_bytes() == weights


def test_folder_that_cannot_be_written_stops_the_run(tiny_distillation, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        distill(tiny_distillation(output=str(tmp_path / "file" / "run")))
    config = tiny_distillation()
    distill(config)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "checkpoints").write_text("")
    with pytest.raises(OSError, match=r"checkpoint of step 3 could not be written: .*--resume"):
        distill(replace(config, resume=True))


def test_tracker_gets_the_metrics(tiny_distillation, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    distill(tiny_distillation(trackers=["tensorboard"]))
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "trackers" / "alibi-dinov2"))
    events.Reload()
    logged = {event.step: event.value for event in events.Scalars("loss")}
    written = {entry["step"]: entry["loss"] for entry in read_metrics(tmp_path / "run" / "metrics.jsonl")[1:]}
    # TensorBoard keeps float32.
    assert logged == pytest.approx(written, rel=1e-6)


def test_unknown_and_missing_trackers_are_named(tiny_distillation, monkeypatch):
    with pytest.raises(ValueError, match="trackers has wandb; it may have tensorboard, trackio"):
        tiny_distillation(trackers=["wandb"])
    monkeypatch.setattr("training.distill.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="trackers trackio cannot be imported; pip install trackio"):
        distill(tiny_distillation(trackers=["trackio"]))


def test_watched_images_are_probed_and_pictured_and_change_no_weight(tiny_distillation, image_folder, tmp_path):
    plain = distill(tiny_distillation(output=str(tmp_path / "plain")))
    watched = distill(tiny_distillation(watch_images=str(image_folder), watch_size=140))
    assert (plain / "model.safetensors").read_bytes() == (watched / "model.safetensors").read_bytes()
    entries = [entry for entry in read_metrics(tmp_path / "run" / "metrics.jsonl") if "validation_loss" in entry]
    assert [entry["step"] for entry in entries] == [0, 5, 10]
    assert all("r2_held_out" in entry for entry in entries)
    pictures = sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir())
    assert pictures == ["step-00000000.png", "step-00000005.png", "step-00000010.png"]
