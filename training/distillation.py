# SPDX-License-Identifier: Apache-2.0
"""The distillation loop: a frozen teacher's patch tokens become the student's (arXiv 2603.16840, section 4)."""

import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedDataParallelKwargs,
    ProjectConfiguration,
    broadcast_object_list,
    gather_object,
)
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from modeling_alibi_dinov2 import Dinov2AlibiModel
from training.checkpoints import save_checkpoint
from training.configuration import DistillationConfig, Stage
from training.crops import Crops, Mixture, StreamedCrops, collate
from training.images import Images
from training.journal import Journal
from training.known_images import KnownImages
from training.precision import choose_precision
from training.stopping import Stop, Stopped, ignore_signals
from training.stream import Place, StreamedRows, place_before
from training.target import PATCHES, Target, cosine_loss, normalise, read_tokens, token_losses

VALIDATION_BATCH = 8


def make_accelerator(config: DistillationConfig) -> Accelerator:
    """An accelerator that cuts each batch between the processes, so that their number does not change the run."""
    # Processes would wait for the gradients of what a stage does not train.
    partly = any(stage.trainable != "all" for stage in config.stages)
    return Accelerator(
        mixed_precision=choose_precision(config.mixed_precision)[0],
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=list(config.trackers) or None,
        project_config=ProjectConfiguration(config.output, logging_dir=str(Path(str(config.output)) / "trackers")),
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)] if partly else [],
    )


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


def learning_rate_at(stages: list[Stage], step: int) -> float:
    """Learning rate of an optimiser step: in each stage linear warm-up, then half a cosine down to 0."""
    stage, step = stage_at(stages, step)
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    progress = (step - stage.warmup_steps) / max(1, steps_of(stage) - stage.warmup_steps)
    return stage.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def stage_at(stages: list[Stage], step: int) -> tuple[Stage, int]:
    """The stage that an optimiser step belongs to, and the step's number in it."""
    for stage in stages:
        if step < steps_of(stage):
            return stage, step
        step -= steps_of(stage)
    raise ValueError(f"Step {step} lies {step + 1} steps after the last stage.")


