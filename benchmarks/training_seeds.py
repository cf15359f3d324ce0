# SPDX-License-Identifier: Apache-2.0
"""How far apart students come out that were trained with different seeds.

    python -m benchmarks.training_seeds --recipe training/recipes/long_further.json --steps 200 --seeds 0 1 2 \\
        --images held_out --runs runs/seeds --output training-seeds.json

A recipe is run once a seed, from its own start, with as many steps a stage as told; the seed decides which images come
when and how they are cut. Figures are cosines to the teacher on other photographs, of the start and of each student.
Runs that were stopped are resumed, and an output that is there already is completed.
"""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.files import write_json
from alibi_dinov2.io.images import read_folder
from benchmarks.measuring import machine_facts, read_record
from evaluation.report.records import data_name, describe_images, mean_and_spread
from evaluation.semantics.agreement import mean_cosine_of_all, zeroed_channels
from training.configuration import DistillationConfig, parse_configuration
from training.distill import distill


def configure(options: Namespace, seed: int) -> DistillationConfig:
    """The run of one seed: the recipe's, but for its length, its seed and its folder."""
    run = options.runs / f"seed-{seed}"
    config = parse_configuration(["--config", str(options.recipe)])
    if options.steps is not None:
        stages = [replace(stage, steps=options.steps, epochs=None) for stage in config.stages]
        config = replace(config, stages=stages)
    return replace(config, seed=seed, output=str(run), resume=(run / "config.json").exists())


class Agreement:
    """The cosine of students to one teacher on the same photographs, whose targets are computed once."""

    def __init__(self, teacher: str, images: Sequence[Image.Image], sizes: Sequence[int]) -> None:
        self.images = images
        backbone = load_backbone(teacher)
        self.targets = {size: list(dense_features(backbone, images, size, progress=True)) for size in sizes}

    def measure(self, student: str | Path, zero_channels: Sequence[int]) -> dict[str, float]:
        """Mean cosine by size, some channels left out."""
        backbone = load_backbone(student)
        return {
            str(size): mean_cosine_of_all(
                dense_features(backbone, self.images, size, progress=True), targets, zero_channels
            )
            for size, targets in self.targets.items()
        }


def study(options: Namespace) -> dict[str, Any]:
    """Train and measure every seed, and write each into the record as it is done.

    Raises:
        ValueError: the output holds another study, or the recipe is none.
        OSError: a file or folder is missing.
    """
    images = read_folder(options.images)
    facts = {
        "machine": machine_facts(),
        "parameters": {"recipe": options.recipe.name, "steps": options.steps, "sizes": options.sizes},
        "dataset": asdict(describe_images(data_name(options.images), images)),
    }
    record = read_record(options.output, facts, "students")
    found = record["students"]
    missing = [seed for seed in options.seeds if f"seed {seed}" not in found]
    if not missing:
        return record
    config = configure(options, missing[0])
    agreement = Agreement(str(config.teacher), images, options.sizes)
    for seed in (bar := tqdm(missing, unit="seed")):
        bar.set_description(f"seed {seed}")
        student = distill(configure(options, seed))
        channels = zeroed_channels(student.parent)
        if "start" not in found:
            found["start"] = agreement.measure(str(config.student), channels)
        found[f"seed {seed}"] = agreement.measure(student, channels)
        write_json(options.output, record)
    return record


def table(record: dict[str, Any]) -> str:
    """A study as Markdown."""
    sizes = list(record["students"]["start"])
    lines = [f"| | {' | '.join(f'cosine, {size} px' for size in sizes)} |", f"|---|{'---:|' * len(sizes)}"]
    lines += [
        f"| {name} | {' | '.join(f'{cosines[size]:.4f}' for size in sizes)} |"
        for name, cosines in record["students"].items()
    ]
    seeds = [cosines for name, cosines in record["students"].items() if name != "start"]
    means, spread = mean_and_spread({size: [cosines[size] for cosines in seeds] for size in sizes})
    figures = " | ".join(f"{means[size]:.4f} ± {spread.get(size, float('nan')):.4f}" for size in sizes)
    return "\n".join([*lines, f"| mean over seeds | {figures} |"])


def make_parser() -> ArgumentParser:
    """The options of this benchmark."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True, help="JSON file, as --config of training.distill")
    parser.add_argument("--steps", type=int, help="of every stage, if not the recipe's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", required=True, help="folder of photographs that no run is trained on")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 518], help="their shortest side in pixels")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the students")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    return parser


def main() -> None:
    parser = make_parser()
    options = parser.parse_args()
    try:
        print(table(study(options)))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
