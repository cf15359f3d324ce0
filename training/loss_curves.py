# SPDX-License-Identifier: Apache-2.0
"""Runs of distillation as curves: the training loss, and the validation loss at each size.

    python -m training.loss_curves --runs runs/alibi runs/nope --names ALiBi NoPE --output losses.png

A run is its folder, or a file as its `metrics.jsonl`. The training loss is that of the crops of its stage, whose size
is written at the top; where a stage begins is dotted. The table has the first validation of each run and the one whose
loss, the mean over the sizes, is lowest: the student in `best/`.
"""

import argparse
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from alibi_dinov2.command import run
from alibi_dinov2.pictures.panels import save_figure
from alibi_dinov2.pictures.plots import line_looks, subplots
from training.journal import read_metrics

VALIDATION = "validation_loss"
DASHES = ("-", "--", ":", "-.")  # of the sizes, in ascending order
Entries = Sequence[Mapping[str, Any]]


def read_run(path: Path) -> Entries:
    """The metrics of a run.

    Args:
        path: the run's folder, or a file as its `metrics.jsonl`.

    Raises:
        ValueError: there are none.
    """
    entries = read_metrics(path / "metrics.jsonl" if path.is_dir() else path)
    if not entries:
        raise ValueError(f"{path} has no metrics; give the folder of a run of distillation, or its metrics.jsonl.")
    return entries


def validation_curves(entries: Entries) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and validation losses by size, and under an empty name their mean, or the only one."""
    names = sorted({name for entry in entries for name in entry if name.startswith(VALIDATION)}, key=size_of)
    found = {}
    for name in names:
        pairs = [(entry["step"], entry[name]) for entry in entries if name in entry]
        found[name.removeprefix(VALIDATION).lstrip("_")] = ([step for step, _ in pairs], [loss for _, loss in pairs])
    return found


def size_of(name: str) -> int:
    """The size in the name of a validation loss; 0 without one."""
    return int(name.rsplit("_", 1)[-1]) if name[-1].isdigit() else 0


def loss_figure(runs: Mapping[str, Entries]) -> Figure:
    """Training loss on the left and validation losses on the right, a colour for each run."""
    figure, ((training, validation),) = subplots(1, 2, width=11, height=3.8)
    for name, (colour, marker) in line_looks(runs).items():
        entries = [entry for entry in runs[name] if "loss" in entry]
        training.plot([entry["step"] for entry in entries], [entry["loss"] for entry in entries], color=colour, lw=1)
        curves = validation_curves(runs[name])
        sizes = {size: curve for size, curve in curves.items() if size} or curves
        for dashes, (size, (steps, losses)) in zip(DASHES, sizes.items(), strict=False):
            label = f"{name}, {size} px" if size else name
            validation.plot(steps, losses, dashes, color=colour, marker=marker, markersize=3.5, label=label)
    mark_stages(training, next(iter(runs.values())))
    for axis, title in ((training, "training loss (1 − cosine)"), (validation, "validation loss")):
        axis.set_ylabel(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    validation.legend(fontsize=8)
    return figure


def mark_stages(axis: Any, entries: Entries) -> None:
    """Dotted lines where a stage of another size begins, and its size at the top."""
    sized = [(entry["step"], entry["size"]) for entry in entries if "size" in entry]
    starts = [(0, sized[0][1])] if sized else []
    starts += [(before, size) for (before, old), (_, size) in pairwise(sized) if size != old]
    for step, size in starts:
        axis.axvline(step, color="grey", linestyle=":", linewidth=0.8)
        axis.annotate(f"{size} px", (step, 0.98), xycoords=("data", "axes fraction"), fontsize=8, va="top")


def best_table(runs: Mapping[str, Entries]) -> str:
    """The first and the best validation of each run."""
    lines = []
    for name, entries in runs.items():
        validated = [entry for entry in entries if VALIDATION in entry]
        if not validated:
            lines.append(f"{name:<20} was not validated")
            continue
        # The start is no student of the run.
        later = [entry for entry in validated if entry["step"]] or validated
        for entry in (validated[0], min(later, key=lambda found: found[VALIDATION])):
            figures = "".join(
                f"  {size or 'mean'}: {curve[1][curve[0].index(entry['step'])]:.4f}"
                for size, curve in validation_curves(entries).items()
                if entry["step"] in curve[0]
            )
            lines.append(f"{name:<20} step {entry['step']:>6}{figures}")
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", type=Path, required=True, help="folders of runs, or their metrics.jsonl")
    parser.add_argument("--names", nargs="+", help="what to call them; the names of the folders if not given")
    parser.add_argument("--output", type=Path, required=True, help="file for the picture (PNG)")
    return parser


def command(arguments: argparse.Namespace) -> None:
    """Draw the curves and print the table."""
    names = arguments.names or [path.resolve().name for path in arguments.runs]
    if len(names) != len(arguments.runs) or len(set(names)) < len(names):
        raise ValueError(f"The names of {len(arguments.runs)} runs are {names}; give each run a name of its own.")
    runs = {name: read_run(path) for name, path in zip(names, arguments.runs, strict=True)}
    save_figure(loss_figure(runs), arguments.output)
    print(best_table(runs))


def main(argv: Sequence[str] | None = None) -> None:
    run(make_parser(), command, argv)


if __name__ == "__main__":
    main()
