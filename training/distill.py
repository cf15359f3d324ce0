# SPDX-License-Identifier: Apache-2.0
"""Distil a DINOv2 teacher's patch features into an ALiBi-DINOv2 student.

    accelerate launch training/distill.py --teacher teacher --student student --images photographs \\
        --output runs/first --stages size=112,steps=400,batch_size=32,learning_rate=4e-5

The run's folder holds `config.json`, `images.json` (what was trained and validated on), `metrics.jsonl`,
`checkpoints/`, `best/` (the student with the lowest validation loss) and, at the end, `student/`. SIGINT (Ctrl-C) and
SIGTERM end a run after the step that it is at, with a checkpoint. `--resume` goes on from the newest checkpoint.
"""

import sys
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    # Started as a file: the clone that it is in comes before whatever may be installed.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import numpy as np
import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import set_seed
from PIL import Image
from transformers import AutoImageProcessor, PreTrainedModel
from transformers.utils import logging

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.features.weights import weights_sha256
from alibi_dinov2.io.files import new_folder, write_json
from alibi_dinov2.io.images import read_folder
from alibi_dinov2.io.tensor_store import TensorStore
from evaluation.position.channel_probes import most_positional_channels
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor, Dinov2AlibiModel
from training.checkpoints import find_checkpoints, read_streams, writing
from training.configuration import DistillationConfig, parse_configuration, require_same
from training.create_student import create_student, load_teacher, student_processor
from training.crops import Mixture
from training.distillation import Distillation, TrainingDiverged, make_accelerator
from training.held_out import HeldOut
from training.images import Images, decode, load_images, split_images
from training.precision import choose_precision
from training.run_folder import IMAGES, list_all, read_run, require_listed, require_same_processes, write_run
from training.stopping import Stop, Stopped, stop_on_signals
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
        return create_student(teacher, **config.bias)
    student = Dinov2AlibiModel.from_pretrained(config.student, dtype=torch.float32, **config.bias)
    compared = ["num_register_tokens"] * (config.register_weight > 0) + ["num_hidden_layers"] * bool(config.layers)
    for name in ("hidden_size", "patch_size", *compared):
        # A DINOv2 without registers does not even say so.
        if getattr(student.config, name) != getattr(teacher.config, name, 0):
            raise ValueError(
                f"The student's {name} is {getattr(student.config, name)}, the teacher's "
                f"{getattr(teacher.config, name, 0)}; make a student of this teacher with training.create_student."
            )
    return student


def require_slopes(config: DistillationConfig, student: Dinov2AlibiModel) -> None:
    """Raise a `ValueError` if a stage is to train slopes that the student has not."""
    if any(stage.trainable == "slopes" for stage in config.stages) and student.config.alibi_slopes != "learned":
        raise ValueError(
            f"A stage trains slopes, but the student's alibi_slopes is {student.config.alibi_slopes!r}. Make a student "
            "with 'learned' ones, by --alibi_slopes or training.create_student, or leave trainable out."
        )


def load_all(config: DistillationConfig) -> tuple[dict[str, Images], datasets.Dataset]:
    """Training images by source, and images for validation."""
    load = partial(load_images, split=config.split, column=config.image_column)
    images = {source: load(source, streaming=config.streaming) for source in {*config.sources, *config.other_sources}}
    held_out = load(config.validation_images, split=config.validation_split) if config.validation_images else None
    training, to_validate = split_images(images[str(config.images)], held_out, config.validation_count)
    images[str(config.images)] = training
    if config.mixed_images and held_out is None:
        images[config.mixed_images], mixed = split_images(images[config.mixed_images], None, config.validation_count)
        to_validate = datasets.concatenate_datasets([to_validate, mixed])
    return images, to_validate


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
    versions = f"torch {torch.__version__} transformers {transformers.__version__}"
    precision = f"{accelerator.mixed_precision} on {accelerator.device.type}"
    identity = f"{weights_sha256(teacher)} {precision} {processor.image_mean} {processor.image_std} {versions}"
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


