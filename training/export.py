# SPDX-License-Identifier: Apache-2.0
"""Student -> Hub folder: weights, configuration, image processor, the package's own files, licence and provenance.

Among the package's files is `handler.py`, which an Inference Endpoint runs; `requirements.txt` says what it needs.

    python -m training.export --student runs/first/student --output model_cards/alibi-dinov2-small \\
        --teacher-name "DINOv2 ViT-S/14 with registers" --base-model facebook/dinov2-with-registers-small \\
        --images-name "the photographs of COCO-Stuff"

Whoever has the folder, or its copy on the Hub, loads it with `AutoModel.from_pretrained(…, trust_remote_code=True)`.
`python -m evaluation.report.publish` adds the card with its results and uploads it.
"""

import argparse
import re
import shutil
from importlib.metadata import files, requires
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel

import modeling_alibi_dinov2
from alibi_dinov2.command import run
from alibi_dinov2.features.weights import require_same_tensors
from alibi_dinov2.io.files import new_folder, require_new_folder, write_json
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

AUTO_MAP = {
    "AutoConfig": "configuration_alibi_dinov2.Dinov2AlibiConfig",
    "AutoModel": "modeling_alibi_dinov2.Dinov2AlibiModel",
    "AutoBackbone": "modeling_alibi_dinov2.Dinov2AlibiBackbone",
    "AutoModelForImageClassification": "modeling_alibi_dinov2.Dinov2AlibiForImageClassification",
    "AutoModelForSemanticSegmentation": "modeling_alibi_dinov2.Dinov2AlibiForSemanticSegmentation",
    "AutoImageProcessor": "image_processing_alibi_dinov2.Dinov2AlibiImageProcessor",
}


PAPER = '"What DINO saw: ALiBi positional encoding reduces positional bias in Vision Transformers" (arXiv 2603.16840)'
# What the model is, for its card.
SUMMARIES = {
    "alibi": (
        "A vision transformer whose dense features say *what* is at a place and not *where* the place is: DINOv2 "
        "without its learned position embedding, with a two-dimensional ALiBi bias on a torus in the attention "
        f"instead, distilled back to its teacher's features. After {PAPER}."
    ),
    "none": (
        "DINOv2 without any position encoding, distilled back to its teacher's features: the baseline called NoPE in "
        f"{PAPER}."
    ),
}


def package_files() -> list[Path]:
    """The model package's modules, which travel with the weights."""
    folder = Path(modeling_alibi_dinov2.__path__[0])
    return sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")


def export(
    student: str | Path,
    output: str | Path,
    teacher: str,
    images: str,
    base_model: str | None = None,
    half: bool = False,
) -> None:
    """Write a Hub folder.

    Args:
        student: folder of an ALiBi-DINOv2 model, with or without a head, and its image processor.
        output: folder to make; its name is the model's name in the card.
        teacher, images: what the model was distilled from and on, in words, for the card.
        base_model: Hub id of the teacher, if it has one.
        half: whether the weights file is in half precision. The model is loaded in single precision all the same,
            unless another `dtype` is asked for.

    Raises:
        FileExistsError: `output` is a folder with something in it.
        ValueError: the student is of another family, or the exported model differs from it.
    """
    require_new_folder(output)
    model_class = class_of(student)
    model = model_class.from_pretrained(student, dtype=torch.float32)
    if half:
        model = model.half().float()  # rounded: what will be loaded
    processor = Dinov2AlibiImageProcessor.from_pretrained(student)
    model.config.auto_map = AUTO_MAP
    processor.auto_map = {"AutoImageProcessor": AUTO_MAP["AutoImageProcessor"]}
    with new_folder(output) as folder:
        weights = {name: value.half() for name, value in model.state_dict().items()} if half else None
        model.save_pretrained(folder, state_dict=weights)
        processor.save_pretrained(folder)
        for path in package_files():
            shutil.copyfile(path, folder / path.name)
        (folder / "LICENSE").write_text(licence_text(), encoding="utf-8")
        (folder / "requirements.txt").write_text(endpoint_requirements(), encoding="utf-8")
        write_json(
            folder / "provenance.json",
            {
                "summary": SUMMARIES[model.config.position_encoding],
                "weights": f"Distilled from {teacher} on {images}.",
                "license": "apache-2.0",
                "base_model": base_model,
            },
        )
        require_same_tensors(model_class.from_pretrained(folder), model, "The exported model")


def licence_text() -> str:
    """This package's licence, under which code and weights travel.

    Raises:
        FileNotFoundError: the package is not installed as it should be.
    """
    licence = next((path for path in files("alibi-dinov2") or () if path.name == "LICENSE"), None)
    if licence is None:
        raise FileNotFoundError("The installed alibi-dinov2 has no LICENSE; install it again with `pip install -e .`.")
    return licence.read_text(encoding="utf-8")


def endpoint_requirements() -> str:
    """What an Inference Endpoint installs for `handler.py`, a line each; it has torch, for its own hardware."""
    wanted = [line for line in requires("alibi-dinov2") or () if re.match(r"(numpy|pillow|transformers)\b", line)]
    return "".join(f"{line}\n" for line in sorted(wanted))


def class_of(folder: str | Path) -> type[PreTrainedModel]:
    """The class that a folder's model was saved from: the bare model, or one with a head.

    Raises:
        ValueError: it is no class of this package.
    """
    (architecture,) = AutoConfig.from_pretrained(folder).architectures or [None]
    if architecture not in modeling_alibi_dinov2.__all__:
        raise ValueError(f"{folder} holds a {architecture}; only ALiBi-DINOv2 models can be exported.")
    return getattr(modeling_alibi_dinov2, architecture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, type=Path, help="folder of the distilled student")
    parser.add_argument("--output", required=True, type=Path, help="Hub folder to make, named like the model")
    parser.add_argument("--teacher-name", required=True, help="what the model was distilled from, for the card")
    parser.add_argument("--images-name", required=True, help="what the model was distilled on, for the card")
    parser.add_argument("--half", action="store_true", help="write the weights in half precision")
    parser.add_argument("--base-model", help="Hub id of the teacher, if it has one")

    def command(arguments: argparse.Namespace) -> None:
        names = (arguments.teacher_name, arguments.images_name, arguments.base_model)
        export(arguments.student, arguments.output, *names, half=arguments.half)
        print(f"{arguments.output}: ready for evaluation.report.publish")

    run(parser, command)


if __name__ == "__main__":
    main()
