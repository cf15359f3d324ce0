# SPDX-License-Identifier: Apache-2.0
"""Make a student from a DINOv2 teacher: the same weights, the position embedding gone, an ALiBi bias in its place.

python -m training.create_student --teacher facebook/dinov2-with-registers-small --output student
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedConfig, PreTrainedModel

from alibi_dinov2.command import run
from alibi_dinov2.io.files import new_folder, require_new_folder
from modeling_alibi_dinov2 import Dinov2AlibiConfig, Dinov2AlibiImageProcessor, Dinov2AlibiModel
from modeling_alibi_dinov2.configuration_alibi_dinov2 import METRICS, POSITION_ENCODINGS, SLOPES, SLOPES_PER

TEACHER_TYPES = ("dinov2", "dinov2_with_registers")
POSITION_EMBEDDING = "embeddings.position_embeddings"
# A student has these even if its teacher has not: no registers are a tensor without rows, and a teacher may come
# without the mask token, which starts at zero as in DINOv2. Slopes are what a learned bias adds.
STUDENT_ONLY = ("embeddings.register_tokens", "embeddings.mask_token", "alibi_slopes")


def load_teacher(name: str) -> PreTrainedModel:
    """A teacher by Hub id or folder, in evaluation mode and float32, in its stock class.

    Raises:
        ValueError: it is no DINOv2, with or without registers; the message names the architecture.
        OSError: there is no such model.
    """
    require_teacher(AutoConfig.from_pretrained(name), name)
    return AutoModel.from_pretrained(name, dtype=torch.float32).eval()


def require_teacher(config: PreTrainedConfig, name: str) -> None:
    """Raise a `ValueError` unless the configuration is a DINOv2's."""
    if config.model_type not in TEACHER_TYPES:
        raise ValueError(
            f"{name} is a {config.model_type!r} model; a teacher must be one of {', '.join(TEACHER_TYPES)}, for "
            "example facebook/dinov2-with-registers-small."
        )


def student_config(teacher: PreTrainedConfig, **bias) -> Dinov2AlibiConfig:
    """The teacher's configuration with the choices of bias (`position_encoding`, `alibi_…`) added."""
    fields = teacher.to_dict()
    fields.pop("model_type")
    fields.pop("architectures")
    fields.pop("use_mask_token", None)
    fields.setdefault("num_register_tokens", 0)
    return Dinov2AlibiConfig(**fields, **bias)


def create_student(teacher: PreTrainedModel, **bias) -> Dinov2AlibiModel:
    """A student with every tensor that it shares with the teacher equal to the teacher's.

    Args:
        teacher: a stock `Dinov2Model` or `Dinov2WithRegistersModel`.
        bias: fields of `Dinov2AlibiConfig` that choose the bias.

    Raises:
        ValueError: a tensor of either has no counterpart in the other, the position embedding apart.
    """
    student = Dinov2AlibiModel(student_config(teacher.config, **bias)).eval()
    weights = teacher.state_dict()
    del weights[POSITION_EMBEDDING]
    missing, unexpected = student.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith(STUDENT_ONLY)]
    if missing or unexpected:
        raise ValueError(f"The teacher lacks {missing} and has {unexpected} besides; it is not a DINOv2 as released.")
    return student


def require_teacher_weights(student: Dinov2AlibiModel, teacher: PreTrainedModel) -> None:
    """Raise a `ValueError` unless every tensor of the teacher but the position embedding is in the student, equal."""
    weights = student.state_dict()
    differing = [
        name
        for name, tensor in teacher.state_dict().items()
        if name != POSITION_EMBEDDING and not (name in weights and torch.equal(weights[name], tensor))
    ]
    if differing or POSITION_EMBEDDING in weights:
        raise ValueError(f"The student differs from its teacher in {differing or [POSITION_EMBEDDING]}.")


def student_processor(teacher_processor, patch_size: int) -> Dinov2AlibiImageProcessor:
    """The teacher's image processing, with sides that are multiples of the patch size."""
    return Dinov2AlibiImageProcessor(
        patch_size=patch_size,
        image_mean=teacher_processor.image_mean,
        image_std=teacher_processor.image_std,
        resample=teacher_processor.resample,
    )


def save_student(teacher_name: str, output: str | Path, **bias) -> None:
    """Teacher -> student folder, verified by reloading.

    Raises:
        ValueError: the teacher is of another architecture, or the reloaded student is not equal to it.
        FileExistsError: `output` is a folder with something in it.
    """
    require_new_folder(output)
    teacher = load_teacher(teacher_name)
    student = create_student(teacher, **bias)
    processor = student_processor(
        AutoImageProcessor.from_pretrained(teacher_name, backend="pil"), student.config.patch_shape[0]
    )
    with new_folder(output) as folder:
        student.save_pretrained(folder)
        processor.save_pretrained(folder)
        require_teacher_weights(Dinov2AlibiModel.from_pretrained(folder), teacher)


def add_bias_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for the choices of bias, the slopes apart."""
    parser.add_argument("--position-encoding", choices=POSITION_ENCODINGS, default="alibi")
    parser.add_argument("--alibi-metric", choices=METRICS, default="euclidean")
    parser.add_argument("--alibi-wrap", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--alibi-normalize", action=argparse.BooleanOptionalAction, default=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="Hub id or folder of a DINOv2, with or without registers")
    parser.add_argument("--output", required=True, type=Path, help="folder to make")
    parser.add_argument("--alibi-slopes", choices=SLOPES, default="constant")
    parser.add_argument("--alibi-slopes-per", choices=SLOPES_PER, default="head_and_layer", help="of learned slopes")
    parser.add_argument("--alibi-slope", type=float, help="the constant slope, or where learned ones start")
    add_bias_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="for learned slopes that start at random")

    def command(arguments: argparse.Namespace) -> None:
        choices = dict(vars(arguments))
        teacher, output, seed = (choices.pop(name) for name in ("teacher", "output", "seed"))
        torch.manual_seed(seed)
        save_student(teacher, output, **choices)
        print(f"{output}: student of {teacher}")

    run(parser, command)


if __name__ == "__main__":
    main()
