# SPDX-License-Identifier: Apache-2.0
"""A student is its teacher without the position embedding; nothing else is a teacher."""

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from modeling_alibi_dinov2 import Dinov2AlibiModel
from tests.comparison import assert_close
from training.create_student import create_student, load_teacher, save_student
from training.import_onnx_teacher import teacher_processor


def test_every_shared_tensor_is_the_teachers(tmp_path, teacher_folder):
    save_student(str(teacher_folder), tmp_path / "student")
    student = AutoModel.from_pretrained(tmp_path / "student")
    assert type(student) is Dinov2AlibiModel
    teacher = AutoModel.from_pretrained(teacher_folder).state_dict()
    teacher.pop("embeddings.position_embeddings")
    weights = student.state_dict()
    assert weights.keys() == teacher.keys()
    assert [name for name in teacher if not torch.equal(weights[name], teacher[name])] == []


def test_teacher_without_registers_and_mask_token(tiny_teacher):
    teacher = tiny_teacher(Dinov2Model, Dinov2Config, use_mask_token=False)
    student = create_student(teacher)
    assert student.config.num_register_tokens == 0
    assert student.embeddings.register_tokens.shape == (1, 0, 48)
    assert not student.embeddings.mask_token.any()


def test_student_is_the_teacher_with_zeroed_embedding_but_for_the_bias(tiny_teacher, random_pixels):
    teacher = tiny_teacher()
    student = create_student(teacher, position_encoding="none")
    pixels = random_pixels(2, 4, 6)
    with torch.no_grad():
        teacher.embeddings.position_embeddings.zero_()
        expected, found = teacher(pixels).last_hidden_state, student(pixels).last_hidden_state
    assert_close(found, expected, 1e-5, "the same operations in float32")


def test_choices_of_bias_reach_the_student(tmp_path, teacher_folder):
    save_student(str(teacher_folder), tmp_path / "student", alibi_slopes="learned", alibi_metric="manhattan")
    student = Dinov2AlibiModel.from_pretrained(tmp_path / "student")
    assert (student.config.alibi_slopes, student.config.alibi_metric) == ("learned", "manhattan")
    assert student.encoder.layer[0].attention.alibi_slopes.shape == (3,)


def test_other_architecture_is_refused_by_name(tmp_path):
    ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="is a 'vit' model; a teacher must be one of dinov2"):
        load_teacher(str(tmp_path / "vit"))


def test_output_with_content_is_refused_and_kept(tmp_path, teacher_folder):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "precious").write_text("1")
    with pytest.raises(FileExistsError, match="not empty"):
        save_student(str(teacher_folder), tmp_path / "student")
    assert [path.name for path in (tmp_path / "student").iterdir()] == ["precious"]


def test_half_a_teacher_leaves_nothing_behind(tmp_path, teacher_folder):
    (teacher_folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        save_student(str(teacher_folder), tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_processor_of_the_teacher_is_kept(tmp_path, tiny_teacher):
    tiny_teacher().save_pretrained(tmp_path / "teacher")
    processor = teacher_processor()
    processor.image_mean = [0.1, 0.2, 0.3]
    processor.save_pretrained(tmp_path / "teacher")
    save_student(str(tmp_path / "teacher"), tmp_path / "student")
    saved = AutoImageProcessor.from_pretrained(tmp_path / "student")
    assert list(saved.image_mean) == [0.1, 0.2, 0.3]
    assert saved.patch_size == 14
