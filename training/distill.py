# SPDX-License-Identifier: Apache-2.0
"""Distil a DINOv2 teacher's patch features into an ALiBi-DINOv2 student.

    accelerate launch training/distill.py --teacher teacher --student student --images photographs \\
        --output runs/first --stages size=112,steps=400,batch_size=32,learning_rate=4e-5

The run's folder holds `config.json`, `metrics.jsonl`, `checkpoints/`, `best/` (the student with the lowest validation
loss) and, at the end, `student/`. `--resume` goes on from the newest checkpoint.
"""

import json
import sys
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from PIL import Image
from transformers import AutoImageProcessor, PreTrainedModel
from transformers.utils import logging

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.features.weights import weights_sha256
from alibi_dinov2.io.files import new_folder, require_new_folder, write_json
from alibi_dinov2.io.images import read_folder
from alibi_dinov2.io.tensor_store import TensorStore
from evaluation.position.channel_probes import most_positional_channels
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor, Dinov2AlibiModel
from training.checkpoints import find_checkpoints, writing
from training.configuration import DistillationConfig, parse_configuration, require_same
from training.create_student import create_student, load_teacher, student_processor
from training.crops import center_crops
from training.distillation import Distillation, TrainingDiverged, make_accelerator
from training.images import Images, decode, load_images, split_images
from training.target import Target, in_low_precision
from training.watch import watcher

LOW_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}
PROBE_IMAGES = 16  # held-out images to find the positional channels with


def load_student(config: DistillationConfig, teacher: PreTrainedModel) -> Dinov2AlibiModel:
    """The student to start from, loaded or made from the teacher.

    Raises:
        ValueError: its width or patch size is not the teacher's, or its tokens or layers that are to be compared.
    """
    if not config.student:
        return create_student(teacher, position_encoding=config.position_encoding, alibi_slopes=config.alibi_slopes)
    student = Dinov2AlibiModel.from_pretrained(config.student, dtype=torch.float32)
    compared = ["num_register_tokens"] * (config.register_weight > 0) + ["num_hidden_layers"] * bool(config.layers)
    for name in ("hidden_size", "patch_size", *compared):
        # A DINOv2 without registers does not even say so.
        if getattr(student.config, name) != getattr(teacher.config, name, 0):
            raise ValueError(
                f"The student's {name} is {getattr(student.config, name)}, the teacher's "
                f"{getattr(teacher.config, name, 0)}; make a student of this teacher with training.create_student."
            )
    return student


def load_all(config: DistillationConfig) -> tuple[dict[str, Images], datasets.Dataset]:
    """Training images by source, and images for validation."""
    load = partial(load_images, split=config.split, column=config.image_column)
    images = {source: load(source, streaming=config.streaming) for source in {str(config.images), *config.sources}}
    held_out = load(config.validation_images) if config.validation_images else None
    training, held_out = split_images(images[str(config.images)], held_out, config.validation_count)
    return images | {str(config.images): training}, held_out


def make_target(
    config: DistillationConfig,
    accelerator: Accelerator,
    teacher: PreTrainedModel,
    zero_channels: list[int],
    processor: Dinov2AlibiImageProcessor,
) -> Target:
    """The frozen teacher, in the run's precision and place, and what is asked of it."""
    for stage in config.stages:
        layers, registers = teacher.config.num_hidden_layers, getattr(teacher.config, "num_register_tokens", 0)
        config.token_weights(stage).require_in(layers, registers)
    keep = torch.ones(teacher.config.hidden_size)
    keep[zero_channels] = 0
    identity = f"{weights_sha256(teacher)} {accelerator.mixed_precision} {processor.image_mean} {processor.image_std}"
    teacher = teacher.to(accelerator.device).eval().requires_grad_(False)
    if accelerator.mixed_precision in LOW_PRECISION:
        in_low_precision(teacher, LOW_PRECISION[accelerator.mixed_precision])
    return Target(
        teacher,
        keep.to(accelerator.device),
        processor.image_mean,
        processor.image_std,
        config.average_transforms,
        TensorStore(config.target_cache) if config.target_cache else None,
        identity,
    )


