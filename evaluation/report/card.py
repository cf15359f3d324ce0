# SPDX-License-Identifier: Apache-2.0
"""Result records -> table and model card. Every figure is rendered from a record; nothing is typed in by hand.

python -m evaluation.report.card results    # all records as one table
"""

import argparse
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from alibi_dinov2.command import run
from evaluation.report.records import mean_and_spread, read_records

TEMPLATE = Path(__file__).with_name("card_template.md")
PUBLISHED = Path(__file__).with_name("published_results.json")
DATA_SOURCES = Path(__file__).with_name("data_sources.json")


class Headline(NamedTuple):
    """A metric that tables show: its name in a record, what the row is called, and how many decimals it gets."""

    metric: str
    heading: str
    decimals: int


# Which metrics of a task tables and metadata show, in the order of the rows. A record must have one of them.
HEADLINES = {
    "positional_probe": (
        Headline("r2_all_patches", "R² of position, all patches", 2),
        Headline("r2_held_out", "R² of position, held-out patches", 2),
    ),
    "positional_bias": (
        Headline("random/ridge/x_y/output/r2_all_patches", "R² of position, ridge, all patches", 2),
        Headline("random/ridge/x_y/output/r2_held_out", "R² of position, ridge, held-out patches", 2),
        Headline("random/mlp/x_y/output/r2_held_out", "R² of position, MLP, held-out patches", 2),
        Headline("random/channels/x_y/output/mean_r2_all_patches", "R² of position, mean of single channels", 2),
    ),
    "teacher_agreement": (Headline("cosine", "cosine to the teacher", 3),),
    "stability": (
        Headline("moved_centred", "same content at another crop position, centred cosine", 2),
        Headline("half_patch_centred", "the same, moved by half a patch", 2),
        Headline("half_patch_placeless", "the same, without what tells the place", 2),
        Headline("noise_centred", "same content with mild noise", 2),
        Headline("jpeg_centred", "same content as JPEG", 2),
        Headline("same_phase_centred", "neighbours inside one phase, centred cosine", 2),
    ),
    "arrangement": (
        Headline("stripes", "patches that tell stripes across from along (chance 0.50)", 2),
        Headline("patterns", "patches that tell checkerboard, blocks and halves (chance 0.33)", 2),
        Headline("shuffles", "patches that tell shuffled neighbourhoods (chance 0.50)", 2),
        Headline("change_patterns", "change of a feature when patches are rearranged", 3),
    ),
    "patch_classifier": (Headline("miou", "mIoU of a linear patch classifier", 3),),
    "linear_segmentation": (
        Headline("miou", "mIoU of linear segmentation", 3),
        Headline("miou_flip_ud", "mIoU, images upside down", 3),
        Headline("miou_roll", "mIoU, images rolled", 3),
        Headline("miou_rot90", "mIoU, images turned by 90°", 3),
        Headline("pixel_accuracy", "pixel accuracy of linear segmentation", 3),
    ),
    "clusters": (
        Headline("position_explains", "clusters that follow position, not content", 2),
        Headline("content_explains", "clusters that follow content, not position", 2),
        Headline("miou", "mIoU of clusters", 3),
    ),
    "trainable_segmentation": (
        Headline("miou_first", "mIoU of trainable segmentation, first round", 3),
        Headline("miou_best", "mIoU of trainable segmentation, best round", 3),
        Headline("deep_miou_first", "mIoU of trainable segmentation by the model alone, first round", 3),
        Headline("deep_miou_best", "mIoU of trainable segmentation by the model alone, best round", 3),
        Headline("classical_miou_first", "mIoU of trainable segmentation without the model, first round", 3),
        Headline("classical_miou_best", "mIoU of trainable segmentation without the model, best round", 3),
    ),
    "segmentation_benchmark": (Headline("miou", "mIoU of the segmenter on all data sets of the benchmark", 3),),
    "biased_labels": (
        Headline("deep/position_explains", "biased labels: pixels that follow position, not content", 3),
        Headline("deep/position_d2", "biased labels: deviance of the prediction that position explains", 3),
        Headline("deep/halves_difference", "biased labels: difference of a phase's fraction, left and right", 3),
        Headline("deep/classical_kappa", "biased labels: agreement (kappa) with classical features", 3),
    ),
    "position_features": (
        Headline("layers/combined/without/miou", "layers: mIoU without position as a feature", 3),
        Headline("layers/combined/with/miou", "layers: mIoU with position as a feature", 3),
        Headline("biased/combined/without/position_explains", "biased labels: follow position, without the feature", 3),
        Headline("biased/combined/with/position_explains", "biased labels: follow position, with the feature", 3),
    ),
    "edges": tuple(
        Headline(f"combined/{method}/{metric}", f"{heading}, {words}", 3)
        for method, words in (("bilinear", "unfiltered"), ("chosen", "way to edges chosen on other data sets"))
        for metric, heading in (("miou", "mIoU"), ("boundary_f", "F-score of boundaries"))
    ),
}
SEGMENTATIONS = (
    *("patch_classifier", "linear_segmentation", "trainable_segmentation"),
    *("biased_labels", "position_features", "edges"),
)
PIPELINES = {"ForSemanticSegmentation": "image-segmentation", "ForImageClassification": "image-classification"}
FEATURES = "image-feature-extraction"
UNKNOWN_TO_HUB = re.compile(r"[^\w.-]+", re.ASCII)


