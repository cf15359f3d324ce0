# SPDX-License-Identifier: Apache-2.0
"""The distillation loop: a frozen teacher's patch tokens become the student's (arXiv 2603.16840, section 4)."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from modeling_alibi_dinov2 import Dinov2AlibiModel
from training.checkpoints import save_checkpoint
from training.configuration import DistillationConfig, Stage
from training.crops import Crops, collate
from training.journal import Journal

VALIDATION_BATCH = 8


def make_accelerator(config: DistillationConfig) -> Accelerator:
    """An accelerator that cuts each batch between the processes, so that their number does not change the run."""
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=False,
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


def patch_loss(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of 1 − cosine over patch tokens.

    Args:
        student, target: `(B, patches, D)`, any floating dtype; compared in float32.

    Returns:
        A scalar in [0, 2]: 0 when the tokens point the same way.
    """
    return 1 - nn.functional.cosine_similarity(student.float(), target.float(), dim=-1).mean()


def patch_tokens(model: nn.Module, pixel_values: torch.Tensor, num_prefix_tokens: int) -> torch.Tensor:
    """Normalised patch tokens `(B, patches, D)` of `(B, 3, H, W)` pixels."""
    return model(pixel_values=pixel_values).last_hidden_state[:, num_prefix_tokens:]


