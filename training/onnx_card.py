# SPDX-License-Identifier: Apache-2.0
"""`parity.json` -> the card of an ONNX folder."""

import json
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from alibi_dinov2.io.files import new_file

PARITY = "parity.json"
TEMPLATE = Path(__file__).with_name("onnx_card_template.md")


def write_card(folder: Path, name: str, base_model: str | None = None) -> None:
    """Write the card of an ONNX folder, `README.md`, from the figures in its `parity.json`.

    Args:
        folder: as `training.export_onnx` makes it.
        name: of the ONNX model, as one loads it: a Hub id or a folder.
        base_model: Hub id of the model that was exported, if it has one.
    """
    record = json.loads((folder / PARITY).read_text(encoding="utf-8"))
    data = ModelCardData(
        license="apache-2.0",
        library_name="transformers.js",
        pipeline_tag="image-feature-extraction",
        base_model=base_model,
        tags=["dense-features", "dinov2", "microscopy", "onnx"],
    )
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        name=name,
        short_name=name.rsplit("/", 1)[-1],
        base_model=base_model,
        sizes=list(record["variants"][0]["cosine"]),
        record=record,
    )
    with new_file(folder / "README.md") as temporary:
        temporary.write_text(f"{card}\n", encoding="utf-8")
