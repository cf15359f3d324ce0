# SPDX-License-Identifier: Apache-2.0
"""The study of slopes trains nothing but slopes, and goes on where it was; the cost is of every choice."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from alibi_dinov2.features.backbone import load_backbone
from benchmarks.slopes import CHOICES, LEARNED, by_layer, main, study_figure
from evaluation.position.noise import noise_images
from training.create_student import save_student
from training.import_onnx_teacher import teacher_processor


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(*words)`: what the benchmark prints."""

    def printed(*words) -> str:
        monkeypatch.setattr(sys, "argv", ["slopes", *map(str, words)])
        main()
        return capsys.readouterr().out

    return printed


@pytest.fixture
def sources(tmp_path, tiny_teacher, tiny_model):
    """A folder with a tiny teacher, a distilled student, photographs and micrographs."""
    tiny_teacher().save_pretrained(tmp_path / "teacher")
    teacher_processor().save_pretrained(tmp_path / "teacher")
    save_student(str(tmp_path / "teacher"), tmp_path / "student")
    for folder, count in (("photographs", 5), ("micrographs", 1)):
        (tmp_path / folder).mkdir()
        for number, image in enumerate(noise_images(count, 140)):
            image.save(tmp_path / folder / f"{number}.png")
    return tmp_path


def words(folder, *more):
    options = {"teacher": "teacher", "images": "photographs", "micrographs": "micrographs", "runs": "runs"}
    paths = [word for name, value in options.items() for word in (f"--{name}", folder / value)]
    small = ["--size", 28, "--steps", 3, "--batch", 2, "--validation", 2, "--probe-size", 140, "--precision", "no"]
    return ["fit", *paths, *small, "--output", folder / "slopes.json", *more]


@pytest.mark.parametrize("start", ["teacher", "student"])
def test_every_choice_is_fitted_and_measured_and_a_second_call_adds_nothing(run, sources, start):
    more = [] if start == "teacher" else ["--student", sources / "student"]
    text = run(*words(sources, *more))
    record = json.loads((sources / "slopes.json").read_text())
    assert list(record["choices"]) == list(CHOICES)
    counts = [sum(map(len, entry["slopes"].values())) for entry in record["choices"].values()]
    assert counts == [0, 0, 0, 1, 3, 3, 9]
    weights = load_file(sources / "student" / "model.safetensors")
    for name in LEARNED:
        folder = sources / "runs" / name.replace(" ", "-")
        found = load_file(folder / "run" / "student" / "model.safetensors")
        moved = {key for key, tensor in found.items() if key not in weights or not torch.equal(tensor, weights[key])}
        assert moved == {key for key in found if key.endswith("alibi_slopes")}
        assert all((found[key] != 1).all() for key in moved)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(CHOICES)
    before = (sources / "slopes.json").stat().st_mtime_ns
    assert run(*words(sources, *more)).splitlines() == table
    assert (sources / "slopes.json").stat().st_mtime_ns == before
    own = sources / "runs" / "one-per-layer" / "run" / "student"
    run("figure", "--record", sources / "slopes.json", "--model", own, "--output", sources / "slopes.png")
    assert (sources / "slopes.png").stat().st_size > 10_000


def test_slopes_are_drawn_at_their_layers():
    """Layers come in the order of their numbers, and what all share stands in each."""
    per_layer = {f"encoder.layer.{number}.attention.alibi_slopes": [float(number)] for number in (0, 10, 2, 1)}
    assert by_layer(per_layer, 4).tolist() == [[0], [1], [2], [10]]
    assert by_layer({"encoder.alibi_slopes": [1.0, 3.0]}, 3).tolist() == [[1, 3]] * 3
    record = {
        "choices": {
            "1": {"cosine": 0.5, "slopes": {}},
            "one per head": {"cosine": 0.7, "slopes": {"encoder.alibi_slopes": [1.0, 3.0]}},
            "one per layer": {"cosine": 0.6, "slopes": per_layer},
        }
    }
    lines, gains = study_figure(record, per_layer).axes
    drawn = {line.get_label(): line.get_ydata().tolist() for line in lines.get_lines() if line.get_label()[0] != "_"}
    assert drawn == {"one per head": [2] * 4, "one per layer": [0, 1, 2, 10], "distilled": [0, 1, 2, 10]}
    assert gains.get_lines()[0].get_xdata().tolist() == [0.5, 0.7, 0.6]


def test_what_is_no_study_is_not_drawn(run, tmp_path, capsys):
    (tmp_path / "other.json").write_text('{"rows": []}')
    for record, message in (("missing.json", "missing.json"), ("other.json", "holds no choices of slopes")):
        with pytest.raises(SystemExit):
            run("figure", "--record", tmp_path / record, "--output", tmp_path / "slopes.png")
        assert message in capsys.readouterr().err
    assert not (tmp_path / "slopes.png").exists()


def test_another_study_is_not_added_to_this_one(run, sources, capsys):
    run(*words(sources, "--choices", "1"))
    with pytest.raises(SystemExit):
        run(*words(sources, "--choices", "1", "--seed", 1))
    assert "Choose another file" in capsys.readouterr().err


def test_fixed_slopes_are_what_they_are_called(sources, run):
    run(*words(sources, "--choices", "2", "geometric"))
    config = load_backbone(sources / "runs" / "2" / "start").model.config
    assert (config.alibi_slopes, config.alibi_slope) == ("constant", 2)
    assert load_backbone(sources / "runs" / "geometric" / "start").model.config.alibi_slopes == "geometric"


def test_the_cost_is_that_of_every_choice_beside_stock(run, tmp_path):
    tiny = ("--size", 28, "--layers", 1, "--width", 64, "--repeats", 1)
    text = run("cost", *tiny, "--output", tmp_path / "cost.json")
    rows = json.loads((tmp_path / "cost.json").read_text())["rows"]
    assert [row["case"] for row in rows] == ["stock", *CHOICES]
    assert rows[0]["ratio"] == 1
    assert all(row["seconds"] > 0 for row in rows)
    assert len(text.strip().splitlines()) == 2 + len(rows)