def normalise(pixels: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    """uint8 pixels `(B, 3, H, W)` -> float32, as the image processor's rescaling and normalisation."""
    shape = (1, -1, 1, 1)
    mean_, std_ = (torch.tensor(values, device=pixels.device).view(shape) for values in (mean, std))
    return (pixels.float() / 255 - mean_) / std_


class Distillation:
    """One run: what the loop needs, and the loop.

    Args:
        config: the run's configuration.
        accelerator: places, precision and processes, from `make_accelerator`.
        teacher: stock DINOv2; frozen here.
        student: the model to train.
        images: training images, from `load_images`.
        validation_pixels: `(N, 3, H, W)` uint8, never trained on.
        zero_channels: teacher channels that are zero in the target.
        mean, std: of the teacher's image processor.
        save_student: writes a student into a folder.
        on_validation: called on the main process with the step and the student after a validation; returns metrics.
    """

    def __init__(
        self,
        config: DistillationConfig,
        accelerator: Accelerator,
        teacher: PreTrainedModel,
        student: Dinov2AlibiModel,
        images: Dataset,
        validation_pixels: torch.Tensor,
        zero_channels: list[int],
        mean: list[float],
        std: list[float],
        save_student: Callable[[Dinov2AlibiModel, Path], None],
        on_validation: Callable[[int, Dinov2AlibiModel], dict[str, Any]] | None = None,
    ) -> None:
        self.config, self.accelerator, self.images = config, accelerator, images
        self.save_student, self.on_validation = save_student, on_validation
        self.mean, self.std = mean, std
        self.teacher_prefix = 1 + getattr(teacher.config, "num_register_tokens", 0)
        self.student_prefix = student.config.num_prefix_tokens
        self.keep = torch.ones(teacher.config.hidden_size, device=accelerator.device)
        self.keep[zero_channels] = 0
        self.teacher = teacher.to(accelerator.device).eval().requires_grad_(False)
        # No patch is hidden, so the mask token gets no gradient, for which several processes would wait in vain.
        student.embeddings.mask_token.requires_grad_(False)
        trainable = [parameter for parameter in student.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=0.0, weight_decay=config.weight_decay)
        self.student, self.optimizer = accelerator.prepare(student, optimizer)
        batches = validation_pixels.to(accelerator.device).split(VALIDATION_BATCH)
        self.validation = [(pixels, self.target(pixels)) for pixels in batches]
        self.journal = Journal(Path(config.output or ""), writes=accelerator.is_main_process)

    def target(self, pixels: torch.Tensor) -> torch.Tensor:
        """The teacher's patch tokens for uint8 pixels, its most positional channels zero."""
        # Not inference mode: the loss keeps the target for its backward pass.
        with torch.no_grad(), self.accelerator.autocast():
            tokens = patch_tokens(self.teacher, normalise(pixels, self.mean, self.std), self.teacher_prefix)
        return tokens * self.keep

    def loss(self, pixels: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The student's loss on uint8 pixels."""
        with self.accelerator.autocast():
            tokens = patch_tokens(self.student, normalise(pixels, self.mean, self.std), self.student_prefix)
        return patch_loss(tokens, target)

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss over the validation images."""
        self.student.eval()
        total = sum(self.loss(pixels, target).item() * len(pixels) for pixels, target in self.validation)
        self.student.train()
        return total / sum(len(pixels) for pixels, _ in self.validation)

    def batches(self, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Batches from an optimiser step on, each with the step that it belongs to."""
        config = self.config
        first_step, first_sample = 0, 0
        for stage in config.stages:
            steps = steps_of(stage)
            skipped = min(max(start - first_step, 0), steps)
            stop = first_sample + steps * stage.batch_size
            if skipped < steps:
                first = first_sample + skipped * stage.batch_size
                crops = Crops(self.images, stage.size, first, stop, config.seed, config.crop_rule)
                loader = self.accelerator.prepare(
                    DataLoader(
                        crops,
                        batch_size=stage.batch_size // config.gradient_accumulation_steps,
                        num_workers=config.workers,
                        collate_fn=collate,
                    )
                )
                for number, batch in enumerate(loader):
                    yield first_step + skipped + number // config.gradient_accumulation_steps, batch
            first_step, first_sample = first_step + steps, stop

    def train(self, start: int = 0) -> None:
        """Train from an optimiser step to the end of the last stage.

        Raises:
            TrainingDiverged: the loss is not finite; the last checkpoint is intact.
            ValueError: more images are unreadable than the configuration allows.
        """
        config, accelerator = self.config, self.accelerator
        self.student.train()
        self.journal.open(start)
        if start == 0:
            self.record({"step": 0}, validate=True)
        losses: list[float] = []
        total = samples_before(config.stages, total_steps(config.stages))
        bar = tqdm(total=total, unit="img", desc="distil", disable=not accelerator.is_main_process)
        bar.update(samples_before(config.stages, start))
        bar.unpause()
        started = time.perf_counter()
        for step, batch in self.batches(start):
            stage, _ = stage_at(config.stages, step)
            rate = learning_rate_at(config.stages, step)
            losses.append(self.optimise(batch, rate))
            if not accelerator.sync_gradients:
                continue
            step += 1
            bar.update(stage.batch_size)
            bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
            last = step == total_steps(config.stages)
            validate = last or step % config.validate_every == 0
            # A checkpoint ends an entry too, so that a resumed run writes the entries that an uninterrupted one does.
            checkpoint = last or step % config.checkpoint_every == 0
            if validate or checkpoint or step % config.log_every == 0:
                speed = len(losses) * stage.batch_size / config.gradient_accumulation_steps
                entry = {
                    "step": step,
                    "size": stage.size,
                    "loss": sum(losses) / len(losses),
                    "learning_rate": rate,
                    "images_per_second": speed / (time.perf_counter() - started),
                }
                self.record(entry, validate)
                losses, started = [], time.perf_counter()
            if checkpoint:
                save_checkpoint(accelerator, self.journal.run, step, config.keep_checkpoints)
        bar.close()

    def optimise(self, batch: dict[str, Any], rate: float) -> float:
        """Forward, backward and, once the gradient is accumulated, an optimiser step; returns the loss."""
        accelerator, config = self.accelerator, self.config
        self.journal.note_unreadable(batch["unreadable"], len(self.images), config.max_unreadable)
        with accelerator.accumulate(self.student):
            loss = self.loss(batch["pixels"], self.target(batch["pixels"]))
            mean = accelerator.reduce(loss.detach(), reduction="mean").item()
            if not math.isfinite(mean):
                raise TrainingDiverged(
                    f"The loss is {mean} at learning rate {rate:.2e}. Lower the learning rate or use full precision, "
                    "and start again; the last checkpoint is intact."
                )
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(self.student.parameters(), config.max_gradient_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.optimizer.zero_grad()
        return mean

    def record(self, entry: dict[str, Any], validate: bool) -> None:
        """Write an entry of the metrics, after a validation if asked for; keep the best student."""
        if validate:
            entry["validation_loss"] = self.validate()
            if self.accelerator.is_main_process:
                student = self.accelerator.unwrap_model(self.student)
                if self.on_validation:
                    entry |= self.on_validation(entry["step"], student)
                if entry["step"] and entry["validation_loss"] < self.journal.best_validation_loss:
                    self.save_student(student, self.journal.run / "best")
                tqdm.write(f"step {entry['step']}: validation loss {entry['validation_loss']:.4f}")
        self.journal.write(entry)


def total_steps(stages: list[Stage]) -> int:
    """Optimiser steps of all stages, whose epochs are counted in steps already."""
    return sum(steps_of(stage) for stage in stages)


def steps_of(stage: Stage) -> int:
    """Optimiser steps of a stage, whose epochs are counted in steps already."""
    if stage.steps is None:
        raise ValueError(f"The length of {stage} depends on the number of images; see Stage.with_steps.")
    return stage.steps


def samples_before(stages: list[Stage], step: int) -> int:
    """Images that a run has seen before an optimiser step."""
    seen = 0
    for stage in stages:
        seen += min(step, steps_of(stage)) * stage.batch_size
        step = max(step - steps_of(stage), 0)
    return seen
