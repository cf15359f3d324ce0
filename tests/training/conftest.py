# SPDX-License-Identifier: Apache-2.0
"""A tiny distillation: teacher and student folders, and images whose content can be told from their colours."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.configuration import DistillationConfig, Stage
from training.create_student import save_student
from training.import_onnx_teacher import teacher_processor


@pytest.fixture(scope="session")
def originals(tmp_path_factory, tiny_teacher):
    """Folder with a tiny random teacher with four registers, its student, and eight images of different sizes."""
    folder = tmp_path_factory.mktemp("originals")
    tiny_teacher().save_pretrained(folder / "teacher")
    teacher_processor().save_pretrained(folder / "teacher")
    save_student(str(folder / "teacher"), folder / "student")
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(8):
        small = random.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((70 + number, 60), Image.Resampling.BICUBIC)
        image.save(folder / "images" / f"{number}.png")
    return folder


@pytest.fixture
def teacher_folder(tmp_path, originals):
    """Folder of a tiny random teacher with four registers."""
    return Path(shutil.copytree(originals / "teacher", tmp_path / "teacher"))


@pytest.fixture
def student_folder(tmp_path, originals):
    """Folder of the teacher's student."""
    return Path(shutil.copytree(originals / "student", tmp_path / "student"))


@pytest.fixture
def image_folder(tmp_path, originals):
    """Folder of eight images of different sizes."""
    return Path(shutil.copytree(originals / "images", tmp_path / "images"))


@pytest.fixture
def tiny_distillation(tmp_path, teacher_folder, student_folder, image_folder):
    """`tiny_distillation(**overrides)`: the configuration of a run of a few seconds."""

    def make(**overrides) -> DistillationConfig:
        values = {
            "teacher": str(teacher_folder),
            "student": str(student_folder),
            "images": str(image_folder),
            "output": str(tmp_path / "run"),
            "stages": [Stage(28, 6, None, 4, 1e-3, 2), Stage(42, 4, None, 2, 5e-4, 1)],
            "validation_count": 2,
            "validation_sizes": [28],
            "zero_channels": "1,5",
            "log_every": 1,
            "validate_every": 5,
            "checkpoint_every": 3,
        }
        return DistillationConfig(**(values | overrides))

    return make