def headlines(record: Mapping[str, Any]) -> list[Headline]:
    """What a table shows of a record.

    Raises:
        ValueError: its task is unknown, or it has none of the task's metrics.
    """
    task, metrics = record["task"], record["metrics"]
    if task not in HEADLINES:
        raise ValueError(f"A record is of the task {task!r}; a table knows {', '.join(HEADLINES)}.")
    shown = [headline for headline in HEADLINES[task] if headline.metric in metrics]
    if not shown:
        wanted = ", ".join(headline.metric for headline in HEADLINES[task])
        raise ValueError(f"The {task} record of {record['model']['name']} has none of the metrics {wanted}.")
    return shown


def measured_on(record: Mapping[str, Any]) -> str:
    """Data, split, number of images and their size in words."""
    dataset, size = record["dataset"], record["parameters"].get("size")
    name = dataset["name"] if dataset["split"] == "all" else f"{dataset['name']} {dataset['split']}"
    images = "1 image" if dataset["images"] == 1 else f"{dataset['images']} images"
    return f"{name}, {images}" + (f", {size} px" if size else "")


def by_model(records: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Records by the names of their models, in the order in which these first occur."""
    models: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        models.setdefault(record["model"]["name"], []).append(record)
    return models


def average_seeds(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records that differ in their seeds only as one, which has the mean of each figure, and its `spread`: the standard
    deviation over the seeds, estimated from this sample of them."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        facts = [record[name] for name in ("task", "dataset", "parameters")]
        identity = json.dumps([*facts, record["model"]["name"], record["model"]["weights_sha256"]], sort_keys=True)
        groups.setdefault(identity, []).append(record)
    averaged = []
    for group in groups.values():
        first = group[0]
        if 1 < len(group) == len({record["seed"] for record in group}):
            names = [name for name in first["metrics"] if all(name in record["metrics"] for record in group)]
            means, spread = mean_and_spread({name: [record["metrics"][name] for record in group] for name in names})
            group = [first | {"metrics": means, "spread": spread}]
        averaged += group
    return averaged


def figure_text(record: Mapping[str, Any], headline: Headline) -> str:
    """A figure as tables show it, with its spread if it has one."""
    figures = [record["metrics"][headline.metric]]
    if headline.metric in (record.get("spread") or {}):
        figures.append(record["spread"][headline.metric])
    return " ± ".join(f"{figure:.{headline.decimals}f}" for figure in figures)


def published_figures(published: Mapping[str, Any], record: Mapping[str, Any], metric: str) -> dict[str, float]:
    """The paper's figures for a metric on data of the record's name and size, by model; none where it gives none."""
    name, size = record["dataset"]["name"], record["parameters"].get("size")
    for result in published["results"]:
        same_data = name in result["datasets"] and result.get("size") in (None, size)
        if result["metrics"].get(record["task"]) == metric and same_data:
            return {model: result["figures"][model] for model in published["columns"] if model in result["figures"]}
    return {}


def table_rows(
    models: Mapping[str, Sequence[dict[str, Any]]], published: bool
) -> dict[tuple[str, str], dict[str, str]]:
    """Figures by heading and data, then by model; rows in the order of `HEADLINES`."""
    paper = json.loads(PUBLISHED.read_text(encoding="utf-8")) if published else None
    measured = [(model, record) for model, records in models.items() for record in average_seeds(records)]
    shown = [(headline, model, record) for model, record in measured for headline in headlines(record)]
    order = [headline for task in HEADLINES.values() for headline in task]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    fingerprints: dict[tuple[str, str], str] = {}
    for headline, model, record in sorted(shown, key=lambda entry: order.index(entry[0])):
        key = (headline.heading, measured_on(record))
        row = rows.setdefault(key, {})
        text = figure_text(record, headline)
        if row.setdefault(model, text) != text:
            raise ValueError(f"Two records give the {' of '.join(key)}, for {model}. Remove one.")
        if fingerprints.setdefault(key, record["dataset"]["fingerprint"]) != record["dataset"]["fingerprint"]:
            raise ValueError(
                f"The {' on '.join(key)}, was measured on other images for {model} than for {next(iter(row))}: the "
                "fingerprints differ. Measure both on the same images, or give one data set another name."
            )
        if paper:
            figures = published_figures(paper, record, headline.metric)
            row |= {f"paper: {name}": f"{figure:.{headline.decimals}f}" for name, figure in figures.items()}
    return rows


def results_table(models: Mapping[str, Sequence[dict[str, Any]]], published: bool = False) -> str:
    """A Markdown table: a row per metric and data set, a column per model.

    Args:
        models: records by the heading of their column.
        published: whether the paper's figures stand beside them, in columns of their own.

    Raises:
        ValueError: two records contradict each other about a cell, or a row would compare figures of different images.
    """
    cells = table_rows(models, published)
    columns = [*models, *dict.fromkeys(name for row in cells.values() for name in row if name not in models)]
    rows = [["metric", "data", *columns]]
    rows += [[*key, *(figures.get(column, "–") for column in columns)] for key, figures in cells.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def eval_results(records: Iterable[dict[str, Any]]) -> list[EvalResult]:
    """The records' figures as the Hub's model-index metadata, one for each cell of the table."""
    results: dict[str, EvalResult] = {}
    for record in average_seeds(records):
        for headline in headlines(record):
            name = f"{headline.heading} ({measured_on(record)})"
            results[name] = EvalResult(
                task_type="image-segmentation" if record["task"] in SEGMENTATIONS else FEATURES,
                dataset_type=dataset_type(record["dataset"]["name"]),
                dataset_name=record["dataset"]["name"],
                dataset_split=record["dataset"]["split"],
                metric_type=headline.metric,
                metric_name=name,
                metric_value=round(record["metrics"][headline.metric], 4),
            )
    return list(results.values())


def dataset_type(name: str) -> str:
    """A data set's name as the Hub's metadata takes it: letters, digits, `-`, `_`, `.`, and one `/` after a namespace
    without a dot; everything else becomes `-`."""
    namespace, slash, rest = name.rpartition("/")
    if not slash or not re.fullmatch(r"[\w-]+", namespace, re.ASCII):
        return UNKNOWN_TO_HUB.sub("-", name).strip("-") or "local"
    return f"{namespace}/{UNKNOWN_TO_HUB.sub('-', rest)}" if rest else namespace


def removals_of(models: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What is done to the features of models that have a removal, by their columns; its cost is the median of the
    records', relative to the backbone alone."""
    removals = {
        model: [record["model"]["removal"] for record in records if "removal" in record["model"]]
        for model, records in models.items()
    }
    return {
        model: facts[0] | {"relative_seconds": median(one["cost"]["relative_seconds"] for one in facts)}
        for model, facts in removals.items()
        if facts
    }


def command_of(record: Mapping[str, Any], model: str) -> str:
    """The shell command that makes a record again with the model under another name or in another place."""
    words = list(record["command"])
    if "--model" in words:
        words[words.index("--model") + 1] = model
    return shlex.join(words)


def render_card(
    name: str,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    weights_sha256: str,
    records: Sequence[dict[str, Any]],
    compared: Sequence[dict[str, Any]] = (),
    figures: Mapping[str, str] | None = None,
    examples: Mapping[str, str | None] | None = None,
) -> str:
    """Text of a model card.

    Args:
        name: of the model, as one loads it: a Hub id or a folder.
        config: the model's `config.json`.
        provenance: what the model is (`summary`), where its weights are from (`weights`), their `license` and the
            Hub id of their `base_model`, if any; perhaps `limits`, sentences that only this model's card needs.
        weights_sha256: of its weights file.
        records: of this model.
        compared: records of others, for columns of their own in the table; they are no part of the metadata.
        figures: captions by the path of the picture in the model's folder.
        examples: example images, each with the picture of what the model makes of it, if there is one; paths in the
            model's folder.

    Raises:
        ValueError: the records contradict each other, or are of a task that no table knows.
    """
    short_name = name.rsplit("/", 1)[-1]
    others = by_model(compared)
    if short_name in others:
        raise ValueError(f"A record to compare with is of a model called {short_name}, like this one. Rename one.")
    architecture = (config.get("architectures") or [""])[0]
    data = ModelCardData(
        license=provenance["license"],
        library_name="transformers",
        pipeline_tag=next((tag for suffix, tag in PIPELINES.items() if architecture.endswith(suffix)), FEATURES),
        base_model=provenance["base_model"],
        tags=sorted(["dense-features", "materials-science", "microscopy", *family_tags(config)]),
        widget=[widget_entry(*example) for example in (examples or {}).items()] or None,
        model_name=short_name,
        eval_results=eval_results(records) or None,
    )
    sources = json.loads(DATA_SOURCES.read_text(encoding="utf-8"))
    columns = {short_name: records} | others
    datasets = {record["dataset"]["fingerprint"]: record["dataset"] for record in (*records, *compared)}
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        name=name,
        short_name=short_name,
        provenance=provenance,
        custom_code="auto_map" in config,
        alibi=config.get("position_encoding") == "alibi",
        weights_sha256=weights_sha256,
        table=results_table(columns, published=True) if records else None,
        removal=records[0]["model"].get("removal") if records else None,
        removals=removals_of(columns),
        published=json.loads(PUBLISHED.read_text(encoding="utf-8"))["source"],
        commands=[(record, measured_on(record), command_of(record, name)) for record in records],
        datasets=[dataset | {"source": sources.get(dataset["name"])} for dataset in datasets.values()],
        figures=figures or {},
        examples=examples or {},
        outputs=[output for output in (examples or {}).values() if output],
    )
    return f"{card}\n"


def widget_entry(image: str, output: str | None) -> dict[str, Any]:
    """An example of the Hub's widget and gallery: an image, and the picture of what the model makes of it."""
    entry = {"src": image, "example_title": Path(image).stem.replace("_", " ")}
    return entry | ({"output": {"url": output}} if output else {})


def family_tags(config: Mapping[str, Any]) -> list[str]:
    """The Hub's tags for what kind of model it is."""
    if "auto_map" not in config:
        return [config["model_type"]]
    return ["custom_code", "dinov2", *(["alibi"] if config["position_encoding"] == "alibi" else [])]


def make_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(description="Print result records as one table.")
    parser.add_argument("records", type=Path, nargs="+", help="result records, or folders with them")
    return parser


def command(arguments: argparse.Namespace) -> None:
    """What the options ask for."""
    print(results_table(by_model(read_records(arguments.records).values())))


def main(argv: Sequence[str] | None = None) -> None:
    run(make_parser(), command, argv)


if __name__ == "__main__":
    main()
