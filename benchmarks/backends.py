# SPDX-License-Identifier: Apache-2.0
"""Which library and which precision gives the backbone's features soonest on this CPU, and what they are worth then.

    python -m training.export_onnx --model model_cards/alibi-dinov2-small --output alibi-dinov2-small-ONNX
    python -m benchmarks.backends --onnx alibi-dinov2-small-ONNX --images micrographs --output backends.json

The central square of each image goes through the shipped model in PyTorch (eager, compiled, bfloat16), onnxruntime and
OpenVINO, whichever of them is installed, all with as many threads as PyTorch has. All take turns in one process.

* `seconds`: median of a pass, batch of one; `ratio` to PyTorch in float32.
* `cosine`: of patch tokens to those of PyTorch in float32, the mean and the least of all patches of all images.

Static quantisation is calibrated on every second image, and everything is measured on the others.

    python -m benchmarks.backends --onnx … --images … --output backends.json --data superalloy --classes 0 1 2 \\
        --train-images spot3_0d_3 spot4_0d_3 spot5_0d_0 spot6_0d_2 spot7_0d_5

adds to the record the mIoU of `evaluation.segmentation.few_labels` with the product's own settings, the same strokes
for all: of the quickest of each library whose mean cosine is `LEAST` or more, beside PyTorch in float32.
"""

import importlib.util
import json
import tempfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers.modeling_outputs import BaseModelOutput

from alibi_dinov2.features.backbone import Backbone, load_backbone, preprocess
from alibi_dinov2.features.classical_features import ClassicalFeatures
from alibi_dinov2.features.deep_features import DeepFeatures
from alibi_dinov2.features.feature_cache import MemoryCache
from alibi_dinov2.features.token_layout import prefix_tokens
from alibi_dinov2.io.files import sha256_of, write_json
from alibi_dinov2.io.images import find_images, read_image
from alibi_dinov2.segmentation.segmenter import TrainableSegmenter
from benchmarks.measuring import machine_facts, time_in_turns
from evaluation.segmentation.few_labels import Drawing, learning_curve, mious
from evaluation.semantics.segmentation_data import Labels, open_data

Run = Callable[[np.ndarray], np.ndarray]  # pixels (1, 3, H, W) float32 -> tokens (1, N, D) float32

MODEL = Path("model_cards/alibi-dinov2-small")
REFERENCE = "torch float32"
LEAST = 0.999
OPENVINO, ONNXRUNTIME = "openvino", "onnxruntime"


