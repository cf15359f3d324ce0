# SPDX-License-Identifier: Apache-2.0
"""The checkpoint that ships: whole, with the code of this version, and without positional bias on real micrographs."""

import json
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.features.dense_features import dense_features
from alibi_dinov2.io.files import sha256_of
from alibi_dinov2.io.images import read_folder
from evaluation.position.positional_probe import probe_images, summarise
from evaluation.report.records import read_records
from training.export import package_files
from training.journal import read_metrics

REPOSITORY = Path(__file__).parents[1]
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/\w+/")
CARDS = REPOSITORY / "model_cards"
FOLDER = CARDS / "alibi-dinov2-small"


def test_folder_has_the_code_of_this_version():
    for path in package_files():
        assert (FOLDER / path.name).read_bytes() == path.read_bytes(), path.name


def test_records_are_of_these_weights():
    records = read_records(sorted((FOLDER / "results").glob("*.json"))).values()
    assert {record["model"]["weights_sha256"] for record in records} == {sha256_of(FOLDER / "model.safetensors")}
    assert {record["task"] for record in records} >= {"positional_probe", "teacher_agreement", "linear_segmentation"}


@pytest.mark.parametrize("folder", sorted(CARDS.iterdir()), ids=lambda folder: folder.name)
def test_card_is_of_its_records_and_tells_nothing_of_the_machine(folder):
    own = read_records([folder / "results"])
    (weights,) = {record["model"]["weights_sha256"] for record in own.values()}
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert weights in text
    assert text.count("python -m evaluation.") == len(own)
    texts = [text, *(path.read_text(encoding="utf-8") for path in folder.rglob("*.json"))]
    assert not [found.group() for text in texts for found in ABSOLUTE_PATH.finditer(text)]


RUNS = {
    "first": "cpu",
    "long": "long",
    "long-further": "long_further",
    "long-nope": "long_nope",
    "long-nope-further": "long_nope_further",
}


@pytest.mark.parametrize("run", RUNS)
def test_recipe_is_that_of_the_repository(run):
    recipe = json.loads((REPOSITORY / "training" / "recipes" / f"{RUNS[run]}.json").read_text())
    used = json.loads((FOLDER / "recipe" / run / "config.json").read_text())
    stages, precision = recipe.pop("stages"), recipe.pop("mixed_precision")
    assert precision == "auto"  # what the machine computes in
    assert used["mixed_precision"] in ("auto", "bf16")
    assert {name: used[name] for name in recipe} == recipe
    # A stage at 518 px that made both long runs worse came after these; their best students are older than it.
    for stage, full in zip(stages, used["stages"], strict=run not in ("long", "long-nope")):
        assert {name: full[name] for name in stage} == stage


def test_the_further_run_found_a_better_student():
    def best(run):
        entries = read_metrics(FOLDER / "recipe" / run / "metrics.jsonl")
        return min(entry["validation_loss"] for entry in entries if "validation_loss" in entry)

    assert best("long-further") < best("long")


def test_features_of_micrographs_do_not_tell_the_place():
    backbone = load_backbone(FOLDER)
    # At 518 px, as in the paper: at 224 px the probe would be fitted on seven patches.
    maps = list(dense_features(backbone, read_folder(REPOSITORY / "data" / "micrographs")[:2], 518))
    assert summarise(probe_images(maps))["r2_all_patches"] < -0.2
    # Nor are they all alike, which would give a low R² too.
    assert np.std(maps[0].reshape(-1, maps[0].shape[-1]), axis=0).mean() > 0.1


@pytest.mark.parametrize("name", ["positional-noise", "biased-labels"])
def test_shipped_records_are_what_todays_code_measures(name, tmp_path):
    """Measured anew with the record's own command; these two need no data but what ships or is made."""
    record = json.loads((FOLDER / "results" / f"{name}.json").read_text())
    _, _, module, *words = record["command"]
    options = dict(zip(words[::2], words[1::2], strict=False))
    if name == "positional-noise":
        words = ["--model", str(FOLDER), "--noise", options["--noise"], "--output", str(tmp_path / "noise.json")]
    else:
        data = REPOSITORY / "data" / "biased_labels" / "nickel_on_substrate"
        words = ["--models", str(FOLDER), "--image", f"{data}.png", "--labels", f"{data}_labels.png"]
        words += ["--classifier", record["parameters"]["classifier"], "--cache", str(tmp_path / "cache")]
        words += ["--output-folder", str(tmp_path), "--figure", str(tmp_path / "picture.png")]
    with pytest.raises(SystemExit) as end:
        import_module(module).main(words)
    assert not end.value.code
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())["metrics"]
    assert found.keys() >= record["metrics"].keys()
    for metric, value in record["metrics"].items():
        # Cards show two or three decimals; float32 sums of another processor move the fourth. Figures of classical
        # features were recorded in single precision: in half precision, on which trees split now, 1 % of pixels change.
        tolerance = 1.5e-2 if "classical" in metric else 5e-3
        assert found[metric] == pytest.approx(value, abs=tolerance), metric