def randomly_rolled(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """An image rolled by random amounts, as on a torus: whatever is in it may now be anywhere."""
    shift = (int(random.integers(image.height)), int(random.integers(image.width)))
    return Image.fromarray(np.roll(np.asarray(image), shift, axis=(0, 1)))


def choose_zero_channels(config: DistillationConfig, width: int, images: datasets.Dataset) -> list[int]:
    """Numbers of the teacher's channels to put to zero.

    `auto` takes those that tell the place of a patch best on randomly rolled images, at the teacher's own size. Without
    the rolls a channel for sky would count as positional, because in photographs the sky is above.

    Raises:
        ValueError: `zero_channels` is neither `auto`, `none` nor a list of channels of the teacher.
    """
    if config.zero_channels == "none":
        return []
    if config.zero_channels == "auto":
        random = np.random.default_rng(config.seed)
        rolled = [randomly_rolled(decode(row["image"]), random) for row in images.take(min(PROBE_IMAGES, len(images)))]
        teacher = load_backbone(str(config.teacher))
        maps = dense_features(teacher, rolled, teacher.model.config.image_size)
        return most_positional_channels(list(maps), config.zero_channel_count)
    try:
        channels = sorted({int(number) for number in config.zero_channels.split(",")})
    except ValueError:
        channels = [-1]
    if not all(0 <= channel < width for channel in channels):
        raise ValueError(
            f"zero_channels is {config.zero_channels!r}; it must be 'auto', 'none' or channels from 0 to {width - 1} "
            "separated by commas."
        )
    return channels


def save_student(
    student: Dinov2AlibiModel, folder: Path, weights: dict[str, torch.Tensor], processor: Dinov2AlibiImageProcessor
) -> None:
    """Write a student and its image processor into a folder, whole or not at all."""
    with writing(f"The student {folder}"), new_folder(folder, replace=True) as temporary:
        student.save_pretrained(temporary, state_dict=weights)
        processor.save_pretrained(temporary)


def require_trackers(names: list[str]) -> None:
    """Raise a `ValueError` naming the trackers that are not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ValueError(f"trackers {', '.join(missing)} cannot be imported; pip install {' '.join(missing)}.")


def prepare_run(config: DistillationConfig, processes: int) -> tuple[int, Path | None, dict[str, Any]]:
    """The step to start from, the checkpoint to load, and what a run to resume has recorded of itself.

    Raises:
        FileExistsError: the folder holds a run that is not to be resumed.
        FileNotFoundError: there is no run to resume.
        ValueError: the run to resume has another configuration or number of processes.
    """
    run = Path(str(config.output))
    if not config.resume:
        if (run / "config.json").exists():
            raise FileExistsError(f"{run} holds a run. Pass --resume to go on with it, or choose another folder.")
        require_new_folder(run)
        return 0, None, {}
    if not (run / "config.json").exists():
        raise FileNotFoundError(f"{run} holds no run to resume; start one without --resume.")
    saved = json.loads((run / "config.json").read_text(encoding="utf-8"))
    require_same(config, saved)
    if saved["processes"] != processes:
        raise ValueError(
            f"The run was started with {saved['processes']} processes and cannot go on with {processes}: a checkpoint "
            "holds the random state of each. Pass the old number."
        )
    checkpoints = find_checkpoints(run)
    return *(checkpoints[-1] if checkpoints else (0, None)), saved


def distill(config: DistillationConfig) -> Path:
    """Run, or resume, a distillation; returns the folder of the finished student."""
    require_trackers(config.trackers)
    watched = (read_folder(config.watch_images), config.watch_size) if config.watch_images else None
    images, held_out = load_all(config)
    if not config.streaming:
        config = config.with_steps({source: len(found) for source, found in images.items()})
    run = Path(str(config.output))
    accelerator = make_accelerator(config)
    start, checkpoint, saved = prepare_run(config, accelerator.num_processes)
    accelerator.wait_for_everyone()  # until all have looked at the folder, nobody writes to it
    set_seed(config.seed)
    teacher = load_teacher(str(config.teacher))
    student = load_student(config, teacher)
    teacher_processor = AutoImageProcessor.from_pretrained(config.teacher, backend="pil")
    processor = student_processor(teacher_processor, student.config.patch_shape[0])
    if config.resume:
        channels = saved["zeroed_channels"]
    else:
        channels = choose_zero_channels(config, teacher.config.hidden_size, held_out)
    if accelerator.is_main_process and not config.resume:
        facts = {"zeroed_channels": channels, "processes": accelerator.num_processes}
        write_json(run / "config.json", asdict(config) | facts)
        count = "A stream of" if config.streaming else sum(map(len, images.values()))
        print(f"{count} images, {len(held_out)} held out; teacher channels put to zero: {channels or 'none'}")
    accelerator.wait_for_everyone()
    distillation = Distillation(
        config,
        accelerator,
        make_target(config, accelerator, teacher, channels, processor),
        student,
        [images[source] for source in config.sources],
        center_crops(held_out, config.validation_size),
        partial(save_student, processor=processor),
        watcher(*watched, processor, run, accelerator.is_main_process) if watched else None,
    )
    accelerator.init_trackers("alibi-dinov2", {name: str(value) for name, value in asdict(config).items()})
    if checkpoint:
        accelerator.load_state(str(checkpoint))
    distillation.train(start)
    student_folder = distillation.save("student")
    accelerator.end_training()
    return student_folder


def main() -> None:
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        print(f"Student: {distill(parse_configuration())}")
    except (ValueError, OSError, TrainingDiverged) as error:
        sys.exit(f"distill: {error}")
    except KeyboardInterrupt:
        sys.exit("distill: stopped; --resume goes on from the newest checkpoint.")


if __name__ == "__main__":
    main()
