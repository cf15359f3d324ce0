# SPDX-License-Identifier: Apache-2.0
"""Configuration of a distillation: dataclasses, read from a JSON file and the command line."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from training.crops import CROPS, CropRule
from training.precision import PRECISIONS
from training.target import TokenWeights

TRAINABLE = ("all", "slopes", "weights")
ATTENTION = ("sdpa", "eager")  # what has a backward pass everywhere
TRACKERS = ("tensorboard", "trackio")
# What may differ between a run and its resumption: nothing that changes a weight.
FREE_ON_RESUME = frozenset(
    {"resume", "output", "checkpoint_every", "keep_checkpoints", "log_every", "workers", "watch_images", "watch_size"}
    | {"trackers"}
)
AT_LEAST_ONE = (
    *("validation_count", "shuffle_buffer", "gradient_accumulation_steps", "watch_size"),
    *("log_every", "validate_every", "checkpoint_every", "keep_checkpoints"),
)
AT_LEAST_ZERO = ("class_token_weight", "register_weight", "weight_decay", "zero_channel_count", "seed", "workers")
# How fields of a stage are read from the command line; the others are int.
STAGE_FIELDS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("epochs", "learning_rate", "layer_weight", "crop_scale"), float),
    **dict.fromkeys(("images", "trainable", "attention"), str),
}


@dataclass(frozen=True)
class Stage:
    """One stretch of training at one size and rate; on the command line `size=112,steps=400,learning_rate=4e-5`.

    Args:
        size: side of the square crops in pixels, a multiple of the patch size.
        steps: optimiser steps; give these or `epochs`.
        epochs: passes over the images, whole or not.
        batch_size: images per optimiser step, all processes and accumulated batches together.
        learning_rate: peak of the schedule: linear warm-up, then half a cosine down to 0.
        warmup_steps: steps of the warm-up.
        layer_weight: what the configuration's `layers` count together, beside the patch tokens' 1. They guide the
            student early on; towards the end what is left of their weight is taken from what is asked for.
        images: images of this stage, as in the configuration, if they are not the run's.
        trainable: `"all"`, `"slopes"` (nothing but learned slopes) or `"weights"` (all but those, which is faster: a
            bias without a gradient has the fused kernels).
        crop_scale: smallest share of an image's area in a random crop of this stage, if it is not the run's.
        attention: the student's `attn_implementation`: `"sdpa"`, or `"eager"`, whose backward pass is faster on a CPU
            that computes in bfloat16, up to some 300 patches.
    """

    size: int
    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    learning_rate: float = 4e-5
    warmup_steps: int = 50
    layer_weight: float = 1.0
    images: str | None = None
    trainable: str = "all"
    crop_scale: float | None = None
    attention: str = "sdpa"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"A stage has steps {self.steps} and epochs {self.epochs}; give exactly one of them.")
        for name in ("size", "steps", "batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"A stage has {name} {getattr(self, name)}; it must be 1 or more.")
        if self.epochs is not None and not self.epochs > 0:
            raise ValueError(f"A stage has epochs {self.epochs}; it must be positive.")
        if not self.learning_rate > 0:
            raise ValueError(f"A stage has learning_rate {self.learning_rate}; it must be positive, such as 4e-5.")
        if not 0 <= self.layer_weight < float("inf"):
            raise ValueError(f"A stage has layer_weight {self.layer_weight}; it must be 0 or more.")
        for name, allowed in (("trainable", TRAINABLE), ("attention", ATTENTION)):
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"A stage has {name} {value!r}; it must be one of {', '.join(allowed)}.")
        if self.crop_scale is not None and not 0 < self.crop_scale <= 1:
            raise ValueError(f"A stage has crop_scale {self.crop_scale}; it must lie in (0, 1].")
        if not 0 <= self.warmup_steps <= (self.steps or float("inf")):
            raise ValueError(
                f"A stage has warmup_steps {self.warmup_steps}; it must lie in [0, {self.steps}], its steps."
            )

    @classmethod
    def parse(cls, text: str) -> "Stage":
        """Read `name=value,name=value`."""
        values = dict(part.split("=", 1) for part in text.split(","))
        require_known("a stage", values, [entry.name for entry in fields(cls)])
        parsed: dict[str, Any] = {name: STAGE_FIELDS.get(name, int)(value) for name, value in values.items()}
        return cls(**parsed)

    def with_steps(self, images: int) -> "Stage":
        """The stage with its epochs counted in steps, at least one."""
        if self.epochs is None:
            return self
        return replace(self, epochs=None, steps=max(1, round(self.epochs * images / self.batch_size)))


@dataclass
class DistillationConfig:
    """Everything that decides the weights of a distillation, and how it is watched.

    Args:
        teacher: Hub id or folder of the frozen teacher, a DINOv2 with or without registers.
        student: folder of the student to start from; made from the teacher if not given.
        position_encoding, alibi_slopes, alibi_slopes_per, alibi_slope: of the student, as in `Dinov2AlibiConfig`; if
            not given, as `student` has them. Slopes that `student` lacks begin at `alibi_slope`.
        images: folder of images, parquet file or folder of them, or Hub id of a data set with an `image` column.
        mixed_images: other images, such as micrographs, of which each stage sees a share.
        mixed_share: how large it is, in [0, 1).
        output: folder of the run: configuration, metrics, checkpoints, and the student at the end.
        stages: the stages of training, one after the other.
        split: split of the images, `"all"` for all of them; see `training.images.load_images`.
        image_column: column of a table or a Hub data set that holds the images.
        streaming: whether images are read as they are needed, and never all listed; stages then need `steps`.
        shuffle_buffer: how many images of a stream, one after the other, are shuffled among themselves.
        validation_images: images for validation, as `images`; if not given, the last `validation_count` of `images`
            (of a stream the first), and as many of `mixed_images`.
        validation_split: split of `validation_images`, if they have several.
        validation_count: number of validation images; training never sees them, nor others that show the same.
        validation_sizes: sides of their centre crops in pixels; of several, the mean loss decides what is best.
        crop: `"random"` (random resized crops) or `"center"` (shortest side resized, centre crop, as published).
        crop_scale: smallest share of an image's area in a random crop, in (0, 1].
        flip, turn, roll: whether crops are mirrored (half of them), turned by multiples of 90°, rolled on the torus.
        zero_channels: teacher channels to put to zero in the target: `"auto"` (the most positional ones, found with
            the probe), `"none"`, or their numbers separated by commas.
        zero_channel_count: how many `"auto"` takes.
        layers: layers whose patch tokens are compared too (1 is the first); each stage says what they count. The
            forward pass has them already, so they cost next to nothing.
        class_token_weight, register_weight: what these tokens count in the loss, 0 for nothing. Without them the class
            token is free to drift; they do not change what patch tokens are asked for.
        average_transforms: whether the target is the mean over the eight flips and 90° turns of a crop, turned back. It
            holds less position, is smoother, and costs eight teacher passes instead of one.
        target_cache: folder in which targets are kept, for crops that come again: centre crops, or a second run with
            the same images, crops and seed. Half precision: 50 kB a crop of 112 pixels for each kind of token.
        weight_decay: of AdamW.
        max_gradient_norm: gradients are clipped to this norm.
        mixed_precision: `"no"`, `"bf16"`, `"fp16"`, or `"auto"`: `"bf16"` where the device computes in it, else
            `"no"`; the run keeps what it began with. The choice of `accelerate launch` if not given.
        gradient_accumulation_steps: batches per optimiser step; each has `batch_size` divided by it.
        max_unreadable: largest share of images that may be unreadable before the run stops, in [0, 1]; of a stream, of
            those that were read.
        seed: of crops, order and everything else random.
        workers: processes that decode images.
        log_every, validate_every, checkpoint_every: steps between entries of the metrics, validations, checkpoints.
        keep_checkpoints: how many checkpoints are kept.
        watch_images: folder of images that every validation looks at: the positional probe joins the metrics, and a
            picture of principal components goes into `pictures/`.
        watch_size: their shortest side in pixels.
        trackers: programs to send the metrics to, besides `metrics.jsonl`: `tensorboard`, `trackio`.
        resume: go on from the newest checkpoint of `output`.
    """

    teacher: str | None = None
    student: str | None = None
    position_encoding: str | None = None
    alibi_slopes: str | None = None
    alibi_slopes_per: str | None = None
    alibi_slope: float | None = None
    images: str | None = None
    mixed_images: str | None = None
    mixed_share: float = 0.0
    output: str | None = None
    stages: list[Stage] = field(default_factory=list)
    split: str = "train"
    image_column: str = "image"
    streaming: bool = False
    shuffle_buffer: int = 1000
    validation_images: str | None = None
    validation_split: str | None = None
    validation_count: int = 32
    validation_sizes: list[int] = field(default_factory=lambda: [224])
    crop: str = "random"
    crop_scale: float = 0.25
    flip: bool = False
    turn: bool = False
    roll: bool = False
    zero_channels: str = "auto"
    zero_channel_count: int = 4
    layers: list[int] = field(default_factory=list)
    class_token_weight: float = 0.0
    register_weight: float = 0.0
    average_transforms: bool = False
    target_cache: str | None = None
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    mixed_precision: str | None = None
    gradient_accumulation_steps: int = 1
    max_unreadable: float = 0.05
    seed: int = 0
    workers: int = 0
    log_every: int = 10
    validate_every: int = 100
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    watch_images: str | None = None
    watch_size: int = 224
    trackers: list[str] = field(default_factory=list)
    resume: bool = False

    def __post_init__(self) -> None:
        missing = [name for name in ("teacher", "images", "output", "stages") if not getattr(self, name)]
        if missing:
            raise ValueError(
                f"The configuration lacks {', '.join(missing)}; give them in the file or as --{missing[0]} …"
            )
        unknown = sorted(set(self.trackers) - set(TRACKERS))
        if unknown:
            raise ValueError(f"trackers has {', '.join(unknown)}; it may have {', '.join(TRACKERS)}.")
        if self.crop not in CROPS:
            raise ValueError(f"crop is {self.crop!r}; it must be one of {', '.join(CROPS)}.")
        if self.mixed_precision not in (None, *PRECISIONS):
            raise ValueError(f"mixed_precision is {self.mixed_precision!r}; it must be one of {', '.join(PRECISIONS)}.")
        if self.validation_split and not self.validation_images:
            raise ValueError(
                f"validation_split is {self.validation_split!r} without validation_images; name the data set there."
            )
        if not 0 < self.crop_scale <= 1:
            raise ValueError(f"crop_scale is {self.crop_scale}; it must lie in (0, 1].")
        if not self.validation_sizes or min(self.validation_sizes) < 1:
            raise ValueError(f"validation_sizes is {self.validation_sizes}; it must hold sizes of 1 pixel or more.")
        if bool(self.mixed_images) != (self.mixed_share > 0) or not 0 <= self.mixed_share < 1:
            raise ValueError(
                f"mixed_images is {self.mixed_images!r} and mixed_share {self.mixed_share}; give both, the share in "
                "(0, 1), or neither."
            )
        if self.streaming and self.mixed_images:
            raise ValueError("Streams cannot be mixed. Leave mixed_images out, or read without streaming.")
        if not 0 <= self.max_unreadable <= 1:
            raise ValueError(f"max_unreadable is {self.max_unreadable}; it must lie in [0, 1].")
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        for name in AT_LEAST_ZERO:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        if self.streaming and any(stage.epochs for stage in self.stages):
            raise ValueError("Of a stream nobody knows how long a pass is; give stages steps instead of epochs.")
        for stage in self.stages:
            if stage.batch_size % self.gradient_accumulation_steps:
                raise ValueError(
                    f"A stage has batch_size {stage.batch_size}, which gradient_accumulation_steps "
                    f"{self.gradient_accumulation_steps} does not divide."
                )

    def require_possible(self, processes: int, patch_size: int) -> None:
        """Raise a `ValueError` if a later stage or a validation would fail with so many processes and such patches."""
        for stage in self.stages:
            if stage.batch_size % (self.gradient_accumulation_steps * processes):
                raise ValueError(
                    f"A stage has batch_size {stage.batch_size}, which {processes} processes with "
                    f"gradient_accumulation_steps {self.gradient_accumulation_steps} do not divide; it must be a "
                    f"multiple of {self.gradient_accumulation_steps * processes}."
                )
        sizes = {"A stage's size": [stage.size for stage in self.stages], "validation_sizes": self.validation_sizes}
        for name, size in ((name, size) for name, values in sizes.items() for size in values):
            if size % patch_size:
                raise ValueError(f"{name} is {size}; it must be a multiple of the patch size, {patch_size} pixels.")

    @property
    def bias(self) -> dict[str, Any]:
        """The fields of `Dinov2AlibiConfig` that are given."""
        names = ("position_encoding", "alibi_slopes", "alibi_slopes_per", "alibi_slope")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def crop_rule(self, stage: Stage) -> CropRule:
        """How crops of a stage are cut."""
        return CropRule(self.crop, stage.crop_scale or self.crop_scale, self.flip, self.turn, self.roll)

    def token_weights(self, stage: Stage) -> TokenWeights:
        """Which tokens are compared in a stage."""
        layer_weight = stage.layer_weight if self.layers else 0.0
        return TokenWeights(self.class_token_weight, self.register_weight, tuple(self.layers), layer_weight)

    @property
    def sources(self) -> list[str]:
        """The images of each stage."""
        return [stage.images or str(self.images) for stage in self.stages]

    @property
    def other_sources(self) -> list[str]:
        """The images that the validation is taken from, and those that are mixed in."""
        return [str(self.images), *([self.mixed_images] if self.mixed_images else [])]

    def with_steps(self, images: Mapping[str, int]) -> "DistillationConfig":
        """The configuration with all epochs counted in steps, for a number of training images by source."""
        pairs = zip(self.stages, self.sources, strict=True)
        # An epoch of a mixture passes over the stage's own images once.
        return replace(
            self, stages=[stage.with_steps(round(images[source] / (1 - self.mixed_share))) for stage, source in pairs]
        )


def parse_configuration(arguments: Sequence[str] | None = None) -> DistillationConfig:
    """Read the command line: options, and with `--config FILE` a JSON file whose values they override.

    Raises:
        ValueError: the file or the options have unknown fields or values that are not allowed.
    """
    parser = HfArgumentParser(DistillationConfig, description="Distil a DINOv2 teacher into an ALiBi-DINOv2 student.")
    parser.register("type", Stage, Stage.parse)
    parser.add_argument("--config", type=Path, help="JSON file with fields of the configuration")
    known = parser.parse_known_args(arguments)[0]
    if known.config:
        parser.set_defaults(**read_configuration_file(known.config))
    values = vars(parser.parse_args(arguments))
    del values["config"]
    return DistillationConfig(**values)


def read_configuration_file(path: Path) -> dict[str, Any]:
    """Fields of a `DistillationConfig` from a JSON file, stages as `Stage`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}).") from error
    require_known(str(path), values, [entry.name for entry in fields(DistillationConfig)])
    stages = values.get("stages", [])
    for stage in stages:
        require_known(f"a stage of {path}", stage, [entry.name for entry in fields(Stage)])
    return values | {"stages": [Stage(**stage) for stage in stages]}


def require_known(what: str, names, allowed) -> None:
    """Raise a `ValueError` naming the fields that are not allowed."""
    unknown = sorted(set(names) - set(allowed))
    if unknown:
        raise ValueError(f"Unknown fields in {what}: {', '.join(unknown)}. Allowed are {', '.join(allowed)}.")


def require_same(config: DistillationConfig, saved: dict[str, Any]) -> None:
    """Raise a `ValueError` that lists what a resumed run's configuration changes and must not."""
    current = asdict(config)
    # A run of an older version lacks newer fields; it did what their defaults do.
    values = {name: value for name, value in saved.items() if name in current}
    if "validation_size" in saved:
        values["validation_sizes"] = [saved["validation_size"]]
    values["stages"] = [Stage(**stage) for stage in saved["stages"]]
    previous = asdict(DistillationConfig(**values))
    changed = [
        f"{name} was {previous[name]!r} and is {current[name]!r}"
        for name in current
        if name not in FREE_ON_RESUME and previous[name] != current[name]
    ]
    if changed:
        raise ValueError(
            "The configuration differs from that of the run to resume: " + "; ".join(changed) + ". Resume with the old "
            "values, or start a new run in another folder."
        )
