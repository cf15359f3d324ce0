# SPDX-License-Identifier: Apache-2.0
"""Images per second of distillation, decoding included: ours, and the way of research code.

    python -m benchmarks.distill --size 224 --output distill.json

* `reference`: the data set runs the teacher on one image at a time, in float32; the student's attention is eager with a
  bias per head (`benchmarks.cases.ReferenceModel`), in float32.
* `reference_bf16`: the same with the student in bfloat16 autocast.
* `ours`: `training.distill` in bfloat16, teacher and student on whole batches.
* `compiled`, with `--compile`: ours with teacher and student through `torch.compile`; its first step, which compiles
  for minutes, is not counted.
* `processes`: ours in a process of one thread for each core, with the same batches cut between them.
* `cached`: ours with the teacher's targets in a cache from an earlier pass.

ViT-S/14 with registers and random weights. Times are medians of optimiser steps that take turns, after one that is not
counted; the ratio is to `reference`.
"""

import os
import socket
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from alibi_dinov2.io.files import write_json
from alibi_dinov2.io.tensor_store import TensorStore
from benchmarks.cases import HEAD_DIM, PATCH, REGISTERS, ReferenceModel
from benchmarks.measuring import machine_facts, time_in_turns
from modeling_alibi_dinov2 import Dinov2AlibiConfig
from training.configuration import DistillationConfig, Stage
from training.create_student import create_student
from training.crops import Crops
from training.distillation import Distillation, make_accelerator
from training.images import load_images
from training.target import PATCHES, Target, cosine_loss, in_low_precision, normalise, read_tokens

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PHOTOGRAPH = (500, 375)  # pixels, as in COCO or VOC
RATE = 1e-5
PREFIX = 1 + REGISTERS


def make_photographs(folder: Path, number: int) -> None:
    """JPEG files of smooth random colours, about as hard to decode as photographs."""
    random = np.random.default_rng(0)
    for index in range(number):
        small = Image.fromarray(random.integers(0, 256, (PHOTOGRAPH[1] // 5, PHOTOGRAPH[0] // 5, 3), dtype=np.uint8))
        small.resize(PHOTOGRAPH, Image.Resampling.BICUBIC).save(folder / f"{index}.jpg", quality=90)


def make_teacher(width: int, layers: int) -> Dinov2WithRegistersModel:
    """A random teacher in evaluation mode."""
    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_DIM,
        num_register_tokens=REGISTERS,
        image_size=518,
        patch_size=PATCH,
    )
    return Dinov2WithRegistersModel(config).eval()


class TargetsInDataset(Dataset):
    """Crops with the teacher's patch tokens, made one at a time where the crop is cut."""

    def __init__(self, crops: Crops, teacher: Dinov2WithRegistersModel) -> None:
        self.crops, self.teacher = crops, teacher

    def __len__(self) -> int:
        return len(self.crops)

    @torch.no_grad()
    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = normalise(self.crops[item]["pixels"][None], MEAN, STD)
        return pixels[0], read_tokens(self.teacher, pixels, [PATCHES], PREFIX)[PATCHES][0]


def reference_steps(teacher: Dinov2WithRegistersModel, config: DistillationConfig, bf16: bool) -> Iterator[None]:
    """An optimiser step at each `next`, the way of research code."""
    weights = create_student(teacher)
    student = ReferenceModel(Dinov2AlibiConfig(**weights.config.to_dict() | {"position_encoding": "none"}))
    student.set_attn_implementation("eager")
    student.load_state_dict(weights.state_dict())
    optimizer = torch.optim.AdamW(student.train().parameters(), lr=RATE)
    stage = config.stages[0]
    crops = Crops(load_images(str(config.images)), stage.size, 0, 10**9, 0, config.crop_rule(stage))
    for pixels, target in DataLoader(TargetsInDataset(crops, teacher), batch_size=stage.batch_size):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            tokens = read_tokens(student, pixels, [PATCHES], PREFIX)[PATCHES]
        cosine_loss(tokens, target).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), config.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield


def our_steps(
    teacher: Dinov2WithRegistersModel, config: DistillationConfig, store: TensorStore | None, compiled: bool = False
) -> Iterator[None]:
    """An optimiser step at each `next`, as `training.distill` does it, or with both models compiled."""
    target = Target(teacher, torch.ones(teacher.config.hidden_size), MEAN, STD, store=store)
    distillation = Distillation(
        config,
        make_accelerator(config),
        target,
        create_student(teacher),
        [load_images(str(config.images))],
        {PATCH: torch.zeros(1, 3, PATCH, PATCH, dtype=torch.uint8)},
        lambda student, folder, weights: None,
    )
    # The low precision of the teacher comes after the student, which is made from its full precision.
    in_low_precision(teacher, torch.bfloat16)
    if compiled:
        teacher.compile()
        distillation.student.compile()
    for _, batch in distillation.batches(0):
        distillation.optimise(batch["pixels"], {PATCHES: 1.0}, RATE)
        yield


def work(
    connection: Connection, environment: dict[str, str], width: int, layers: int, config: DistillationConfig
) -> None:
    """One of several processes that share their batches: an optimiser step for each message that comes."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    steps = our_steps(make_teacher(width, layers), config, None)
    while connection.recv():
        next(steps)
        connection.send(True)


@contextmanager
def processes(number: int, width: int, layers: int, config: DistillationConfig) -> Iterator[Callable[[], None]]:
    """A function that has so many processes do one optimiser step together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "OMP_NUM_THREADS": "1",
    }
    context = get_context("spawn")
    connections, workers = [], []
    for rank in range(number):
        ours, theirs = context.Pipe()
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        workers.append(context.Process(target=work, args=(theirs, environment, width, layers, config), daemon=True))
        workers[-1].start()
        theirs.close()  # so that a worker's end is noticed
        connections.append(ours)

    def step() -> None:
        for connection in connections:
            connection.send(True)
        for connection in connections:
            connection.recv()

    try:
        yield step
    finally:
        for worker in workers:
            worker.kill()