class Distillation:
    """One run: what the loop needs, and the loop.

    Args:
        config: the run's configuration.
        accelerator: places, precision and processes, from `make_accelerator`.
        target: what the student is to match, from the frozen teacher.
        student: the model to train.
        images: training images of each stage, from `load_images`.
        validation_pixels: by size, `(N, 3, size, size)` uint8, never trained on.
        save_student: writes a student into a folder, with weights gathered from all processes.
        on_validation: called with the step and the student after a validation; returns metrics.
        kept_out: recognises the images for validation among those for training.
        mixture: images that a share of the samples of every stage is of.
        places: where the run is in its streams, as a checkpoint has it.
        stop: whether a signal has asked for the end.
    """

    def __init__(
        self,
        config: DistillationConfig,
        accelerator: Accelerator,
        target: Target,
        student: Dinov2AlibiModel,
        images: Sequence[Images],
        validation_pixels: Mapping[int, torch.Tensor],
        save_student: Callable[[Dinov2AlibiModel, Path, dict[str, torch.Tensor]], None],
        on_validation: Callable[[int, Dinov2AlibiModel], dict[str, Any]] | None = None,
        kept_out: KnownImages | None = None,
        mixture: Mixture | None = None,
        places: Mapping[str, dict[str, int]] | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.config, self.accelerator, self.images = config, accelerator, images
        self.save_student, self.on_validation = save_student, on_validation
        self.target, self.kept_out, self.mixture, self.stop = target, kept_out, mixture, stop or Stop()
        started = {source: Place(**place) for source, place in (places or {}).items()}
        self.places = {source: [started.get(source, Place())] for source in config.sources}
        self.student_prefix = student.config.num_prefix_tokens
        # No patch is hidden, so the mask token gets no gradient, for which several processes would wait in vain.
        student.embeddings.mask_token.requires_grad_(False)
        self.student, self.optimizer = accelerator.prepare(student, make_optimizer(student, config.weight_decay))
        self.validation = {
            size: [
                (pixels, self.targets(pixels, [PATCHES])[PATCHES])
                for pixels in crops.to(accelerator.device).split(VALIDATION_BATCH)
            ]
            for size, crops in validation_pixels.items()
        }
        self.journal = Journal(Path(config.output or ""), writes=accelerator.is_main_process)

    def targets(self, pixels: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """The teacher's tokens for uint8 pixels, in the run's precision."""
        with self.accelerator.autocast():
            return self.target(pixels, names)

    def tokens(self, pixels: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """The student's tokens for uint8 pixels, in the run's precision."""
        with self.accelerator.autocast():
            seen = normalise(pixels, self.target.mean, self.target.std)
            return read_tokens(self.student, seen, names, self.student_prefix)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean loss of the patch tokens of the validation images; with several sizes their mean, and that of each."""
        self.student.eval()
        losses = {}
        for size, batches in self.validation.items():
            total = sum(
                cosine_loss(self.tokens(pixels, [PATCHES])[PATCHES], target).item() * len(pixels)
                for pixels, target in batches
            )
            losses[f"validation_loss_{size}"] = total / sum(len(pixels) for pixels, _ in batches)
        self.student.train()
        mean = {"validation_loss": sum(losses.values()) / len(losses)}
        # One figure for all processes: if theirs differed by rounding, some would wait for others to save the best.
        return broadcast_object_list([mean | losses if len(losses) > 1 else mean])[0]

    def batches(self, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Batches from an optimiser step on, each with the step that it belongs to."""
        config = self.config
        first_step = 0
        for number, stage in enumerate(config.stages):
            steps = steps_of(stage)
            skipped = min(max(start - first_step, 0), steps)
            if skipped < steps:
                for batch_number, batch in enumerate(self.loader(number, first_step + skipped, first_step + steps)):
                    yield first_step + skipped + batch_number // config.gradient_accumulation_steps, batch
            first_step += steps

    def loader(self, number: int, start: int, stop: int) -> DataLoader:
        """Batches of a stage from an optimiser step to before another."""
        config, stage, images = self.config, self.config.stages[number], self.images[number]
        first, last = samples_before(config.stages, start), samples_before(config.stages, stop)
        rule = config.crop_rule(stage)
        options: dict[str, Any] = {
            "batch_size": stage.batch_size // config.gradient_accumulation_steps,
            "num_workers": config.workers,
            "collate_fn": collate,
            "worker_init_fn": ignore_signals,
        }
        if isinstance(images, Dataset):
            crops = Crops(images, stage.size, first, last, config.seed, rule, self.kept_out, self.mixture)
            loader = DataLoader(crops, **options)
        else:
            source = config.sources[number]
            start, stop = (rows_before(config, source, step) for step in (start, stop))
            places = self.places[source]
            sampler = StreamedRows(images, start, stop, config.seed, config.shuffle_buffer, places, first)
            crops_of_rows = StreamedCrops(stage.size, config.seed, rule, self.kept_out)
            loader = DataLoader(crops_of_rows, sampler=sampler, **options)
        return self.accelerator.prepare(loader)

    def train(self, start: int = 0) -> None:
        """Train from an optimiser step, at which the journal was opened, to the end of the last stage.

        Raises:
            TrainingDiverged: the loss is not finite; the last checkpoint is intact.
            ValueError: more images are unreadable than the configuration allows.
            Stopped: a signal has asked for the end; the last step's checkpoint is saved.
        """
        self.student.train()
        if start == 0:
            self.record({"step": 0}, validate=True)
        with self.stop.put_off():
            self.train_steps(start)

    def train_steps(self, start: int) -> None:
        """The steps of `train`."""
        config, accelerator = self.config, self.accelerator
        losses: list[dict[str, float]] = []
        total = samples_before(config.stages, total_steps(config.stages))
        bar = tqdm(total=total, unit="img", desc="distil", disable=not accelerator.is_main_process)
        bar.update(samples_before(config.stages, start))
        bar.unpause()
        started = time.perf_counter()
        for step, batch in self.batches(start):
            stage, _ = stage_at(config.stages, step)
            rate = learning_rate_at(config.stages, step)
            prepare_for(stage, accelerator.unwrap_model(self.student))
            losses.append(self.optimise(batch["pixels"], config.token_weights(stage).by_name(), rate))
            asked = self.share(step, batch)
            if not accelerator.sync_gradients:
                continue
            step += 1
            bar.update(stage.batch_size)
            bar.set_postfix(loss=f"{losses[-1]['loss']:.4f}", refresh=False)
            last = step == total_steps(config.stages)
            stopping = asked is not None and not last
            validate = last or step % config.validate_every == 0
            # A checkpoint ends an entry too, so that a resumed run writes the entries that an uninterrupted one does.
            checkpoint = last or stopping or step % config.checkpoint_every == 0
            if validate or checkpoint or step % config.log_every == 0:
                speed = len(losses) * stage.batch_size / config.gradient_accumulation_steps
                entry = {
                    "step": step,
                    "size": stage.size,
                    **{name: sum(loss[name] for loss in losses) / len(losses) for name in losses[0]},
                    "learning_rate": rate,
                    "images_per_second": speed / (time.perf_counter() - started),
                }
                self.record(entry, validate)
                losses, started = [], time.perf_counter()
            if checkpoint:
                streams = self.streams(step)
                save_checkpoint(accelerator, self.journal.run, step, config.keep_checkpoints, streams)
            if stopping:
                bar.close()
                raise Stopped(int(asked or signal.SIGTERM), step)
        bar.close()

    def streams(self, step: int) -> dict[str, dict[str, int]]:
        """For each source, where to begin to read its stream in order to go on from a step."""
        for source, places in self.places.items():
            place = place_before(places, rows_before(self.config, source, step))
            del places[: places.index(place)]  # what lies behind is not needed again
        return {source: asdict(places[0]) for source, places in self.places.items()}

    def share(self, step: int, batch: dict[str, Any]) -> int | None:
        """Write down what happened to the images of a batch in any of the processes.

        Returns:
            The signal that has asked one of the processes for the end, if there was one.
        """
        config, accelerator = self.config, self.accelerator
        passed_over = {kind: batch[kind] for kind in ("unreadable", "held_out")}
        figures = [self.stop.number or 0, batch["enlarged"], sum(map(len, passed_over.values()))]
        shared = accelerator.reduce(torch.tensor(figures, device=accelerator.device), reduction="sum")
        asked, enlarged, any_passed_over = shared.tolist()
        self.journal.note_enlarged(enlarged)
        if any_passed_over:
            everywhere = gather_object([passed_over])
            self.journal.note_held_out([message for found in everywhere for message in found["held_out"]])
            images = self.images[config.stages.index(stage_at(config.stages, step)[0])]
            # Of a stream nobody knows the length; a block is known to be there, and what was read.
            read = max(config.shuffle_buffer, samples_before(config.stages, step + 1))
            known = len(images) if isinstance(images, Dataset) else read
            known += len(self.mixture.images) if self.mixture else 0
            messages = [message for found in everywhere for message in found["unreadable"]]
            self.journal.note_unreadable(messages, known, config.max_unreadable)
        return (self.stop.number or int(signal.SIGTERM)) if asked else None

    def optimise(self, pixels: torch.Tensor, weights: dict[str, float], rate: float) -> dict[str, float]:
        """Forward, backward and, once the gradient is accumulated, an optimiser step; returns the losses by name."""
        accelerator, config = self.accelerator, self.config
        with accelerator.accumulate(self.student):
            total, parts = token_losses(self.tokens(pixels, weights), self.targets(pixels, weights), weights)
            # Of a single kind of token there is nothing to tell apart.
            named = {"loss": total} | ({f"loss_{name}": part for name, part in parts.items()} if len(parts) > 1 else {})
            means = accelerator.reduce(torch.stack(list(named.values())).detach(), reduction="mean").tolist()
            if not all(map(math.isfinite, means)):
                raise TrainingDiverged(
                    f"The loss is {means[0]} at learning rate {rate:.2e}. Lower the learning rate or use full "
                    "precision, and start again; the last checkpoint is intact."
                )
            accelerator.backward(total)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(self.student.parameters(), config.max_gradient_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.optimizer.zero_grad()
        return dict(zip(named, means, strict=True))

    def record(self, entry: dict[str, Any], validate: bool) -> None:
        """Write an entry of the metrics, after a validation if asked for; keep the best student."""
        if validate:
            entry |= self.validate()
            if self.on_validation:
                # In all processes: a sharded student can only be run by all of them together.
                entry |= self.on_validation(entry["step"], self.accelerator.unwrap_model(self.student))
            if entry["step"] and entry["validation_loss"] < self.journal.best_validation_loss:
                self.save("best")
            if self.accelerator.is_main_process:
                tqdm.write(f"step {entry['step']}: validation loss {entry['validation_loss']:.4f}")
        self.journal.write(entry)
        if self.accelerator.trackers:
            self.accelerator.log({name: value for name, value in entry.items() if name != "step"}, entry["step"])

    def save(self, name: str) -> Path:
        """Write the student into a folder of the run; all processes take part, the main one writes."""
        folder = self.journal.run / name
        weights = self.accelerator.get_state_dict(self.student)
        if self.accelerator.is_main_process:
            self.save_student(self.accelerator.unwrap_model(self.student), folder, weights)
        self.accelerator.wait_for_everyone()
        return folder


def make_optimizer(student: Dinov2AlibiModel, weight_decay: float) -> torch.optim.AdamW:
    """AdamW for all that requires a gradient; the rate comes with each step. Nothing pulls slopes to 0."""
    trained = [(is_slope(name), value) for name, value in student.named_parameters() if value.requires_grad]
    groups: list[dict[str, Any]] = [{"params": [value for slope, value in trained if not slope]}]
    if slopes := [value for slope, value in trained if slope]:
        groups.append({"params": slopes, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=weight_decay)


def is_slope(name: str) -> bool:
    """Whether a parameter of the student is of the slopes of its bias."""
    return name.endswith("alibi_slopes")


def prepare_for(stage: Stage, student: Dinov2AlibiModel) -> None:
    """Have a student compute attention as a stage asks for, and its slopes, its weights or all of it require a
    gradient; the mask token never does."""
    student.set_attn_implementation(stage.attention)
    for name, parameter in student.named_parameters():
        kind = "slopes" if is_slope(name) else "weights"
        if parameter is not student.embeddings.mask_token:
            parameter.requires_grad_(stage.trainable in ("all", kind))


def total_steps(stages: list[Stage]) -> int:
    """Optimiser steps of all stages, whose epochs are counted in steps already."""
    return sum(steps_of(stage) for stage in stages)


def steps_of(stage: Stage) -> int:
    """Optimiser steps of a stage, whose epochs are counted in steps already."""
    if stage.steps is None:
        raise ValueError(f"The length of {stage} depends on the number of images; see Stage.with_steps.")
    return stage.steps


def rows_before(config: DistillationConfig, source: str, step: int) -> int:
    """Images of a source that a run has seen before an optimiser step."""
    seen = 0
    for stage, of in zip(config.stages, config.sources, strict=True):
        seen += min(step, steps_of(stage)) * stage.batch_size * (of == source)
        step = max(step - steps_of(stage), 0)
    return seen


def samples_before(stages: list[Stage], step: int) -> int:
    """Images that a run has seen before an optimiser step."""
    seen = 0
    for stage in stages:
        seen += min(step, steps_of(stage)) * stage.batch_size
        step = max(step - steps_of(stage), 0)
    return seen
