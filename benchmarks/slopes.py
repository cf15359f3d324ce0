# SPDX-License-Identifier: Apache-2.0
"""Slopes of the bias: what sharing them keeps of what learning them gains, and what they cost in the forward pass.

    python -m benchmarks.slopes fit --teacher teacher --images photographs --micrographs data/micrographs \\
        --runs runs/slopes --output slopes.json
    python -m benchmarks.slopes figure --record slopes.json --model student --output slopes.png
    python -m benchmarks.slopes cost --output slopes-cost.json

`fit` makes a student for each choice of slopes, of which nothing but learned slopes is trained; these start at 1. Fixed
slopes are measured as they are. Figures: the cosine to the teacher on held-out photographs, its share of the largest
gain over the published slope of 1, the positional R² on micrographs, and the slopes. Weights are the teacher's, or
with `--student` those of a distilled student. An output that is there already is completed.

`figure` draws a study as the paper's figure S7 does: the slopes by layer, beside what each choice gains.

`cost` times a forward pass of a random ViT-S/14 with each choice beside stock DINOv2 without a bias; times are medians
of runs that take turns in one process.
"""

import json
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm
from transformers import AutoImageProcessor

from alibi_dinov2.features.backbone import Backbone, load_backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.files import new_folder, write_json
from alibi_dinov2.io.images import read_folder
from alibi_dinov2.pictures.panels import save_figure
from alibi_dinov2.pictures.plots import line_looks, subplots
from benchmarks.cases import DTYPES, HEAD_DIM, PATCH, Setting, build_model
from benchmarks.measuring import machine_facts, read_record, time_in_turns
from evaluation.position.positional_probe import probe_images, summarise
from evaluation.semantics.agreement import mean_cosine_of_all
from modeling_alibi_dinov2 import Dinov2AlibiModel
from modeling_alibi_dinov2.configuration_alibi_dinov2 import SLOPES_PER
from training.configuration import DistillationConfig, Stage
from training.create_student import save_student
from training.distill import distill
from training.distillation import is_slope
from training.images import decode, load_images, split_images

FIXED: dict[str, dict[str, Any]] = {"1": {}, "2": {"alibi_slope": 2.0}, "geometric": {"alibi_slopes": "geometric"}}
LEARNED: dict[str, dict[str, Any]] = {
    f"one per {per.replace('_', ' ')}": {"alibi_slopes": "learned", "alibi_slopes_per": per, "alibi_slope": 1.0}
    for per in reversed(SLOPES_PER)
}
CHOICES = FIXED | LEARNED
PUBLISHED = "1"
SMALLEST = 9  # patches a side, of which the positional probe has two to fit on


def make_start(options: Namespace, bias: dict[str, Any], folder: Path) -> Path:
    """The folder of a student with a choice of bias; its weights are the teacher's or those of `--student`."""
    if folder.exists():
        return folder
    if options.student is None:
        save_student(options.teacher, folder, **bias)
        return folder
    with new_folder(folder) as temporary:
        # What is given here goes before what the folder's configuration says; slopes it has none of start as told.
        Dinov2AlibiModel.from_pretrained(options.student, dtype=torch.float32, **bias).save_pretrained(temporary)
        AutoImageProcessor.from_pretrained(options.student, backend="pil").save_pretrained(temporary)
    return folder


def fit(options: Namespace, start: Path, run: Path) -> Path:
    """Train a student's slopes, or go on with it; the folder of the student."""
    stage = Stage(
        options.size,
        options.steps,
        batch_size=options.batch,
        learning_rate=options.rate,
        warmup_steps=min(5, options.steps),
        trainable="slopes",
    )
    config = DistillationConfig(
        teacher=options.teacher,
        student=str(start),
        images=options.images,
        output=str(run),
        stages=[stage],
        validation_count=options.validation,
        validation_sizes=[options.size],
        zero_channels=options.zero_channels,
        mixed_precision=options.precision,
        validate_every=options.steps,
        checkpoint_every=options.steps,
        seed=options.seed,
        resume=(run / "config.json").exists(),
    )
    return distill(config)


def held_out(options: Namespace) -> list[Image.Image]:
    """The photographs that no run is trained on."""
    _, kept = split_images(load_images(options.images), None, options.validation)
    return [decode(row["image"]) for row in kept]


def agreement(backbone: Backbone, teacher: Backbone, images: list[Image.Image], options: Namespace) -> float:
    """Mean cosine to the teacher."""
    zeroed = [] if options.zero_channels == "none" else [int(number) for number in options.zero_channels.split(",")]
    found, expected = (dense_features(each, images, options.size) for each in (backbone, teacher))
    return mean_cosine_of_all(found, expected, zeroed)


