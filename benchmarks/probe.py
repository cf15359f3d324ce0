# SPDX-License-Identifier: Apache-2.0
"""Time of positional probes of single channels: in closed form for all at once, and with scikit-learn one by one.

    python -m benchmarks.probe --output probe.json

* `scikit_learn`: a pipeline of StandardScaler and Ridge for each channel, layer and draw of patches. All ramps are its
  targets at once, which is quicker than a pipeline for each.
* `closed_form`: `evaluation.position.channel_probes.channel_r2`.
* `report`: all that `evaluation.position.positional_bias` does with an image's features by default, so also the linear
  and the ridge probe of all channels together; for the layers and draws of the whole report, not the few that are
  compared.

Features are random, with a slope from left to right, at the size of a ViT-S/14 at 518 pixels. Times are medians of runs
that take turns in one process, after one that is not counted. They are seconds of one processor core and not of the
clock, so that it counts little what else the machine does.
"""

import statistics
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from alibi_dinov2.io.files import write_json
from benchmarks.measuring import machine_facts
from evaluation.position.channel_probes import ChannelScores, channel_r2
from evaluation.position.patch_sampling import PatchSample, sample_repeatedly
from evaluation.position.position_targets import RAMPS, ramp_targets
from evaluation.position.positional_bias import Settings, probe_features

LAYERS, DRAWS, IMAGES = 13, 10, 15  # of the whole report: 12 layers and the output
SMALLEST = 9  # a side of which one patch in 36 is 2


@dataclass(frozen=True)
class Setting:
    """What is probed."""

    layers: int
    draws: int
    side: int = 37
    channels: int = 384

    def features(self) -> np.ndarray:
        """`(layers, side, side, channels)` float32."""
        random = np.random.default_rng(0)
        shape = (self.layers, self.side, self.side, self.channels)
        slope = random.normal(size=self.channels) * np.linspace(-1, 1, self.side)[:, None]
        return (random.normal(size=shape) + slope + 3).astype(np.float32)

    def targets(self) -> np.ndarray:
        """All ramps, `(side², 8)`."""
        ramps = ramp_targets(RAMPS, self.side, self.side, np.random.default_rng(0))
        return np.concatenate(list(ramps.values()), axis=1)

    def sample(self) -> PatchSample:
        """Random patches, one in 36."""
        return sample_repeatedly("random", self.side, self.side, self.draws, np.random.default_rng(0))


def probe_one_by_one(
    features: np.ndarray, targets: np.ndarray, train: np.ndarray, held_out: np.ndarray
) -> ChannelScores:
    """As `channel_r2`, with scikit-learn."""
    layers, _, width = features.shape
    scores = ChannelScores(*np.empty((2, layers, len(train), targets.shape[1], width)))
    for layer, draw, channel in np.ndindex(layers, len(train), width):
        inputs = features[layer, :, [channel]].T.astype(np.float64)
        probe = make_pipeline(StandardScaler(), Ridge()).fit(inputs[train[draw]], targets[train[draw]])
        predictions = probe.predict(inputs)
        for kind, patches in (("all_patches", np.s_[:]), ("held_out", held_out[draw])):
            r2 = r2_score(targets[patches], predictions[patches], multioutput="raw_values")
            getattr(scores, kind)[layer, draw, :, channel] = r2
    return scores


def compare(compared: Setting, whole: Setting, repeats: int) -> dict[str, Any]:
    """Times, the ratio, and the largest difference of any R²."""
    features, targets, sample = compared.features(), compared.targets(), compared.sample()
    patches = features.reshape(compared.layers, -1, compared.channels)
    report, settings = whole.features(), Settings(tuple(range(whole.layers)), repeats=whole.draws)
    runs = {
        "scikit_learn": lambda: probe_one_by_one(patches, targets, sample.train, sample.held_out),
        "closed_form": lambda: channel_r2(patches, targets, sample.train, sample.held_out),
        "report": lambda: probe_features([report], settings),
    }
    times, outputs = cpu_seconds(runs, repeats)
    slow, quick = outputs["scikit_learn"], outputs["closed_form"]
    differences = [np.abs(getattr(slow, kind) - getattr(quick, kind)).max() for kind in ("all_patches", "held_out")]
    return {
        "compared": asdict(compared),
        "scikit_learn_seconds": times["scikit_learn"],
        "closed_form_seconds": times["closed_form"],
        "ratio": times["scikit_learn"] / times["closed_form"],
        "difference": float(max(differences)),
        "whole": asdict(whole),
        "report_seconds_per_image": times["report"],
        "report_seconds": times["report"] * IMAGES,
        "report_images": IMAGES,
    }


def cpu_seconds(runs: Mapping[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of one core for each run, and its last output; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    outputs: dict[str, Any] = {}
    with threadpool_limits(1), tqdm(total=len(runs) * (repeats + 1), unit="run") as bar:
        for name in [*runs] * (repeats + 1):
            bar.set_description(name)
            start = time.process_time()
            outputs[name] = runs[name]()
            times[name].append(time.process_time() - start)
            bar.update()
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}, outputs


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    compared, whole = result["compared"], result["whole"]
    rows = [
        ("scikit-learn, channel by channel", compared, f"{result['scikit_learn_seconds']:.3f}"),
        ("closed form", compared, f"{result['closed_form_seconds']:.4f}"),
        (f"report of {result['report_images']} images", whole, f"{result['report_seconds']:.1f}"),
    ]
    lines = ["| what | layers | draws | seconds |", "|---|---:|---:|---:|"]
    lines += [f"| {what} | {setting['layers']} | {setting['draws']} | {seconds} |" for what, setting, seconds in rows]
    return "\n".join(lines) + f"\n\nratio {result['ratio']:.0f}, largest difference {result['difference']:.1e}"


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=1, help="layers that are probed both ways")
    parser.add_argument("--draws", type=int, default=2, help="draws of patches that are probed both ways")
    parser.add_argument("--side", type=int, default=37, help="patches along a side")
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    if min(options.layers, options.draws, options.channels, options.repeats) < 1 or options.side < SMALLEST:
        parser.error(f"all must be at least 1, and the side {SMALLEST}, not {vars(options)}")
    compared = Setting(options.layers, options.draws, options.side, options.channels)
    result = compare(compared, Setting(LAYERS, DRAWS, options.side, options.channels), options.repeats)
    if options.output:
        machine = machine_facts() | {name: version(name) for name in ("numpy", "scikit-learn")}
        write_json(options.output, {"machine": machine, "repeats": options.repeats} | result)
    print(table(result))


if __name__ == "__main__":
    main()
