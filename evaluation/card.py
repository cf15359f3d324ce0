# SPDX-License-Identifier: Apache-2.0
"""Result records -> table and model card. Every figure is rendered from a record; nothing is typed in by hand."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

TEMPLATE = Path(__file__).with_name("card_template.md")
# Which metric of a task a table shows, under which heading, with how many decimals.
HEADLINES = {
    "positional_probe": (
        ("r2_all_patches", "R² of position, all patches", 2),
        ("r2_held_out", "R² of position, held-out patches", 2),
    ),
    "teacher_agreement": (("cosine", "cosine to the teacher", 3),),
}


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """The result records of a folder, by file name.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a file is no result record; the message says what it lacks.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder} contains no result record (*.json); run an evaluation with --output there.")
    return [read_record(path) for path in paths]


def read_record(path: Path) -> dict[str, Any]:
    """One result record."""
    record = json.loads(path.read_text(encoding="utf-8"))
    required = ("task", "metrics", "dataset", "model", "parameters", "seed", "versions", "device", "dtype", "seconds")
    missing = [name for name in required if name not in record]
    if not missing and record["task"] not in HEADLINES:
        raise ValueError(f"{path} is of the task {record['task']!r}; a table knows {', '.join(HEADLINES)}.")
    if missing:
        raise ValueError(f"{path} is no complete result record: it lacks {', '.join(missing)}. Measure it again.")
    return record


def headline(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What a table shows of a record: pairs of heading and figure."""
    where = f"{record['dataset']['name']}, {record['parameters']['size']} px"
    return [
        (f"{heading} ({where})", f"{record['metrics'][name]:.{decimals}f}")
        for name, heading, decimals in HEADLINES[record["task"]]
    ]


def results_table(records: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, a row per figure and a column per model, in the order in which they first occur."""
    cells: dict[str, dict[str, str]] = {}
    models = list(dict.fromkeys(record["model"]["name"] for record in records))
    for record in records:
        for heading, figure in headline(record):
            cells.setdefault(heading, {})[record["model"]["name"]] = figure
    rows = [["", *models]]
    rows += [[heading, *(figures.get(model, "–") for model in models)] for heading, figures in cells.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def eval_results(records: Sequence[dict[str, Any]]) -> list[EvalResult]:
    """The records' figures as the Hub's model-index metadata."""
    return [
        EvalResult(
            task_type="image-feature-extraction",
            dataset_type=record["dataset"]["name"].replace(" ", "-"),
            dataset_name=record["dataset"]["name"],
            dataset_split=record["dataset"]["split"],
            metric_type=name,
            metric_name=f"{heading} ({record['parameters']['size']} px)",
            metric_value=round(record["metrics"][name], 4),
        )
        for record in records
        for name, heading, _ in HEADLINES[record["task"]]
    ]


def render_card(
    name: str, weights_sha256: str, records: Sequence[dict[str, Any]], teacher: str, images: str, base_model: str | None
) -> str:
    """Text of a model card.

    Args:
        name: of the model.
        weights_sha256: of its weights file; records of other weights appear for comparison only.
        records: of the model and of those it is compared with.
        teacher: what the model was distilled from, in words.
        images: what it was distilled on, in words.
        base_model: Hub id of the teacher, if it has one.

    Raises:
        ValueError: no record belongs to these weights.
    """
    own = [record for record in records if record["model"]["weights_sha256"] == weights_sha256]
    if records and not own:
        found = ", ".join(sorted({record["model"]["name"] for record in records}))
        raise ValueError(
            f"None of the {len(records)} records was measured on these weights (SHA-256 {weights_sha256[:12]}…); they "
            f"are of {found}. Measure the model that you export."
        )
    data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        base_model=base_model,
        tags=["alibi", "custom_code", "dense-features", "dinov2", "materials-science", "microscopy"],
        model_name=name,
        eval_results=eval_results(own) or None,
    )
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        name=name,
        teacher=teacher,
        images=images,
        weights_sha256=weights_sha256,
        table=results_table(records) if records else None,
        records=own,
    )
    return str(card)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print result records as one table.")
    parser.add_argument("records", type=Path, help="folder with result records")
    arguments = parser.parse_args()
    try:
        print(results_table(read_records(arguments.records)))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