def torch_run(model: Callable[..., Any], dtype: torch.dtype = torch.float32, autocast: bool = False) -> Run:
    """A model of PyTorch."""

    @torch.inference_mode()
    def run(pixels: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return model(torch.from_numpy(pixels).to(dtype)).last_hidden_state.float().numpy()

    return run


def torch_runs(folder: Path) -> Iterator[tuple[str, Run]]:
    """PyTorch in its own ways."""

    def model(dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> torch.nn.Module:
        found = load_backbone(folder, dtype=dtype).model
        found.set_attn_implementation(attention)
        return found

    yield REFERENCE, torch_run(model())
    yield "torch compiled", torch_run(torch.compile(model()))
    yield "torch bfloat16", torch_run(model(torch.bfloat16), torch.bfloat16)
    yield "torch bfloat16, eager attention", torch_run(model(torch.bfloat16, "eager"), torch.bfloat16)
    yield "torch bfloat16 autocast", torch_run(model(), autocast=True)
    yield "torch bfloat16 compiled", torch_run(torch.compile(model(torch.bfloat16)), torch.bfloat16)


def onnx_run(path: Path) -> Run:
    """A file in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["last_hidden_state"], {"pixel_values": pixels})[0]


def onnx_runs(folder: Path, calibration: Sequence[np.ndarray], made: Path) -> Iterator[tuple[str, Run]]:
    """The files of `training.export_onnx` in onnxruntime, and one of 8 bits whose ranges are calibrated."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Calibration(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            pixels = next(self.left, None)
            return None if pixels is None else {"pixel_values": pixels}

    yield "onnxruntime float32", onnx_run(folder / "model.onnx")
    yield "onnxruntime dynamic int8", onnx_run(folder / "model_quantized.onnx")
    prepared, eight_bits = made / "prepared.onnx", made / "static.onnx"
    quant_pre_process(folder / "model.onnx", prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared, eight_bits, Calibration(), op_types_to_quantize=["MatMul"], per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    yield "onnxruntime static int8", onnx_run(eight_bits)


def openvino_runs(folder: Path, calibration: Sequence[np.ndarray]) -> Iterator[tuple[str, Run]]:
    """The file in single precision in OpenVINO, and quantised by NNCF if that is installed."""
    import openvino

    core = openvino.Core()

    def compiled(model: Any, precision: str) -> Run:
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        found = core.compile_model(model, "CPU", settings)
        return lambda pixels: found(pixels)["last_hidden_state"]

    model = core.read_model(folder / "model.onnx")
    yield "openvino float32", compiled(model, "f32")
    yield "openvino bfloat16", compiled(model, "bf16")
    if importlib.util.find_spec("nncf"):
        import nncf

        eight_bits = nncf.quantize(model, nncf.Dataset(list(calibration)), model_type=nncf.ModelType.TRANSFORMER)
        yield "openvino static int8", compiled(eight_bits, "f32")
        yield "openvino static int8, rest bfloat16", compiled(eight_bits, "bf16")


def cosines(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine of each token `(1, N, D)` to the reference's, `(N,)`."""
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(reference, axis=-1)
    return ((found * reference).sum(axis=-1) / lengths)[0]


def central_square(image: Image.Image) -> Image.Image:
    """The largest square in the middle."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))


def with_run(backbone: Backbone, run: Run, name: str) -> Backbone:
    """A backbone whose tokens another back end computes."""

    def forward(pixel_values: torch.Tensor) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=torch.from_numpy(np.array(run(pixel_values.numpy()))))

    other = load_backbone(backbone.source)
    other.model.forward = forward
    return replace(other, name=name, weights_sha256=f"{backbone.weights_sha256} by {name}")


def few_labels(backbone: Backbone, runs: dict[str, Run], options: Namespace, folder: Path) -> dict[str, Any]:
    """mIoU of the rounds of few labels, the mean over seeds, and the least and most by which it differs."""
    train, test = open_data(options.data, Labels(tuple(options.classes)), options.train_images)
    test = replace(test, samples=list(test.samples)[: options.test_images])
    drawing = Drawing(options.rounds, options.seeds)
    scores = {}
    for name, run in runs.items():
        segmenter = TrainableSegmenter(with_run(backbone, run, name), ClassicalFeatures(), cache=MemoryCache())
        scores[name] = mious(learning_curve(segmenter, train, test, drawing, folder, {"backend": name}, name))
    return {
        "data": train.name,
        "train": len(train),
        "test": len(test),
        "rounds": drawing.rounds,
        "seeds": drawing.seeds,
        "rows": {
            name: {
                "miou": found.mean(axis=0).tolist(),
                "difference": [float(extreme(found - scores[REFERENCE])) for extreme in (np.min, np.max)],
            }
            for name, found in scores.items()
        },
    }


def all_runs(
    options: Namespace, pixels: Callable[[Path], np.ndarray], paths: Sequence[Path], folder: Path
) -> dict[str, Run]:
    """All back ends that are installed; those that need it are calibrated on some images."""
    runs = dict(torch_runs(options.model))
    if options.onnx:
        calibration = [pixels(path) for path in paths]
        runs |= dict(onnx_runs(options.onnx / "onnx", calibration, folder))
        if importlib.util.find_spec(OPENVINO):
            runs |= dict(openvino_runs(options.onnx / "onnx", calibration))
    return runs


def measure(runs: dict[str, Run], images: Sequence[np.ndarray], prefix: int, repeats: int) -> dict[str, Any]:
    """Times and cosines of all back ends on `(1, 3, H, W)` pixels; tokens begin with a prefix."""
    for run in tqdm(runs.values(), "compiling", unit="back end"):
        run(images[0])
    # Rounds take turns, and with them images.
    turn = dict.fromkeys(runs, -1)

    def advance(name: str) -> None:
        turn[name] += 1

    def on_its_image(name: str) -> Callable[[], np.ndarray]:
        return lambda: runs[name](images[turn[name] % len(images)])

    timed = time_in_turns({name: on_its_image(name) for name in runs}, repeats, advance)
    found: dict[str, list[np.ndarray]] = {name: [] for name in runs}
    for image in tqdm(images, "cosines", unit="img"):
        reference = runs[REFERENCE](image)[:, prefix:]
        for name, run in runs.items():
            found[name].append(cosines(run(image)[:, prefix:], reference))
    return {
        name: {
            "seconds": seconds,
            "ratio": seconds / timed[REFERENCE][0],
            "cosine": float(np.concatenate(found[name]).mean()),
            "least cosine": float(np.concatenate(found[name]).min()),
        }
        for name, (seconds, _) in timed.items()
    }


def quickest(rows: dict[str, Any]) -> list[str]:
    """The reference, and of each library the back end that takes least time with a mean cosine of `LEAST` or more."""
    best: dict[str, str] = {}
    for name in sorted(rows, key=lambda name: rows[name]["seconds"]):
        if rows[name]["cosine"] >= LEAST:
            best.setdefault(name.partition(" ")[0], name)
    return list(dict.fromkeys([REFERENCE, *best.values()]))


def table(record: dict[str, Any]) -> str:
    """The rows as Markdown."""
    lines = ["| back end | ms | ratio | cosine, mean | least | mIoU by rounds |", "|---|---:|---:|---:|---:|---|"]
    scores = record.get("few labels", {}).get("rows", {})
    for name, row in record["rows"].items():
        cells = [f"{1000 * row['seconds']:.0f}", f"{row['ratio']:.2f}", f"{row['cosine']:.5f}"]
        mious_of = scores.get(name, {"miou": []})["miou"]
        cells += [f"{row['least cosine']:.4f}", " ".join(f"{score:.3f}" for score in mious_of)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the backbone")
    parser.add_argument("--onnx", type=Path, help="folder of training.export_onnx; if not given, PyTorch alone")
    parser.add_argument("--images", type=Path, required=True, help="folder of micrographs, two or more")
    parser.add_argument("--size", type=int, default=DeepFeatures.window, help="side in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", help="folder of images and masks, for mIoU")
    parser.add_argument("--classes", type=int, nargs="+", help="values of the classes in the masks")
    parser.add_argument("--train-images", nargs="+", default=[], help="names of the images that strokes are drawn on")
    parser.add_argument("--test-images", type=int, default=4, help="how many of the others mIoU is over")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--backends", nargs="+", help="names in the table; all that are installed if not given")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    backbone, paths = load_backbone(options.model), find_images(options.images)

    def pixels(path: Path) -> np.ndarray:
        return preprocess(backbone, [central_square(read_image(path))], options.size).numpy()

    with tempfile.TemporaryDirectory() as folder:
        runs = all_runs(options, pixels, paths[::2], Path(folder))
        if options.backends:
            runs = {name: runs[name] for name in dict.fromkeys((REFERENCE, *options.backends))}
        if options.data:
            record = json.loads(options.output.read_text())
            wanted = {name: runs[name] for name in quickest({name: record["rows"][name] for name in runs})}
            record["few labels"] = few_labels(backbone, wanted, options, Path(folder))
        else:
            images = [pixels(path) for path in paths[1::2]]
            record = {
                "machine": machine_facts(),
                "settings": {"size": options.size, "repeats": options.repeats, "model": options.model.name},
                "images": {path.name: sha256_of(path) for path in paths[1::2]},
                "rows": measure(runs, images, prefix_tokens(backbone.model), options.repeats),
            }
    write_json(options.output, record)
    print(table(record))


if __name__ == "__main__":
    main()
