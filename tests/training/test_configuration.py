# SPDX-License-Identifier: Apache-2.0
"""Configuration from a file and the command line; whatever is not understood is named."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from training.configuration import DistillationConfig, Stage, parse_configuration, read_configuration_file, require_same

VALUES = {"teacher": "t", "student": "s", "images": "i", "output": "o", "stages": [Stage(28, 100)]}
REQUIRED = ["--teacher", "t", "--student", "s", "--images", "i", "--output", "o"]


def written(tmp_path, **values):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    return path


def test_command_line_overrides_the_file(tmp_path):
    path = written(tmp_path, seed=3, crop="center", stages=[{"size": 28, "steps": 4, "warmup_steps": 1}])
    config = parse_configuration(["--config", str(path), *REQUIRED, "--seed", "7"])
    assert (config.seed, config.crop, config.teacher) == (7, "center", "t")
    assert config.stages == [Stage(size=28, steps=4, warmup_steps=1)]


def test_stages_on_the_command_line():
    config = parse_configuration(
        [*REQUIRED, "--stages", "size=28,steps=60,learning_rate=1e-3", "size=42,steps=5,warmup_steps=0"]
    )
    assert config.stages == [Stage(28, 60, learning_rate=1e-3), Stage(42, 5, warmup_steps=0)]


def test_epochs_are_counted_in_steps():
    stage = Stage.parse("size=28,epochs=1.5,batch_size=4,warmup_steps=0")
    assert stage.with_steps(images=10) == Stage(28, 4, batch_size=4, warmup_steps=0)
    assert Stage(28, 7, warmup_steps=0).with_steps(images=10).steps == 7
    with pytest.raises(ValueError, match="steps 5 and epochs 2; give exactly one"):
        Stage(28, steps=5, epochs=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learningrate": 1}, "Unknown fields in .*: learningrate. Allowed are teacher, student"),
        (
            {"stages": [{"size": 28, "step": 4}]},
            "Unknown fields in a stage of .*: step. Allowed are size, steps, epochs",
        ),
    ],
)
def test_unknown_fields_are_named(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        parse_configuration(["--config", str(written(tmp_path, **values)), *REQUIRED])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": "left"}, "crop is 'left'; it must be one of random, center"),
        ({"crop_scale": 0}, "crop_scale is 0; it must lie in"),
        ({"validation_count": 0}, "validation_count is 0; it must be 1 or more"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0; it must be 1 or more"),
        ({"max_unreadable": 1.5}, r"max_unreadable is 1\.5; it must lie in \[0, 1\]"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"workers": -1}, "workers is -1; it must be 0 or more"),
        ({"teacher": None, "output": None}, "lacks teacher, output"),
        ({"stages": []}, "lacks stages"),
        ({"gradient_accumulation_steps": 3}, "batch_size 32, which gradient_accumulation_steps 3 does not divide"),
    ],
)
def test_values_that_cannot_work_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig(**(VALUES | change))


def test_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 3,}')
    with pytest.raises(ValueError, match=r"config\.json is no JSON \("):
        parse_configuration(["--config", str(tmp_path / "config.json")])


@pytest.mark.parametrize("change", [{"size": 0}, {"steps": -1}, {"learning_rate": 0}, {"warmup_steps": 101}])
def test_impossible_stages_are_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Stage(**({"size": 28, "steps": 100} | change))


def test_resume_lists_what_changed_and_must_not():
    config = DistillationConfig(**VALUES)
    saved = asdict(config)
    require_same(replace(config, resume=True, workers=3, checkpoint_every=7), saved)
    with pytest.raises(ValueError, match=r"seed was 0 and is 1; .*new run in another folder|seed was 0 and is 1"):
        require_same(replace(config, seed=1), saved)
    with pytest.raises(ValueError, match="stages was"):
        require_same(replace(config, stages=[Stage(28, 101)]), saved)


def test_run_of_an_older_version_had_the_defaults():
    config = DistillationConfig(**VALUES)
    saved = asdict(config)
    del saved["flip"]
    require_same(config, saved)
    with pytest.raises(ValueError, match="flip was False and is True"):
        require_same(replace(config, flip=True), saved)


@pytest.mark.parametrize("path", sorted(Path("training/recipes").glob("*.json")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path):
    config = parse_configuration(["--config", str(path), *REQUIRED])
    config = config.with_steps(dict.fromkeys(config.sources, 123_000))
    assert all(stage.steps > 0 for stage in config.stages)
    config.require_possible(processes=1, patch_size=14)


@pytest.mark.parametrize("name", ["cpu", "demo"])
def test_recipes_for_any_machine_leave_the_precision_to_it(name):
    values = read_configuration_file(Path(f"training/recipes/{name}.json"))
    assert values["mixed_precision"] == "auto"


def recipe_of(name):
    return read_configuration_file(Path(f"training/recipes/{name}.json"))


def apart_from_bias_and_stages(values):
    """What recipes have in common: nothing of the bias, of where they begin and end, and of their stages."""
    apart = ("alibi_", "position_", "student", "output", "stages")
    return {name: value for name, value in values.items() if not name.startswith(apart)}


def test_nope_has_the_recipe_and_the_budget_of_the_long_run_but_for_slopes():
    alibi, nope = recipe_of("long"), recipe_of("long_nope")
    assert alibi["student"] == nope["student"]
    slopes, *stages = alibi["stages"]
    assert slopes.trainable == "slopes"
    assert [replace(stage, trainable="all") for stage in stages] == nope["stages"]
    assert apart_from_bias_and_stages(alibi) == apart_from_bias_and_stages(nope)


@pytest.mark.parametrize("name", ["long", "long_nope"])
def test_the_long_run_goes_on_with_its_best_student_as_it_began(name):
    first, further = recipe_of(name), recipe_of(f"{name}_further")
    assert further["student"] == f"{first['output']}/best"
    assert further["stages"] == [stage for stage in first["stages"] if stage.trainable != "slopes"]
    assert apart_from_bias_and_stages(first) == apart_from_bias_and_stages(further)
