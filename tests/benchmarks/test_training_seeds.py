# SPDX-License-Identifier: Apache-2.0
"""Every seed runs the recipe from its own start, and is measured against the teacher on other photographs."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.dense_features import dense_features
from benchmarks.training_seeds import main
from evaluation.position.noise import noise_images
from training.create_student import save_student
from training.import_onnx_teacher import teacher_processor


@pytest.fixture
def folder(tmp_path, tiny_teacher):
    """A folder with a tiny teacher, its student, images to train on, others, and a recipe of 9 steps."""
    tiny_teacher().save_pretrained(tmp_path / "teacher")
    teacher_processor().save_pretrained(tmp_path / "teacher")
    save_student(str(tmp_path / "teacher"), tmp_path / "student")
    for name, seed in (("photographs", 0), ("others", 1)):
        (tmp_path / name).mkdir()
        for number, image in enumerate(noise_images(5, 70, seed=seed)):
            image.save(tmp_path / name / f"{number}.png")
    stage = {"size": 28, "steps": 9, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1}
    recipe = {name: str(tmp_path / name) for name in ("teacher", "student")}
    recipe |= {"images": str(tmp_path / "photographs"), "output": "elsewhere", "stages": [stage]}
    recipe |= {"validation_count": 2, "validation_sizes": [28], "zero_channels": "1,5", "mixed_precision": "no"}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    return tmp_path


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """`run(*more)`: the table that the benchmark prints with the recipe shortened to 2 steps."""

    def printed(*more) -> list[str]:
        paths = ["--recipe", folder / "recipe.json", "--images", folder / "others", "--runs", folder / "runs"]
        words = [*paths, "--output", folder / "seeds.json", "--steps", 2, "--sizes", 42, "--seeds", 3, 4, *more]
        monkeypatch.setattr(sys, "argv", ["training_seeds", *map(str, words)])
        main()
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]

    return printed


def expected_cosine(folder, student) -> float:
    """The mean over patches, by NumPy, of what is left without the channels that the recipe zeroes."""
    images = [Image.open(file) for file in sorted((folder / "others").iterdir())]
    pair = [load_backbone(name) for name in (student, folder / "teacher")]
    kept = [channel for channel in range(pair[0].model.config.hidden_size) if channel not in (1, 5)]
    one, other = (np.stack(list(dense_features(model, images, 42)))[..., kept] for model in pair)
    return ((one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)).mean()


def test_seeds_are_trained_from_the_start_and_measured(run, folder):
    table = run()
    record = json.loads((folder / "seeds.json").read_text())
    students = {"start": folder / "student"}
    students |= {f"seed {seed}": folder / "runs" / f"seed-{seed}" / "student" for seed in (3, 4)}
    assert list(record["students"]) == list(students)
    weights = [load_file(student / "model.safetensors") for student in students.values()]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert any((weights[one][name] != weights[other][name]).any() for name in weights[one])
    for name, student in students.items():
        # Sums of float32 in another order.
        assert record["students"][name]["42"] == pytest.approx(expected_cosine(folder, student), abs=1e-5)
    for seed in (3, 4):
        metrics = (folder / "runs" / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()
        assert max(json.loads(line)["step"] for line in metrics) == 2
    values = [record["students"][f"seed {seed}"]["42"] for seed in (3, 4)]
    assert table[-1] == f"| mean over seeds | {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} |"


def test_a_stopped_study_goes_on_and_a_finished_one_is_left(run, folder):
    table = run()
    file = folder / "seeds.json"
    record = json.loads(file.read_text())
    before = file.stat().st_mtime_ns
    assert run() == table
    assert file.stat().st_mtime_ns == before
    del record["students"]["seed 4"]
    file.write_text(json.dumps(record))
    assert run() == table


def test_another_study_is_not_added_to_this_one(run, capsys):
    run("--seeds", 3)
    with pytest.raises(SystemExit):
        run("--seeds", 3, "--steps", 3)
    assert "Choose another file" in capsys.readouterr().err
