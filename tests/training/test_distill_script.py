# SPDX-License-Identifier: Apache-2.0
"""The script as users run it: started by Accelerate, killed, resumed, and given wrong input."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from alibi_dinov2.io.files import write_json
from training.configuration import Stage
from training.distill import distill, main
from training.distillation import learning_rate_at
from training.journal import read_metrics
from training.stopping import Stop, Stopped, stop_on_signals

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def one_thread(monkeypatch):
    """Have this process compute as the launched ones do, so that results can be compared bit for bit."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def launch(config, *options: str, processes: int = 1, repository: Path = REPOSITORY) -> subprocess.Popen:
    """Start the script of a clone with a configuration file, from the clone's root."""
    path = Path(config.output).with_suffix(".json")
    write_json(path, asdict(config))
    # With --cpu Accelerate starts a single process, whatever number is asked for; several need its other launcher.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    command += ["--multi_gpu"] if processes > 1 else ["--cpu"]
    command += ["training/distill.py", "--config", str(path), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        command,
        cwd=repository,
        # The script finds its clone by itself.
        env={name: value for name, value in environment.items() if name != "PYTHONPATH"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finished(process: subprocess.Popen) -> str:
    """Output of a script that must succeed."""
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait until a running script has made a file or folder."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def run_main(monkeypatch, config, *options: str) -> int | str | None:
    """What `main` exits with in this process."""
    path = Path(config.output).with_suffix(".json")
    write_json(path, asdict(config))
    monkeypatch.setattr("sys.argv", ["distill.py", "--config", str(path), *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def comparable(run: Path) -> list[dict]:
    """Metrics of a run but for its speed."""
    return [
        {name: value for name, value in entry.items() if name != "images_per_second"}
        for entry in read_metrics(run / "metrics.jsonl")
    ]


def weights_of(run: Path) -> bytes:
    """The finished student's weights."""
    return (run / "student" / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("one_thread")
def test_killed_and_resumed_run_is_the_uninterrupted_run_bit_for_bit(tiny_distillation, tmp_path):
    stages = [Stage(28, 20, None, 4, 1e-3, 2), Stage(42, 80, None, 2, 5e-4, 1)]
    changes = {"flip": True, "roll": True, "checkpoint_every": 7, "validate_every": 50, "stages": stages}
    changes["keep_checkpoints"] = 20  # so that the one that is waited for is not removed meanwhile
    broken = tiny_distillation(output=str(tmp_path / "broken"), **changes)
    process = launch(broken)
    wait_for(tmp_path / "broken" / "checkpoints" / "step-00000028", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    distill(tiny_distillation(output=str(tmp_path / "whole"), **changes))
    assert not (tmp_path / "broken" / "student").exists()
    # A kill may cut a line in two.
    with open(tmp_path / "broken" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 9')
    distill(replace(broken, resume=True))
    assert comparable(tmp_path / "broken") == comparable(tmp_path / "whole")
    assert weights_of(tmp_path / "broken") == weights_of(tmp_path / "whole")


@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_loss_curve_of_one_and_name_each_others_unreadable_images(
    tiny_distillation, image_folder, tmp_path
):
    for name in ("1.png", "4.png"):
        (image_folder / name).write_bytes(b"no image")
    changes = {"stages": [Stage(28, 8, None, 4, 1e-3, 2)], "checkpoint_every": 8, "max_unreadable": 0.5}
    runs = [tmp_path / "one", tmp_path / "two"]
    process = launch(tiny_distillation(output=str(runs[1]), **changes), processes=2)
    distill(tiny_distillation(output=str(runs[0]), **changes))
    finished(process)
    assert [json.loads((run / "config.json").read_text())["processes"] for run in runs] == [1, 2]
    curves = [[entry["loss"] for entry in comparable(run) if "loss" in entry] for run in runs]
    # Half batches are summed in another order, and Adam divides gradients that are nothing but rounding by their own
    # size: some processors come out 1 % apart. Other images would make it tens of per cent.
    assert curves[0] == pytest.approx(curves[1], rel=2e-2)
    listed = [(run / "unreadable.txt").read_text().splitlines() for run in runs]
    assert sorted(listed[0]) == sorted(listed[1])
    assert len(listed[0]) == 2


def test_script_runs_the_clone_that_it_is_in(tmp_path):
    clone = tmp_path / "clone"
    for package in {path.parent for path in REPOSITORY.glob("*/__init__.py")}:
        shutil.copytree(package, clone / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    with open(clone / "training" / "configuration.py", "a", encoding="utf-8") as file:
        file.write("\nraise SystemExit('this is the clone')\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Elsewhere, and with nothing of the current folder on the path, as `accelerate launch` starts it.
    command = [sys.executable, str(clone / "training" / "distill.py"), "--help"]
    started = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert started.stderr.strip() == "this is the clone"


@pytest.mark.usefixtures("one_thread")
def test_terminated_run_saves_a_checkpoint_and_goes_on_from_it_bit_for_bit(tiny_distillation, tmp_path):
    changes = {"stages": [Stage(28, 80, None, 4, 1e-3, 2)], "checkpoint_every": 10_000, "validate_every": 10_000}
    broken = tiny_distillation(output=str(tmp_path / "broken"), workers=1, **changes)
    path = tmp_path / "broken.json"
    write_json(path, asdict(broken))
    command = [sys.executable, "training/distill.py", "--config", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as here: sums in another order differ in the last bit
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, start_new_session=True, **streams)
    metrics = tmp_path / "broken" / "metrics.jsonl"
    wait_for(metrics, process)
    while len(read_metrics(metrics)) < 4:
        assert process.poll() is None
        time.sleep(0.005)
    # As a scheduler does it: to the processes that decode images too.
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    (checkpoint,) = (tmp_path / "broken" / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert 3 <= step < 80
    assert f"distill: stopped by SIGTERM after step {step}, whose checkpoint is saved; --resume goes on" in errors
    assert "Traceback" not in errors
    distill(replace(broken, resume=True))
    distill(tiny_distillation(output=str(tmp_path / "whole"), **changes))
    assert comparable(tmp_path / "broken") == comparable(tmp_path / "whole")
    assert weights_of(tmp_path / "broken") == weights_of(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_run_after_its_step_or_at_once_where_nothing_is_trained(number):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signals() as stop:
        with stop.put_off():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            assert stop.number == number
        with pytest.raises(Stopped, match=f"stopped by {signal.Signals(number).name}; --resume goes on"):
            os.kill(os.getpid(), number)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(("accumulated", "asked_at"), [(1, 4), (2, 5)])
def test_run_that_is_asked_to_stop_ends_at_a_whole_step(tiny_distillation, tmp_path, accumulated, asked_at):
    whole = distill(tiny_distillation(output=str(tmp_path / "whole"), gradient_accumulation_steps=accumulated))
    stop, calls = Stop(), []
    with pytest.MonkeyPatch.context() as patch:
        rate = lambda stages, step: calls.append(step) or learning_rate_at(stages, step)  # noqa: E731

        def asking(stages, step):
            if len(calls) == asked_at:
                stop.number = signal.SIGTERM
            return rate(stages, step)

        patch.setattr("training.distillation.learning_rate_at", asking)
        config = tiny_distillation(gradient_accumulation_steps=accumulated)
        with pytest.raises(Stopped) as stopped:
            distill(config, stop)
    assert stopped.value.step == asked_at // accumulated + 1
    assert len(calls) == stopped.value.step * accumulated
    resumed = distill(replace(config, resume=True))
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, [], "holds a run. Pass --resume"),
        ({"seed": 5}, ["--resume"], "seed was 0 and is 5"),
    ],
)
def test_run_in_the_folder_is_kept(tiny_distillation, tmp_path, monkeypatch, change, options, message):
    distill(tiny_distillation(stages=[Stage(28, 1, None, 4, 1e-3, 0)]))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    config = tiny_distillation(stages=[Stage(28, 1, None, 4, 1e-3, 0)], **change)
    said = run_main(monkeypatch, config, *options)
    assert said.startswith("distill: ")
    assert message in said
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_resume_without_a_checkpoint_begins_again_with_the_recorded_channels(tiny_distillation, tmp_path):
    config = tiny_distillation(stages=[Stage(28, 2, None, 4, 1e-3, 0)])
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


def test_full_disk_stops_the_run_with_the_last_checkpoint_intact(tiny_distillation, tmp_path, monkeypatch):
    config = tiny_distillation(keep_checkpoints=9)
    distill(config)
    run = tmp_path / "run"
    weights = weights_of(run)
    for name in ("checkpoints/step-00000009", "checkpoints/step-00000010", "student"):
        shutil.rmtree(run / name)
    kept = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}
    # Smaller than the optimiser's state: to the program the disk is full.
    limit = (run / "checkpoints" / "step-00000006" / "optimizer.bin").stat().st_size // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        said = run_main(monkeypatch, config, "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be written" in said
    assert "the last checkpoint is intact" in said
    assert {path: path.read_bytes() for path in kept} == kept
    distill(replace(config, resume=True))
    assert weights_of(run) == weights


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": [(28, 4), (28, 3)]}, "batch_size 3, which 2 processes with gradient_accumulation_steps 1 do not"),
        ({"stages": [(28, 2)], "gradient_accumulation_steps": 2}, "batch_size 2, .* must be a multiple of 4"),
        ({"stages": [(28, 4), (30, 4)]}, "A stage's size is 30; it must be a multiple of the patch size, 14 pixels"),
        ({"validation_sizes": [28, 50]}, "validation_sizes is 50; it must be a multiple of the patch size, 14 pixels"),
    ],
)
def test_what_would_fail_later_fails_at_once(tiny_distillation, change, message):
    stages = [Stage(size, 1, None, batch, 1e-3, 0) for size, batch in change.get("stages", [(28, 4)])]
    with pytest.raises(ValueError, match=message):
        tiny_distillation(**(change | {"stages": stages})).require_possible(processes=2, patch_size=14)
    tiny_distillation().require_possible(processes=2, patch_size=14)


def test_impossible_stage_leaves_no_folder(tiny_distillation, tmp_path):
    with pytest.raises(ValueError, match="A stage's size is 30"):
        distill(tiny_distillation(stages=[Stage(28, 1, None, 4, 1e-3, 0), Stage(30, 1, None, 4, 1e-3, 0)]))
    assert not (tmp_path / "run").exists()


def test_unreadable_images_are_remembered_by_a_resumed_run(tiny_distillation, image_folder, tmp_path):
    (image_folder / "1.png").write_bytes(b"no image")
    config = tiny_distillation(max_unreadable=0.2, stages=[Stage(28, 8, None, 4, 1e-3, 0)], checkpoint_every=4)
    distill(config)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000008")
    listed = (tmp_path / "run" / "unreadable.txt").read_text()
    assert len(listed.splitlines()) == 1
    distill(replace(config, resume=True))
    assert (tmp_path / "run" / "unreadable.txt").read_text() == listed
    # By itself the one would be allowed again.
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "unreadable.txt").write_text("another\n")
    with pytest.raises(ValueError, match="2 of 6 images cannot be read"):
        distill(replace(config, resume=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.copy(folder / "0.png", folder / "00.png"), r"1 new \(\S+/00\.png \d+ bytes \w+\)"),
        (
            lambda folder: (folder / "7.png").unlink(),
            r"validation are not .* with: 1 gone \(\S+/7\.png \d+ bytes \w+\)\.",
        ),
        (
            lambda folder: Image.new("L", (60, 60)).save(folder / "5.png"),
            r"1 new \(\S+/5\.png .*\), 1 gone \(\S+/5\.png",
        ),
    ],
)
def test_resumed_run_needs_the_images_that_it_began_with(tiny_distillation, image_folder, tmp_path, change, message):
    config = tiny_distillation(stages=[Stage(28, None, 1.0, 3, 1e-3, 0)])
    distill(config)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    change(image_folder)
    with pytest.raises(ValueError, match=message):
        distill(replace(config, resume=True))
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_hidden_files_added_before_a_resumption_are_no_images(tiny_distillation, image_folder):
    config = tiny_distillation(stages=[Stage(28, 2, None, 4, 1e-3, 0)])
    distill(config)
    (image_folder / "._0.png").write_bytes(b"what a system puts there")
    (image_folder / ".DS_Store").write_bytes(b"")
    distill(replace(config, resume=True))


def test_streaming_run_needs_the_validation_images_that_it_began_with(tiny_distillation, image_folder):
    config = tiny_distillation(stages=[Stage(28, 2, None, 4, 1e-3, 0)], streaming=True)
    distill(config)
    Image.new("RGB", (50, 50)).save(image_folder / "00.png")
    with pytest.raises(ValueError, match="images of the validation are not those"):
        distill(replace(config, resume=True))
