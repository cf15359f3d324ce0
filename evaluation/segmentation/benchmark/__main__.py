# SPDX-License-Identifier: Apache-2.0
"""The segmenter beside its parts and beside the tools that people use, on many data sets, from the same strokes.

    python -m evaluation.segmentation.benchmark --data benchmark-data --model alibi-dinov2-small --teacher teacher \\
        --peers .venv-peers/bin/python --output benchmark.json --figure benchmark.png

The data sets are those that `prepare.py` made. Simulated users (`--seeds`) draw on some images of each, in four ways:
strokes of 25 and of 100 pixels, straight and bent, one per class and image in a round. mIoU is over 1,000 pixels of
each image to test on, the same for everybody, after the rounds of `--rounds`; all data sets and ways of drawing count
the same. `--trials` compares variants of a part of the segmenter instead. The record also tells which contender one
would choose on all data sets but one, and what that gives on the one left out, for each of them in turn.

What was measured is kept (`--cache`): a run that was stopped goes on where it was, and a contender that is added costs
its own time only.
"""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from alibi_dinov2.features.backbone import Backbone, load_backbone
from alibi_dinov2.pictures.panels import save_figure
from evaluation.command import add_cache_options, feature_cache, plain_parser, run_record
from evaluation.report.records import DatasetFacts, Stopwatch, make_record
from evaluation.segmentation.benchmark.choice import figures, leave_one_out, mious
from evaluation.segmentation.benchmark.contenders import TRIALS, feature_makers, peers
from evaluation.segmentation.benchmark.figures import choice_table, panels, score_table
from evaluation.segmentation.benchmark.measure import describe_protocol, measure_program, measure_set
from evaluation.segmentation.benchmark.pixels import Protocol
from evaluation.segmentation.benchmark.programs import Convpaint, WeightsMissing
from evaluation.segmentation.benchmark.sets import DataSet, open_sets
from evaluation.segmentation.comparison import with_versions
from evaluation.segmentation.few_labels import Drawing
from evaluation.semantics.segmentation_data import describe

LENGTHS = (25, 100)  # of strokes in pixels
CONVPAINT = ("gaussian", "vgg", "dinov2")


def measure_all(
    sets: Sequence[DataSet], arguments: argparse.Namespace, protocol: Protocol, model: Backbone
) -> tuple[dict[str, dict[str, np.ndarray]], DatasetFacts, dict[str, Any]]:
    """Scores of all contenders on all data sets, facts of the data, and what there is to say of the peers."""
    cache = feature_cache(arguments)
    folder = cache.folder / "benchmark"
    teacher = load_backbone(arguments.teacher, arguments.device, "teacher") if arguments.teacher else None
    makers = feature_makers(model, teacher, cache)
    contenders = TRIALS[arguments.trials] if arguments.trials else peers(model.name, teacher is not None)
    programs = [Convpaint(arguments.peers, name) for name in CONVPAINT] if arguments.peers else []
    scores: dict[str, dict[str, np.ndarray]] = {one.name: {} for one in contenders}
    digest, images = hashlib.sha256(), 0
    told: dict[str, Any] = {}
    for data in sets:
        facts = [describe(part, progress=True) for part in (data.train, data.test)]
        fingerprint = " ".join(one.fingerprint for one in facts)
        digest.update(fingerprint.encode())
        images += facts[1].images
        for name, matrices in measure_set(data, fingerprint, contenders, makers, protocol, folder).items():
            scores[name][data.name] = mious(matrices)
        for program in list(programs):
            try:
                matrices, versions = measure_program(data, fingerprint, program, protocol, folder)
            except WeightsMissing as error:
                programs.remove(program)
                told[program.name] = {"missing": str(error)}
                print(f"{program.name} is left out: {error}")
            else:
                told[program.name] = {"versions": versions}
                scores.setdefault(program.name, {})[data.name] = mious(matrices)
    return scores, DatasetFacts("benchmark", "test", images, digest.hexdigest()), told


def command(arguments: argparse.Namespace) -> dict[str, Any]:
    """The record that the options ask for; the picture is written and tables are printed on the way."""
    stopwatch = Stopwatch()
    sets = open_sets(arguments.data, arguments.sets)
    names, rounds = [data.name for data in sets], tuple(sorted(set(arguments.rounds)))
    drawings = [
        Drawing(rounds[-1], arguments.seeds, length, straight=straight)
        for length in arguments.lengths
        for straight in (True, False)
    ]
    protocol = Protocol(tuple(drawings), rounds, arguments.seeds, arguments.train_images)
    model = load_backbone(arguments.model, arguments.device, arguments.name)
    scores, dataset, told = measure_all(sets, arguments, protocol, model)
    metrics, spread = figures(scores, names, rounds)
    parameters = {
        "sets": {data.name: asdict(data.facts) for data in sets},
        "trials": arguments.trials,
        "peers": told,
        **describe_protocol(protocol),
    }
    record = make_record("segmentation_benchmark", metrics, dataset, model, parameters, 0, stopwatch)
    print(score_table(scores, names, rounds))
    if len(sets) > 1:
        choices = leave_one_out(scores, names)
        record["choices"] = {name: choice._asdict() for name, choice in choices.items()}
        print(choice_table(choices))
    if arguments.figure:
        dashed = [name for name in scores if name.endswith(" alone")]
        save_figure(panels(scores, names, rounds, dashed), arguments.figure)
    return with_versions(record) | {"spread": spread}


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = plain_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that benchmark.prepare filled")
    parser.add_argument("--sets", nargs="+", default=[], help="names of data sets; all in the folder if not given")
    parser.add_argument("--model", required=True, help="Hub id or folder of the backbone")
    parser.add_argument("--name", help="what to call it; its Hub id or folder name if not given")
    parser.add_argument("--teacher", help="Hub id or folder of the backbone that it was distilled from")
    parser.add_argument("--device", default="cpu", help="where backbones run, such as cpu or cuda")
    parser.add_argument("--trials", choices=TRIALS, help="compare variants of this part of the segmenter instead")
    parser.add_argument("--peers", type=Path, help="Python of an environment with Convpaint (peers/requirements.txt)")
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 3, 10], help="after which there is a figure")
    parser.add_argument("--seeds", type=int, default=Drawing.seeds, help="how many users draw, with seeds 0, 1, …")
    parser.add_argument("--train-images", type=int, default=2, help="that each of them draws on")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), help="of strokes in pixels")
    add_cache_options(parser)
    parser.add_argument("--output", type=Path, required=True, help="file for the result record (JSON)")
    parser.add_argument("--figure", type=Path, help="file for the picture (PNG)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    run_record(make_parser(), command, argv, show=lambda record: None)


if __name__ == "__main__":
    main()