def slopes_of(model: Dinov2AlibiModel) -> dict[str, list[float]]:
    """The learned slopes by the name of their tensor."""
    return {name: value.tolist() for name, value in model.named_parameters() if is_slope(name)}


def study(options: Namespace) -> dict[str, Any]:
    """Fit and measure every choice, and write each into the record as it is done."""
    parameters = {
        name: getattr(options, name)
        for name in ("size", "steps", "batch", "rate", "validation", "zero_channels", "seed", "probe_size")
    }
    parameters["student"] = Path(options.student).name if options.student else None
    facts = {"machine": machine_facts(), "parameters": parameters}
    record = read_record(options.output, facts, "choices")
    found = record["choices"]
    teacher, photographs = load_backbone(options.teacher), held_out(options)
    micrographs = read_folder(options.micrographs)
    for name in (bar := tqdm(options.choices, unit="choice")):
        bar.set_description(name)
        if name in found:
            continue
        folder = options.runs / name.replace(" ", "-")
        student = make_start(options, CHOICES[name], folder / "start")
        if name in LEARNED:
            student = fit(options, student, folder / "run")
        backbone = load_backbone(student)
        probe = summarise(probe_images(list(dense_features(backbone, micrographs, options.probe_size))))
        found[name] = {
            "cosine": agreement(backbone, teacher, photographs, options),
            "r2_all_patches": probe["r2_all_patches"],
            "slopes": slopes_of(backbone.model),
        }
        write_json(options.output, record)
    return record


def study_table(record: dict[str, Any]) -> str:
    """A study as Markdown; the share of the gain is that of the best choice."""
    lines = [
        "| slopes | numbers | cosine | share of the gain | R² | slopes, mean and range |",
        "|---|---:|---:|---:|---:|---|",
    ]
    found = record["choices"]
    base = found[PUBLISHED]["cosine"] if PUBLISHED in found else float("nan")
    best = max(entry["cosine"] for entry in found.values()) - base
    for name, entry in found.items():
        values = [value for tensor in entry["slopes"].values() for value in tensor]
        numbers = f"{np.mean(values):.2f}, {min(values):.2f} to {max(values):.2f}" if values else "–"
        cosine, r2 = entry["cosine"], entry["r2_all_patches"]
        share = (cosine - base) / best if best else float("nan")
        lines.append(f"| {name} | {len(values)} | {cosine:.4f} | {share:.2f} | {r2:.2f} | {numbers} |")
    return "\n".join(lines)


def by_layer(slopes: dict[str, list[float]], layers: int) -> np.ndarray:
    """Slopes by the name of their tensor as `(layers, heads or 1)`; what all layers share is there in each."""
    if len(slopes) == 1:
        return np.tile(next(iter(slopes.values())), (layers, 1))
    return np.array(
        [slopes[name] for name in sorted(slopes, key=lambda name: int(name.split(".layer.")[1].split(".")[0]))]
    )


def study_figure(record: dict[str, Any], shipped: dict[str, list[float]] | None = None) -> Figure:
    """Learned slopes by layer, a line per choice and a dot per head, and the cosine of every choice.

    Args:
        record: of a study.
        shipped: slopes of a distilled model by the name of their tensor, for a line of its own.
    """
    found = record["choices"]
    learned = {name: entry["slopes"] for name, entry in found.items() if entry["slopes"]}
    learned |= {"distilled": shipped} if shipped else {}
    layers = max((len(slopes) for slopes in learned.values()), default=1)
    figure, axes = subplots(1, 2, 10, 3.8, width_ratios=(3, 2))
    lines, gains = axes[0]
    for (name, slopes), (colour, marker) in zip(learned.items(), line_looks(learned).values(), strict=True):
        values, numbers = by_layer(slopes, layers), np.arange(1, layers + 1)
        lines.plot(numbers, values.mean(axis=1), color=colour, marker=marker, label=name)
        if values.shape[1] > 1:
            lines.plot(numbers, values, color=colour, marker=marker, markersize=3, linestyle="none", alpha=0.4)
    lines.axhline(0, color="grey", linewidth=0.8)
    lines.set(xlabel="layer", ylabel="slope: mean, and each head", xticks=np.arange(1, layers + 1))
    lines.legend(fontsize=8)
    names = [f"fixed, {name}" if name in FIXED else name for name in found]
    gains.plot([entry["cosine"] for entry in found.values()], names, "o", color="black")
    gains.invert_yaxis()
    gains.grid(alpha=0.3)
    gains.set(xlabel="cosine to the teacher before distillation")
    return figure