def distill(config: DistillationConfig, stop: Stop | None = None) -> Path:
    """Run, or resume, a distillation; returns the folder of the finished student.

    Args:
        config: the run's configuration.
        stop: whether a signal has asked for the end; `None` where nobody asks.
    """
    require_trackers(config.trackers)
    saved = read_run(config)
    watched = (read_folder(config.watch_images), config.watch_size) if config.watch_images else None
    images, to_validate = load_all(config)
    run = Path(str(config.output))
    precision, reason = saved.get("precision") or choose_precision(config.mixed_precision)
    accelerator = make_accelerator(replace(config, mixed_precision=precision))
    listed = list_all(images, to_validate) if accelerator.is_main_process else {}
    if saved:
        require_listed(run / IMAGES, listed)
    lengths = {source: len(part) for source, part in images.items() if isinstance(part, datasets.Dataset)}
    if not config.streaming:
        config = config.with_steps(lengths)
    if saved:
        require_same(config, saved)
        require_same_processes(saved, accelerator.num_processes)
    set_seed(config.seed)
    teacher = load_teacher(str(config.teacher))
    student = load_student(config, teacher)
    require_slopes(config, student)
    config.require_possible(accelerator.num_processes, student.config.patch_shape[0])
    teacher_processor = AutoImageProcessor.from_pretrained(config.teacher, backend="pil")
    processor = student_processor(teacher_processor, student.config.patch_shape[0])
    held_out = HeldOut.read(to_validate, config.validation_sizes)
    if saved:
        channels = saved["zeroed_channels"]
    else:
        channels = choose_zero_channels(config, teacher.config.hidden_size, held_out.images)
    accelerator.wait_for_everyone()  # until all have looked at the folder, nobody writes to it
    if accelerator.is_main_process:
        if not saved:
            facts = {"zeroed_channels": channels, "processes": accelerator.num_processes}
            write_run(config, facts | {"precision": [accelerator.mixed_precision, reason]})
        if not (run / IMAGES).exists():
            write_json(run / IMAGES, listed)
        count = "A stream of" if config.streaming else sum(lengths.values())
        print(f"{count} images, {len(held_out.images)} held out; teacher channels put to zero: {channels or 'none'}")
        print(f"Precision {accelerator.mixed_precision}: {reason}")
    accelerator.wait_for_everyone()
    checkpoints = find_checkpoints(run) if saved else []
    start, checkpoint = checkpoints[-1] if checkpoints else (0, None)
    distillation = Distillation(
        config,
        accelerator,
        make_target(config, accelerator, teacher, channels, processor),
        student,
        [images[source] for source in config.sources],
        held_out.crops,
        partial(save_student, processor=processor),
        watcher(*watched, processor, run, accelerator.is_main_process) if watched else None,
        held_out.known,
        Mixture(images[config.mixed_images], config.mixed_share) if config.mixed_images else None,
        read_streams(checkpoint) if checkpoint else None,
        stop,
    )
    distillation.journal.open(start)
    distillation.journal.note_unreadable(held_out.unreadable, len(to_validate), config.max_unreadable)
    accelerator.init_trackers("alibi-dinov2", {name: str(value) for name, value in asdict(config).items()})
    if checkpoint:
        accelerator.load_state(str(checkpoint))
    try:
        distillation.train(start)
    except Stopped:
        accelerator.end_training()
        raise
    student_folder = distillation.save("student")
    accelerator.end_training()
    return student_folder


def main() -> None:
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with stop_on_signals() as stop:
            print(f"Student: {distill(parse_configuration(), stop)}")
    except (ValueError, OSError, TrainingDiverged) as error:
        sys.exit(f"distill: {error}")
    except Stopped as stopped:
        print(f"distill: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.number)  # as a shell reports a program that a signal has ended


if __name__ == "__main__":
    main()
