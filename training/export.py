# SPDX-License-Identifier: Apache-2.0
"""Student -> Hub folder: weights, configuration, image processor, the package's own files and a card with its results.

    python -m training.export --student runs/first/student --output alibi-dinov2-small --records results \\
        --teacher-name facebook/dinov2-with-registers-small --base-model facebook/dinov2-with-registers-small

Whoever has the folder, or its copy on the Hub, loads it with `AutoModel.from_pretrained(…, trust_remote_code=True)`.
"""

import argparse
import shutil
from pathlib import Path

from transformers import AutoConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, logging

import modeling_alibi_dinov2
from common.files import new_folder, require_new_folder, sha256_of, write_json
from common.models import require_same_tensors
from evaluation.card import read_records, render_card
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor

AUTO_MAP = {
    "AutoConfig": "configuration_alibi_dinov2.Dinov2AlibiConfig",
    "AutoModel": "modeling_alibi_dinov2.Dinov2AlibiModel",
    "AutoBackbone": "modeling_alibi_dinov2.Dinov2AlibiBackbone",
    "AutoModelForImageClassification": "modeling_alibi_dinov2.Dinov2AlibiForImageClassification",
    "AutoModelForSemanticSegmentation": "modeling_alibi_dinov2.Dinov2AlibiForSemanticSegmentation",
    "AutoImageProcessor": "image_processing_alibi_dinov2.Dinov2AlibiImageProcessor",
}


def package_files() -> list[Path]:
    """The model package's modules, which travel with the weights."""
    folder = Path(modeling_alibi_dinov2.__path__[0])
    return sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")


def export(
    student: str | Path,
    output: str | Path,
    records: str | Path | None,
    teacher: str,
    images: str,
    base_model: str | None = None,
) -> None:
    """Write a Hub folder.

    Args:
        student: folder of an ALiBi-DINOv2 model, with or without a head, and its image processor.
        output: folder to make; its name is the model's name in the card.
        records: folder with the result records of the model and of those it is compared with.
        teacher, images: what the model was distilled from and on, in words, for the card.
        base_model: Hub id of the teacher, if it has one.

    Raises:
        FileExistsError: `output` is a folder with something in it.
        ValueError: no record belongs to these weights, or the exported model differs from the student.
    """
    require_new_folder(output)
    model_class = class_of(student)
    model = model_class.from_pretrained(student)
    processor = Dinov2AlibiImageProcessor.from_pretrained(student)
    model.config.auto_map = AUTO_MAP
    processor.auto_map = {"AutoImageProcessor": AUTO_MAP["AutoImageProcessor"]}
    with new_folder(output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        for path in package_files():
            shutil.copyfile(path, folder / path.name)
        measured = read_records(records) if records else []
        for record in measured:
            name = "-".join((record["task"], record["model"]["name"], record["dataset"]["name"])).replace(" ", "_")
            write_json(folder / "results" / f"{name}.json", record)
        card = render_card(
            Path(output).name, sha256_of(folder / SAFE_WEIGHTS_NAME), measured, teacher, images, base_model
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        require_same_tensors(model_class.from_pretrained(folder), model, "The exported model")


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
    parser.add_argument("--records", type=Path, help="folder with result records for the card")
    parser.add_argument("--teacher-name", required=True, help="what the model was distilled from, for the card")
    parser.add_argument("--images-name", required=True, help="what the model was distilled on, for the card")
    parser.add_argument("--base-model", help="Hub id of the teacher, if it has one")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    try:
        export(
            arguments.student,
            arguments.output,
            arguments.records,
            arguments.teacher_name,
            arguments.images_name,
            arguments.base_model,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{arguments.output}: ready for the Hub")


if __name__ == "__main__":
    main()