def cost(options: Namespace) -> dict[str, Any]:
    """Seconds of a forward pass with each choice, and their ratio to stock DINOv2."""
    setting = Setting(options.size, options.batch, options.dtype, options.layers, options.width)
    with torch.inference_mode(), tqdm(total=(len(CHOICES) + 1) * (options.repeats + 1), unit="run") as bar:
        pixels = setting.pixels()
        models: dict[str, Any] = {"stock": build_model("stock", setting)}
        models |= {name: build_model("sdpa", setting, **bias) for name, bias in CHOICES.items()}
        runs = {name: partial(model, pixels) for name, model in models.items()}
        timed = time_in_turns(runs, options.repeats, lambda name: bar.update())
    base = timed["stock"][0]
    rows = [
        {"case": name, "seconds": seconds, "ratio": seconds / base, "ratio_to": "stock"}
        for name, (seconds, _) in timed.items()
    ]
    record = {"machine": machine_facts(), "setting": vars(setting), "repeats": options.repeats, "rows": rows}
    write_json(options.output, record)
    return record


def cost_table(record: dict[str, Any]) -> str:
    """The costs as Markdown."""
    lines = ["| slopes | ms per image | times stock |", "|---|---:|---:|"]
    batch = record["setting"]["batch"]
    lines += [f"| {row['case']} | {row['seconds'] / batch * 1e3:.1f} | {row['ratio']:.3f} |" for row in record["rows"]]
    return "\n".join(lines)


def make_parser() -> ArgumentParser:
    """The options of this benchmark."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True)
    fitting = ways.add_parser("fit", help="what sharing keeps of the gain")
    fitting.add_argument("--teacher", required=True, help="Hub id or folder of the teacher")
    fitting.add_argument("--student", help="folder of a distilled student with a constant slope to begin from")
    fitting.add_argument("--images", required=True, help="photographs, as for training.distill")
    fitting.add_argument("--micrographs", required=True, help="folder of images for the positional probe")
    fitting.add_argument("--runs", type=Path, required=True, help="folder for the students")
    fitting.add_argument("--choices", nargs="+", choices=CHOICES, default=list(CHOICES), help="of slopes")
    fitting.add_argument("--size", type=int, default=224, help="side of the crops in pixels")
    fitting.add_argument("--steps", type=int, default=60)
    fitting.add_argument("--batch", type=int, default=8, help="crops of a step")
    fitting.add_argument("--rate", type=float, default=0.1, help="learning rate of the slopes")
    fitting.add_argument("--validation", type=int, default=48, help="photographs that are held out")
    fitting.add_argument("--zero-channels", default="none", help="of the teacher, put to zero: 'none' or a list")
    fitting.add_argument("--precision", default="auto", help="as mixed_precision of training.distill")
    fitting.add_argument("--probe-size", type=int, default=518, help="shortest side of the micrographs in pixels")
    fitting.add_argument("--seed", type=int, default=0)
    costing = ways.add_parser("cost", help="what they cost in the forward pass")
    costing.add_argument("--size", type=int, default=518, help="side in pixels")
    costing.add_argument("--batch", type=int, default=1)
    costing.add_argument("--dtype", choices=DTYPES, default="float32")
    costing.add_argument("--repeats", type=int, default=9)
    costing.add_argument("--layers", type=int, default=12)
    costing.add_argument("--width", type=int, default=384, help=f"a multiple of {HEAD_DIM}")
    drawing = ways.add_parser("figure", help="a picture of a study")
    drawing.add_argument("--record", type=Path, required=True, help="of `fit`")
    drawing.add_argument("--model", help="folder of a distilled model, whose slopes are drawn too")
    drawing.add_argument("--output", type=Path, required=True, help="PNG file")
    for way in (fitting, costing):
        way.add_argument("--output", type=Path, required=True, help="JSON file")
    return parser


def draw(options: Namespace) -> None:
    """Write the picture that the options of `figure` ask for.

    Raises:
        ValueError: the record is of something else.
        OSError: there is no such record or model, or no such place for the picture.
    """
    record = json.loads(options.record.read_text(encoding="utf-8"))
    if not isinstance(record, dict) or not record.get("choices"):
        raise ValueError(f"{options.record} holds no choices of slopes; give what `fit` wrote.")
    shipped = slopes_of(load_backbone(options.model).model) if options.model else None
    save_figure(study_figure(record, shipped), options.output)


def check(options: Namespace) -> None:
    """Refuse with a `ValueError` what `fit` and `cost` cannot do."""
    if options.size < PATCH or options.size % PATCH:
        raise ValueError(f"size is {options.size}; it must be a multiple of the patch size, {PATCH} pixels")
    if options.way == "fit" and (options.probe_size < SMALLEST * PATCH or options.steps < 1):
        raise ValueError(
            f"probe size {options.probe_size} must be {SMALLEST * PATCH} or more, steps {options.steps} at least 1"
        )


def main() -> None:
    parser = make_parser()
    options = parser.parse_args()
    try:
        if options.way == "figure":
            draw(options)
        else:
            check(options)
            print(cost_table(cost(options)) if options.way == "cost" else study_table(study(options)))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