def measure(
    width: int, layers: int, size: int, batch: int, repeats: int, compiled: bool = False
) -> list[dict[str, Any]]:
    """One row per way."""
    with tempfile.TemporaryDirectory() as folder, tqdm(total=(5 + compiled) * (repeats + 1), unit="step") as bar:
        images = Path(folder) / "images"
        images.mkdir()
        make_photographs(images, batch)
        config = DistillationConfig(
            teacher="random",
            images=str(images),
            output=folder,
            # Centre crops: the cache is for crops that come again.
            crop="center",
            mixed_precision="bf16",
            stages=[Stage(size, 10**6, None, batch, RATE, 0)],
        )
        store = TensorStore(Path(folder) / "cache")
        # One pass over the images fills the cache, whatever the order of the next.
        next(our_steps(make_teacher(width, layers), config, store))
        make = partial(make_teacher, width, layers)
        ways = {
            "reference": reference_steps(make(), config, bf16=False),
            "reference_bf16": reference_steps(make(), config, bf16=True),
            "ours": our_steps(make(), config, None),
            "cached": our_steps(make(), config, store),
        }
        if compiled:
            ways["compiled"] = our_steps(make(), config, None, compiled=True)

        def advance(name: str) -> None:
            bar.set_description(name)
            bar.update()

        with processes(torch.get_num_threads(), width, layers, config) as step:
            runs: dict[str, Callable[[], None]] = {name: partial(next, steps) for name, steps in ways.items()}
            timed = time_in_turns(runs | {"processes": step}, repeats, advance)
    base = timed["reference"][0]
    return [
        {"case": name, "images_per_second": batch / seconds, "ratio": base / seconds}
        for name, (seconds, _) in timed.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| case | images per second | times the reference |", "|---|---:|---:|"]
    lines += [f"| {row['case']} | {row['images_per_second']:.2f} | {row['ratio']:.2f} |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="side of the crops in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="measure compiled models, too")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=384, help=f"a multiple of {HEAD_DIM}")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    if (
        options.size < PATCH
        or options.size % PATCH
        or options.width % HEAD_DIM
        or min(options.batch, options.repeats) < 1
    ):
        parser.error(
            f"size {options.size} must be a multiple of {PATCH}, width {options.width} of {HEAD_DIM}, batch and "
            "repeats at least 1"
        )
    rows = measure(options.width, options.layers, options.size, options.batch, options.repeats, options.compile)
    settings = {name: getattr(options, name) for name in ("size", "batch", "repeats", "layers", "width")}
    if options.output:
        write_json(options.output, {"machine": machine_facts(), "settings": settings, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
