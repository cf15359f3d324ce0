# SPDX-License-Identifier: Apache-2.0
"""The shipped configuration for sharded training, run with two processes.

Accelerate shards on accelerators only. The processes here are told that the CPU is one; all else is as on GPUs.
"""

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config import load_config_from_file
from safetensors.torch import load_file

from alibi_dinov2.io.files import write_json
from training.configuration import Stage
from training.create_student import create_student, load_teacher
from training.distill import distill
from training.journal import read_metrics

REPOSITORY = Path(__file__).parents[2]
FSDP = "training/fsdp.yaml"
ON_CPU = """
import sys
import accelerate.state
import torch
from accelerate.utils import DistributedType

sys.path.insert(0, ".")
prepare = accelerate.state.PartialState._prepare_backend
accelerate.state.PartialState._prepare_backend = lambda *args: (prepare(*args)[0], DistributedType.MULTI_GPU)
accelerate.state.PartialState.set_device = lambda state: setattr(state, "device", torch.device("cpu"))
torch.distributed.init_process_group("gloo")
from training.distill import main
main()
"""


def distance(one, other):
    return sum((one[name] - other[name]).square().sum() for name in one).sqrt().item()


def test_configuration_is_accelerates_own_and_names_a_layer_of_the_model(teacher_folder):
    config = load_config_from_file(FSDP)
    assert config.distributed_type == "FSDP"
    wrapped = yaml.safe_load((REPOSITORY / FSDP).read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"]
    student = create_student(load_teacher(str(teacher_folder)))
    layers = [module for module in student.modules() if type(module).__name__ == wrapped]
    assert len(layers) == student.config.num_hidden_layers


def test_sharded_run_gives_the_student_of_one_process(tiny_distillation, image_folder, tmp_path):
    stages = [Stage(28, 6, None, 4, 1e-4, 2)]
    single = distill(tiny_distillation(stages=stages, output=str(tmp_path / "single")))
    watch = {"watch_images": str(image_folder), "watch_size": 140}
    config = tiny_distillation(stages=stages, output=str(tmp_path / "sharded"), keep_checkpoints=9, **watch)
    script, file = tmp_path / "on_cpu.py", tmp_path / "config.json"
    script.write_text(ON_CPU)

    def launch(config):
        write_json(file, asdict(config))
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", FSDP, "--num_processes", "2"]
        command += ["--mixed_precision", "no", str(script), "--config", str(file)]
        environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)  # the script names the clone itself
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    launch(config)
    checkpoints = tmp_path / "sharded" / "checkpoints"
    assert (checkpoints / "step-00000003" / "pytorch_model_fsdp_0").is_dir()
    curves = [
        [entry["loss"] for entry in read_metrics(folder / "metrics.jsonl") if "loss" in entry]
        for folder in (tmp_path / "single", tmp_path / "sharded")
    ]
    # Half batches are summed in another order, and Adam divides gradients that are nothing but rounding by their own
    # size: some processors come out 1 % apart. Other images would make it tens of per cent.
    assert curves[1] == pytest.approx(curves[0], rel=2e-2)
    watched = [entry for entry in read_metrics(tmp_path / "sharded" / "metrics.jsonl") if "r2_held_out" in entry]
    assert [entry["step"] for entry in watched] == [0, 5, 6]
    expected = load_file(single / "model.safetensors")
    found = load_file(tmp_path / "sharded" / "student" / "model.safetensors")
    assert found.keys() == expected.keys()
    before = load_file(Path(config.student) / "model.safetensors")
    moved, apart = distance(expected, before), distance(expected, found)
    assert apart < 0.2 * moved, f"{apart} apart after {moved}"
    (checkpoints / "step-00000006").rename(tmp_path / "last")
    launch(replace(config, resume=True))
    again = load_file(tmp_path / "sharded" / "student" / "model.safetensors")
    # Processes add up gradients in an order of their own.
    assert all(torch.allclose(again[name], found[name], atol=1e-4) for name in found)
