# SPDX-License-Identifier: Apache-2.0
"""A card shows what records say, beside what the paper says, and the Hub can read its metadata."""

import json

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from evaluation.report.card import HEADLINES, PUBLISHED, by_model, eval_results, render_card, results_table
from tests.evaluation.report.example_records import WEIGHTS_SHA256, example_record

PROVENANCE = {"summary": "A model for tests.", "weights": "Made up.", "license": "mit", "base_model": None}
CONFIG = {
    "model_type": "dinov2_alibi",
    "architectures": ["Dinov2AlibiModel"],
    "position_encoding": "alibi",
    "auto_map": {},
}


def cells(table: str) -> list[list[str]]:
    """The rows of a Markdown table, heading first and without the line under it."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [rows[0], *rows[2:]]


def card_of(records, compared=(), config=CONFIG, name="org/alibi", provenance=PROVENANCE, **pictures) -> str:
    return render_card(name, config, provenance, WEIGHTS_SHA256, records, compared, **pictures)


def test_table_has_a_column_per_model_and_rows_in_the_order_of_the_headlines():
    agreement = example_record("teacher_agreement", "alibi", data="crops", size=224, cosine=0.6613)
    probe = example_record(model="alibi")
    teacher = example_record(model="teacher", r2_all_patches=0.951, r2_held_out=0.949)
    rows = cells(results_table(by_model([agreement, teacher, probe])))
    assert rows == [
        ["metric", "data", "alibi", "teacher"],
        ["R² of position, all patches", "micrographs, 15 images, 518 px", "-0.25", "0.95"],
        ["R² of position, held-out patches", "micrographs, 15 images, 518 px", "-0.50", "0.95"],
        ["cosine to the teacher", "crops, 15 images, 224 px", "0.661", "–"],
    ]


def test_published_figures_stand_beside_ours_on_the_same_data_only():
    noise = example_record(data="uniform noise")
    own, small = example_record(data="my own folder"), example_record(data="textures", size=224)
    rows = cells(results_table({"alibi": [example_record(), noise, own, small]}, published=True))
    assert rows[0][2:] == [
        "alibi",
        *(f"paper: {name}" for name in ("DINOv2-S reg", "channel blanking", "DVT", "ALiBi")),
    ]
    figures = {(row[0], row[1].split(",")[0]): row[3:] for row in rows[1:]}
    assert figures["R² of position, all patches", "micrographs"] == ["0.83", "0.78", "0.75", "-0.23"]
    assert figures["R² of position, all patches", "uniform noise"] == ["0.89", "0.89", "0.83", "-0.85"]
    for data in ("my own folder", "textures"):
        assert figures["R² of position, all patches", data] == ["–"] * 4
    assert figures["R² of position, held-out patches", "micrographs"] == ["–"] * 4


def test_published_figures_are_of_metrics_that_tables_show():
    published = json.loads(PUBLISHED.read_text())
    for result in published["results"]:
        for task, metric in result["metrics"].items():
            assert metric in [headline.metric for headline in HEADLINES[task]]
        assert set(result["figures"]) & set(published["columns"])


def test_record_may_lack_a_size_and_metrics_of_other_runs():
    record = example_record("linear_segmentation", size=None, miou=0.7, pixel_accuracy=0.9, **{"iou/cat": 0.5})
    rows = cells(results_table({"alibi": [record]}))
    assert [row[1:] for row in rows[1:]] == [["micrographs, 15 images", "0.700"], ["micrographs, 15 images", "0.900"]]
    robust = example_record("linear_segmentation", miou=0.7, miou_flip_ud=0.5, miou_roll=0.7, miou_rot90=0.4)
    assert len(cells(results_table({"alibi": [robust]}))) == 5


def test_split_is_part_of_the_data():
    record = example_record()
    record["dataset"]["split"] = "validation"
    assert cells(results_table({"alibi": [record]}))[1][1] == "micrographs validation, 15 images, 518 px"


def test_two_records_for_one_cell_are_refused():
    with pytest.raises(ValueError, match=r"Two records give the R² of position, all .* of micrographs.* for alibi"):
        results_table({"alibi": [example_record(), example_record(r2_all_patches=0.1, r2_held_out=0.1)]})


def test_figure_that_two_records_agree_on_is_shown_once():
    name = "random/channels/x_y/output/mean_r2_all_patches"
    ridge = example_record("positional_bias", **{name: 0.25, "random/ridge/x_y/output/r2_all_patches": 0.9})
    mlp = example_record("positional_bias", **{name: 0.25, "random/mlp/x_y/output/r2_held_out": 0.8})
    assert [row[2] for row in cells(results_table({"alibi": [ridge, mlp]}))[1:]] == ["0.90", "0.80", "0.25"]
    assert sorted(result.metric_value for result in eval_results([ridge, mlp])) == [0.25, 0.8, 0.9]


def test_records_of_several_seeds_give_their_mean_and_spread():
    figures = {0: 0.5, 1: 0.51, 2: 0.52}
    seeds = [example_record("linear_segmentation", miou=miou) | {"seed": seed} for seed, miou in figures.items()]
    one = example_record("linear_segmentation", "teacher", miou=0.4)
    rows = cells(results_table({"alibi": seeds, "teacher": [one]}))
    # The standard deviation of a sample: the sum of squares 2·0.01² over 2.
    assert rows[1][2:] == ["0.510 ± 0.010", "0.400"]
    assert [result.metric_value for result in eval_results(seeds)] == [0.51]
    text = card_of(seeds)
    assert "**±** is the standard deviation" in text
    assert text.count("evaluation.semantics.linear_segmentation") == 3
    assert "±" not in card_of([one])


def test_only_the_seed_may_differ_between_records_for_one_cell():
    one, other = (example_record("linear_segmentation", miou=miou) for miou in (0.5, 0.52))
    other["seed"] = 1
    other["parameters"]["epochs"] = 10
    with pytest.raises(ValueError, match="Two records give the mIoU of linear segmentation"):
        results_table({"alibi": [one, other]})
    again = example_record("linear_segmentation", miou=0.52)
    with pytest.raises(ValueError, match="Two records give the mIoU of linear segmentation"):
        results_table({"alibi": [one, again, one | {"seed": 1}]})


def with_removal(record: dict, relative_seconds: float) -> dict:
    """The record of a backbone whose features are averaged over flips and turns."""
    cost = {"seconds_per_image": 1.0, "relative_seconds": relative_seconds}
    parameters = {"fitted_on": {"images": 48, "fingerprint": "0" * 64}}
    record["model"]["removal"] = {"name": "flips-and-turns", "parameters": parameters, "forwards": 8, "cost": cost}
    return record


def test_card_says_what_is_done_to_the_features_of_a_model_and_what_it_costs():
    records = [
        with_removal(example_record(model="averaged", data=data), cost)
        for data, cost in (("micrographs", 7.5), ("textures", 8.25), ("uniform noise", 8.0))
    ]
    own = card_of(records, [example_record(model="teacher")])
    assert "what `flips-and-turns` makes of them" in own
    assert "* **alibi** is `flips-and-turns` (" in own
    beside = card_of([example_record()], records)
    assert "makes of them" not in beside
    line = beside[beside.index("* **averaged** is ") :].split("\n* ")[0]
    assert "fitted on 48 images. It takes\n  8 passes per image, 8.0 times the backbone's time." in line


def test_row_never_compares_different_images():
    other = example_record(model="teacher")
    other["dataset"]["fingerprint"] = "0" * 64
    with pytest.raises(ValueError, match="was measured on other images for teacher than for alibi"):
        results_table({"alibi": [example_record()], "teacher": [other]})


def test_unknown_task_and_missing_metric_are_refused():
    with pytest.raises(ValueError, match="task 'telepathy'; a table knows positional_probe"):
        results_table({"alibi": [example_record("telepathy", x=1.0)]})
    with pytest.raises(ValueError, match="positional_probe record of best has none of the metrics r2_all_patches"):
        results_table({"alibi": [example_record(x=1.0)]})


def test_metadata_is_read_back_by_the_hubs_own_functions():
    records = [
        example_record(r2_all_patches=-0.123456, r2_held_out=-1),
        example_record(size=224),
        example_record("linear_segmentation", data="VOC 2012", miou=0.7),
    ]
    results = eval_results(records)
    name, again = model_index_to_eval_results(eval_results_to_model_index("alibi", results))
    assert name == "alibi"
    assert again == results
    card = ModelCard(card_of(records))
    assert card.data.eval_results == results
    assert card.data.model_name == "alibi"
    assert [result.metric_value for result in results] == [-0.1235, -1, -0.25, -0.5, 0.7]
    assert {result.task_type for result in results} == {"image-feature-extraction", "image-segmentation"}
    assert results[-1].dataset_type == "VOC-2012"


def test_metadata_says_what_the_model_is():
    card = ModelCard(card_of([example_record()], examples={"examples/steel_15kx.png": None}))
    assert (card.data.license, card.data.library_name) == ("mit", "transformers")
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert {"alibi", "custom_code", "dinov2"} < set(card.data.tags)
    assert card.data.to_dict()["widget"] == [{"src": "examples/steel_15kx.png", "example_title": "steel 15kx"}]
    head = ModelCard(card_of([], config=CONFIG | {"architectures": ["Dinov2AlibiForSemanticSegmentation"]}))
    assert head.data.pipeline_tag == "image-segmentation"
    stock = ModelCard(card_of([], config={"model_type": "dinov2", "architectures": ["Dinov2Model"]}))
    assert not {"alibi", "custom_code"} & set(stock.data.tags)
    assert "trust_remote_code" not in stock.text
    assert "torus" not in stock.text
    assert "alibi" not in ModelCard(card_of([], config=CONFIG | {"position_encoding": "none"})).data.tags


def test_models_compared_with_are_in_the_table_and_not_in_the_metadata():
    teacher = example_record(model="teacher", weights="0" * 64, r2_all_patches=0.951, r2_held_out=0.949)
    card = ModelCard(card_of([example_record()], [teacher]))
    assert [result.metric_value for result in card.data.eval_results] == [-0.25, -0.5]
    header = next(line for line in card.text.splitlines() if line.startswith("| metric"))
    assert [cell.strip() for cell in header.split("|")[3:6]] == ["alibi", "teacher", "paper: DINOv2-S reg"]
    assert "--model runs/teacher" not in card.text
    with pytest.raises(ValueError, match="a model called alibi, like this one"):
        card_of([example_record()], [example_record(model="alibi")])


def test_card_tells_how_to_make_each_number_again_and_what_it_was_made_of():
    text = card_of(
        [example_record(), example_record(data="my folder")], figures={"figures/pca.png": "Three components."}
    )
    assert "python -m evaluation.position.positional_probe --model org/alibi --images micrographs\n" in text
    assert "--images 'my folder'\n" in text
    assert "![Three components.](figures/pca.png)" in text
    assert WEIGHTS_SHA256 in text
    assert "nasa/pretrained-microscopy-models" in text
    assert "whose source the records do not tell" in text
    assert 'from_pretrained("org/alibi", trust_remote_code=True)' in text


def test_limits_of_one_model_stand_among_those_of_all():
    own = ["Worse on slag than its forerunner.", "Never tried on ice."]

    def limits(text: str) -> list[str]:
        section = text.split("## Limits\n\n")[1].split("\n\n")[0]
        return [" ".join(line.split()) for line in section.removeprefix("* ").split("\n* ")]

    common = limits(card_of([]))
    assert limits(card_of([], provenance=PROVENANCE | {"limits": own})) == [*common[:-1], *own, common[-1]]


def test_model_without_records_says_so():
    assert "Not measured yet." in card_of([])
    assert "model-index" not in card_of([])
