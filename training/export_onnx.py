# SPDX-License-Identifier: Apache-2.0
"""Hub folder -> ONNX folder that transformers.js loads by itself, in the browser or in Node, at any size of image.

    python -m training.export_onnx --model model_cards/alibi-dinov2-small --output alibi-dinov2-small-ONNX

The bias is computed inside the graph from the height and width that come in. Each variant (`fp32`, `fp16`, and `q8`
with weights of 8 bits) is compared with PyTorch on real images at several sizes; what differs too much is not written.
The figures go into `parity.json`, and from there into the card.
"""

import argparse
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.export import Dim
from tqdm import tqdm
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME

from alibi_dinov2.command import run
from alibi_dinov2.features.weights import files_sha256, weights_files
from alibi_dinov2.io.files import new_folder, require_new_folder, sha256_of, write_json
from alibi_dinov2.io.images import find_images, read_image
from modeling_alibi_dinov2 import Dinov2AlibiConfig, Dinov2AlibiImageProcessor, Dinov2AlibiModel
from modeling_alibi_dinov2.configuration_alibi_dinov2 import as_pair
from training.export import class_of, licence_text
from training.onnx_card import PARITY, write_card

IMAGES = Path(__file__).parents[1] / "data" / "micrographs"
INPUT, OUTPUTS = "pixel_values", ["last_hidden_state", "pooler_output"]
DYNAMIC = {INPUT: {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
TRACED_AT = (2, 4, 5)  # batch, rows and columns: all different, and none of them 1, which would be taken for fixed


class Variant(NamedTuple):
    """One of the files of an ONNX folder.

    Attributes:
        dtype: what transformers.js calls it.
        file: its name in `onnx/`, by which transformers.js finds it.
        least_cosine: to PyTorch's features, which every token at every size must reach.
        required: whether there is no folder without it.
    """

    dtype: str
    file: str
    least_cosine: float
    required: bool


VARIANTS = (
    Variant("fp32", "model.onnx", 0.99999, True),
    Variant("fp16", "model_fp16.onnx", 0.999, True),
    Variant("q8", "model_quantized.onnx", 0.98, False),
)


def export_onnx(
    model_folder: str | Path, output: str | Path, images: Sequence[Path], base_model: str | None = None
) -> dict[str, Any]:
    """Write an ONNX folder.

    Args:
        model_folder: of an ALiBi-DINOv2 model without a head, and its image processor.
        output: folder to make; its name is that of the model in the card.
        images: on which the variants are compared with PyTorch.
        base_model: Hub id of the model that is exported, if it has one.

    Returns:
        The figures of the comparison, as they are in `parity.json`.

    Raises:
        FileExistsError: `output` is a folder with something in it.
        ImportError: the extra `onnx` is not installed.
        ValueError: the model has a head or random distances, or a file in single or half precision is not what PyTorch
            is.
    """
    require_new_folder(output)
    model = exportable_model(model_folder)
    processor = Dinov2AlibiImageProcessor.from_pretrained(model_folder)
    with new_folder(output) as folder:
        (folder / "onnx").mkdir()
        write_variants(model, folder / "onnx")
        figures = parity(model, processor, folder / "onnx", images)
        shipped, left_out = keep_what_agrees(folder / "onnx", figures)
        write_json(folder / CONFIG_NAME, transformers_js_config(model.config, [entry["dtype"] for entry in shipped]))
        write_json(folder / IMAGE_PROCESSOR_NAME, transformers_js_processor(processor, model.config))
        (folder / "LICENSE").write_text(licence_text(), encoding="utf-8")
        record = {
            "model": {
                "name": Path(model_folder).resolve().name,
                "weights_sha256": files_sha256(weights_files(model_folder)),
            },
            "images": {path.name: sha256_of(path) for path in images},
            "versions": {name: version(name) for name in ("torch", "transformers", "onnx", "onnxruntime")},
            "image_size": min(as_pair(model.config.image_size)),
            "patch_size": processor.patch_size,
            "stride": model.config.stride_shape[0],
            "num_prefix_tokens": model.config.num_prefix_tokens,
            "variants": shipped,
            "left_out": left_out,
        }
        write_json(folder / PARITY, record)
        write_card(folder, Path(output).resolve().name, base_model)
    return record


def exportable_model(folder: str | Path) -> Dinov2AlibiModel:
    """The model of a folder in single precision, ready to be traced.

    Raises:
        ValueError: it has a head, which would be lost, or disturbs its distances at random.
    """
    if class_of(folder) is not Dinov2AlibiModel:
        raise ValueError(f"{folder} holds a {class_of(folder).__name__}; only models without a head can be exported.")
    # Eager attention: SDPA is taken apart into twice as many operations.
    model = Dinov2AlibiModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    if model.config.alibi_jitter:
        raise ValueError(
            f"`alibi_jitter` is {model.config.alibi_jitter}: every pass would be another. Export a model without it."
        )
    return model.eval()


class Features(nn.Module):
    """A model as the graph sees it: pixels in, the outputs of the graph out."""

    def __init__(self, model: Dinov2AlibiModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`(B, 3, H, W)` -> `OUTPUTS`."""
        output = self.model(pixel_values)
        return tuple(output[name] for name in OUTPUTS)


def write_variants(model: Dinov2AlibiModel, folder: Path) -> None:
    """Write all `VARIANTS` of a model into a folder.

    Raises:
        ImportError: the extra `onnx` is not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise ImportError(f"Exporting to ONNX needs {error.name}: pip install -e '.[onnx]'") from error

    single, half, eight_bits = (folder / variant.file for variant in VARIANTS)
    batch, *grid = TRACED_AT
    height, width = (count * side for count, side in zip(grid, model.config.patch_shape, strict=True))
    pixels = torch.zeros(batch, model.config.num_channels, height, width)
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            Features(model),
            (pixels,),
            dynamo=True,
            dynamic_shapes=DYNAMIC,
            input_names=[INPUT],
            output_names=OUTPUTS,
            verbose=False,
        )
    graph = program.model_proto  # type: ignore[union-attr]  # None with `f` alone
    name_dimensions(graph)
    onnx.save(graph, single)
    with quiet():
        # Unsigned, a scale for each output channel: the products of signed weights overflow 16 bits on processors
        # without VNNI. The patches' projection stays as it is: it is small, and everything depends on it.
        quantize_dynamic(
            single, eight_bits, weight_type=QuantType.QUInt8, per_channel=True, op_types_to_quantize=["MatMul"]
        )
    # Pixels and features stay in single precision, so that callers need not know which variant they have.
    onnx.save(convert_float_to_float16(graph, keep_io_types=True), half)


def name_dimensions(graph: Any) -> None:
    """Name the dynamic dimensions of an `onnx.ModelProto`'s input and outputs by what they are, in place."""
    names = {INPUT: ("batch", "", "height", "width"), OUTPUTS[0]: ("batch", "tokens"), OUTPUTS[1]: ("batch",)}
    renamed: dict[str, str] = {}
    for value in (*graph.graph.input, *graph.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, names[value.name], strict=False):
            if name and not dimension.HasField("dim_value"):
                dimension.dim_param = renamed.setdefault(dimension.dim_param, name)
    # The sizes of everything between are expressions of the old names; ONNX Runtime infers them anew.
    del graph.graph.value_info[:]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch and ONNX Runtime tell about deprecated internals of their own and about further processing."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def parity_sizes(config: Dinov2AlibiConfig) -> list[tuple[int, int]]:
    """Heights and widths at which variants are compared: 224, the size of the configuration, and one that is not
    square; for patches of 14 pixels and the published model 224×224, 518×518 and 322×518."""
    image, patch = as_pair(config.image_size), config.patch_shape

    def rounded(height: int, width: int) -> tuple[int, int]:
        return max(height // patch[0], 1) * patch[0], max(width // patch[1], 1) * patch[1]

    return [rounded(224, 224), rounded(*image), rounded(322, image[1])]


def parity(
    model: Dinov2AlibiModel, processor: Dinov2AlibiImageProcessor, folder: Path, images: Sequence[Path]
) -> list[dict[str, Any]]:
    """How well all variants in a folder agree with PyTorch.

    Returns:
        For each of `VARIANTS` its name, its file, the file's bytes, and by size the `mean` and `least` cosine of a
        token's features to PyTorch's, over all tokens of all images.
    """
    import onnxruntime

    sessions = {
        variant: onnxruntime.InferenceSession(folder / variant.file, providers=["CPUExecutionProvider"])
        for variant in VARIANTS
    }
    sizes = parity_sizes(model.config)
    cosines: dict[Variant, dict[str, list[np.ndarray]]] = {variant: {} for variant in VARIANTS}
    with tqdm(total=len(sizes) * len(images), desc="comparing with PyTorch", unit="image") as bar:
        for path in images:
            image = read_image(path)
            for height, width in sizes:
                pixels = pixels_at(processor, image, height, width)
                with torch.no_grad():
                    expected = model(pixels).last_hidden_state
                for variant, session in sessions.items():
                    (tokens,) = session.run(OUTPUTS[:1], {INPUT: pixels.numpy()})
                    cosine = nn.functional.cosine_similarity(torch.from_numpy(tokens), expected, dim=-1)
                    cosines[variant].setdefault(f"{height}×{width}", []).append(cosine.double().numpy().ravel())
                bar.update()
    return [
        {
            "dtype": variant.dtype,
            "file": variant.file,
            "bytes": (folder / variant.file).stat().st_size,
            "cosine": {
                size: {"mean": float(np.concatenate(parts).mean()), "least": float(np.concatenate(parts).min())}
                for size, parts in cosines[variant].items()
            },
        }
        for variant in VARIANTS
    ]


def pixels_at(processor: Dinov2AlibiImageProcessor, image: Image.Image, height: int, width: int) -> torch.Tensor:
    """An image resized to a height and width in pixels and normalised, `(1, 3, height, width)`."""
    size = {"height": height, "width": width}
    return processor(image, size=size, do_center_crop=False, return_tensors="pt")["pixel_values"]


def keep_what_agrees(
    folder: Path, figures: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Remove the files of variants that are too far from PyTorch; the figures of those that stay, and of the others.

    Raises:
        ValueError: a variant that must be there is too far.
    """
    shipped, left_out = [], []
    for variant, entry in zip(VARIANTS, figures, strict=True):
        least = min(cosine["least"] for cosine in entry["cosine"].values())
        if least >= variant.least_cosine:
            shipped.append(entry)
        elif variant.required:
            raise ValueError(
                f"{variant.file} differs from PyTorch: the cosine of a token's features is {least:.6f}, and must be "
                f"{variant.least_cosine} or more. Nothing was written; other versions of onnx and torch than those in "
                "constraints.txt may be the reason."
            )
        else:
            (folder / variant.file).unlink()
            left_out.append(entry)
    return shipped, left_out


def transformers_js_config(config: Dinov2AlibiConfig, dtypes: Sequence[str]) -> dict[str, Any]:
    """The configuration under a name that transformers.js knows; the graph holds what is different.

    Args:
        dtypes: of the variants that there are. Without a GPU the one with 8 bits is taken, if it is there.
    """
    values = config.to_dict()
    for name in ("auto_map", "_name_or_path"):  # code that is not here, and a folder of this machine
        values.pop(name, None)
    registers = config.num_register_tokens > 0
    defaults: dict[str, Any] = {"dtype": "fp32"}
    if "q8" in dtypes:
        defaults["device_config"] = {"wasm": {"dtype": "q8"}}
    return values | {
        "architectures": ["Dinov2WithRegistersModel" if registers else "Dinov2Model"],
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "transformers.js_config": defaults,
    }


def transformers_js_processor(processor: Dinov2AlibiImageProcessor, config: Dinov2AlibiConfig) -> dict[str, Any]:
    """The image processor for transformers.js: the shorter side becomes that of the configuration, the other follows
    the image, and both are rounded down to whole patches."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": min(as_pair(config.image_size))},
        "size_divisibility": processor.patch_size,
        "resample": int(processor.resample),
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": processor.rescale_factor,
        "do_normalize": True,
        "image_mean": list(processor.image_mean),
        "image_std": list(processor.image_std),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="folder of the model, as training.export makes it")
    parser.add_argument("--output", required=True, type=Path, help="folder to make, named like the model with -ONNX")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of images to compare on")
    parser.add_argument("--base-model", help="Hub id of the model that is exported, if it has one")

    def command(arguments: argparse.Namespace) -> None:
        record = export_onnx(arguments.model, arguments.output, find_images(arguments.images), arguments.base_model)
        for what, entries in (("written", record["variants"]), ("left out", record["left_out"])):
            for entry in entries:
                cosines = ", ".join(f"{size} {cosine['least']:.6f}" for size, cosine in entry["cosine"].items())
                print(f"{entry['file']:<21}{entry['bytes'] / 1e6:6.1f} MB, {what}; least cosine to PyTorch: {cosines}")
        print(f"{arguments.output}: ready for transformers.js")

    run(parser, command)


if __name__ == "__main__":
    main()
