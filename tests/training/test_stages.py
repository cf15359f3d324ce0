# SPDX-License-Identifier: Apache-2.0
"""What a stage trains, validation at several sizes, images mixed in, and the long recipe that has them all."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from modeling_alibi_dinov2 import Dinov2AlibiModel
from training.configuration import DistillationConfig, Stage, read_configuration_file, require_same
from training.create_student import save_student
from training.crops import CropRule, Crops, Mixture
from training.distill import distill, load_all
from training.images import load_images
from training.journal import read_metrics
from training.stopping import Stop, Stopped

STEPS = {"steps": 4, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 0}


def changed(config: DistillationConfig, start) -> set[str]:
    """Names of the tensors that a run has changed."""
    before = Dinov2AlibiModel.from_pretrained(start).state_dict()
    after = Dinov2AlibiModel.from_pretrained(distill(config)).state_dict()
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


@pytest.fixture
def sloped_student(tmp_path, teacher_folder):
    """Folder of a student with a learned slope in each layer."""
    choices = {"alibi_slopes": "learned", "alibi_slopes_per": "layer", "alibi_slope": 2.0}
    save_student(str(teacher_folder), tmp_path / "sloped", **choices)
    return tmp_path / "sloped"


def test_a_stage_of_slopes_moves_nothing_but_slopes(tiny_distillation, sloped_student):
    config = tiny_distillation(student=str(sloped_student), stages=[Stage(28, **STEPS, trainable="slopes")])
    assert changed(config, sloped_student) == {f"encoder.layer.{n}.attention.alibi_slopes" for n in range(3)}


def test_a_stage_of_weights_moves_all_but_slopes(tiny_distillation, sloped_student):
    config = tiny_distillation(student=str(sloped_student), stages=[Stage(28, **STEPS, trainable="weights")])
    names = set(Dinov2AlibiModel.from_pretrained(sloped_student).state_dict())
    still = {name for name in names if name.endswith(("alibi_slopes", "mask_token"))}
    assert changed(config, sloped_student) == names - still


@pytest.mark.parametrize("per", ["model", "head"])
def test_slopes_then_weights_in_one_run_resumes_to_the_same_weights(tiny_distillation, tmp_path, per):
    choices = {"student": None, "alibi_slopes": "learned", "alibi_slopes_per": per, "alibi_slope": 1.0}
    stages = [Stage(28, **STEPS, trainable="slopes"), Stage(28, **STEPS, trainable="weights")]
    whole = tiny_distillation(**choices, stages=stages, checkpoint_every=3)
    expected = Dinov2AlibiModel.from_pretrained(distill(whole)).state_dict()
    for path in sorted((tmp_path / "run" / "checkpoints").iterdir())[1:]:
        path.rename(tmp_path / path.name)  # as if the run had ended after the first that is kept
    distill(replace(whole, resume=True))
    found = Dinov2AlibiModel.from_pretrained(tmp_path / "run" / "student").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert expected["encoder.alibi_slopes"].shape == ({"model": 1, "head": 3}[per],)


def test_a_student_is_given_slopes_that_it_has_not(tiny_distillation, tmp_path, student_folder):
    choices = {"alibi_slopes": "learned", "alibi_slopes_per": "layer", "alibi_slope": 3.0}
    stage = Stage(28, **STEPS | {"learning_rate": 1e-6}, trainable="slopes")
    before = Dinov2AlibiModel.from_pretrained(student_folder)
    after = Dinov2AlibiModel.from_pretrained(distill(tiny_distillation(**choices, stages=[stage])))
    assert before.config.alibi_slopes == "constant"
    assert after.config.alibi_slopes_per == "layer"
    for name, tensor in after.state_dict().items():
        if name.endswith("alibi_slopes"):
            torch.testing.assert_close(tensor, torch.tensor([3.0]), atol=1e-4, rtol=0)  # four steps of 1e-6
        else:
            assert torch.equal(tensor, before.state_dict()[name])


def test_a_student_is_as_it_was_made_unless_a_bias_is_asked_for(tiny_distillation, sloped_student):
    stage = Stage(28, **STEPS, trainable="weights")
    config = tiny_distillation(student=str(sloped_student), stages=[stage])
    found = Dinov2AlibiModel.from_pretrained(distill(config)).config
    assert (found.alibi_slopes, found.alibi_slopes_per, found.alibi_slope) == ("learned", "layer", 2.0)


def test_stages_crop_and_attend_as_they_ask_for(tiny_distillation, monkeypatch):
    stages = [Stage(28, **STEPS, crop_scale=0.01, attention="eager"), Stage(28, **STEPS)]
    config = tiny_distillation(stages=stages, crop="random", crop_scale=0.7)
    seen = []

    def note(self, *arguments, **options):
        if self.training:
            seen.append(self.config._attn_implementation)
        return forward(self, *arguments, **options)

    forward = Dinov2AlibiModel.forward
    monkeypatch.setattr(Dinov2AlibiModel, "forward", note)
    assert [config.crop_rule(stage).scale for stage in stages] == [0.01, 0.7]
    distill(config)
    assert seen == ["eager"] * 4 + ["sdpa"] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [({"attention": "flash"}, "attention 'flash'; it must be one of sdpa, eager"), ({"crop_scale": 0.0}, "crop_scale")],
)
def test_stages_that_cannot_be_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Stage(28, **STEPS, **change)


def test_slopes_that_the_student_has_not_cannot_be_trained(tiny_distillation):
    with pytest.raises(ValueError, match=r"A stage trains slopes, but the student's alibi_slopes is 'constant'"):
        distill(tiny_distillation(stages=[Stage(28, **STEPS, trainable="slopes")]))


def test_several_validation_sizes_are_recorded_and_their_mean_decides(tiny_distillation, tmp_path):
    distill(tiny_distillation(validation_sizes=[28, 42]))
    entries = [e for e in read_metrics(tmp_path / "run" / "metrics.jsonl") if "validation_loss" in e]
    assert len(entries) == 3
    for entry in entries:
        each = [entry["validation_loss_28"], entry["validation_loss_42"]]
        assert entry["validation_loss"] == pytest.approx(sum(each) / 2)
        assert each[0] != each[1]


def test_run_with_a_single_validation_size_of_an_older_version_resumes(tiny_distillation, tmp_path):
    config = tiny_distillation()
    distill(config)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    saved["validation_size"] = saved.pop("validation_sizes")[0]
    require_same(config, saved)
    with pytest.raises(ValueError, match=r"validation_sizes was \[28\] and is \[42\]"):
        require_same(replace(config, validation_sizes=[42]), saved)


@pytest.mark.parametrize("name", ["long", "long_further", "long_nope", "long_nope_further"])
def test_the_long_recipe_runs_through_all_its_stages(tiny_distillation, image_folder, tmp_path, name):
    """Rehearsed with small crops and few steps, and in two pieces."""
    recipe = read_configuration_file(Path(f"training/recipes/{name}.json"))
    stages = recipe.pop("stages")
    small = {"size": 28, "steps": 2, "batch_size": 2, "warmup_steps": 1}
    for of_real_ones in ("mixed_images", "images", "teacher", "student", "output", "zero_channels"):
        recipe.pop(of_real_ones)
    rehearsal = recipe | {
        "mixed_images": str(image_folder),
        "stages": [replace(stage, **small, images=stage.images and str(image_folder)) for stage in stages],
        "layers": [1, 2],
        "validation_sizes": [28, 42],
        "validation_count": 2,
        "mixed_precision": "no",
        "validate_every": 1,
        "checkpoint_every": 1,
    }
    config = tiny_distillation(**rehearsal)
    stop = Stop()
    stop.number = signal.SIGTERM
    with pytest.raises(Stopped):
        distill(config, stop)
    distill(replace(config, resume=True))
    entries = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [entry["step"] for entry in entries] == list(range(2 * len(stages) + 1))
    assert all({"validation_loss_28", "validation_loss_42"} <= entry.keys() for entry in entries)
    best = Dinov2AlibiModel.from_pretrained(tmp_path / "run" / "best")
    assert best.config.position_encoding == recipe.get("position_encoding", "alibi")


def test_images_mixed_in_are_validated_on_too_and_never_trained_on(tiny_distillation, image_folder, tmp_path):
    mixed = Path(shutil.copytree(image_folder, tmp_path / "mixed"))
    for path in mixed.iterdir():
        Image.open(path).convert("RGB").transpose(Image.Transpose.ROTATE_90).save(path)
    config = tiny_distillation(mixed_images=str(mixed), mixed_share=0.5)
    images, to_validate = load_all(config)
    assert len(to_validate) == 2 * config.validation_count
    names = {Path(row["image"]["path"]) for part in images.values() for row in part}
    assert names.isdisjoint(Path(row["image"]["path"]) for row in to_validate)
    alone = replace(config, validation_images=str(image_folder))
    assert len(load_all(alone)[1]) == config.validation_count


# --- images mixed in ------------------------------------------------------------------------------------------------


def test_a_mixture_has_its_share_and_passes_over_each_source_once_before_it_comes_again(tmp_path):
    for name, count, colour in (("photographs", 12, "red"), ("micrographs", 4, "grey")):
        (tmp_path / name).mkdir()
        for number in range(count):
            image = Image.new("RGB", (40, 40), colour)
            image.putpixel((20, 20), (number, 0, 0))
            image.save(tmp_path / name / f"{number}.png")
    photographs, micrographs = (load_images(str(tmp_path / name)) for name in ("photographs", "micrographs"))
    crops = Crops(photographs, 40, 0, 16, 0, CropRule("center"), mixture=Mixture(micrographs, 0.25))
    pixels = [crops[item]["pixels"] for item in range(16)]
    grey = [int(crop[1, 0, 0]) == 128 for crop in pixels]
    assert sum(grey) == 4
    assert max(sum(grey[start : start + 4]) for start in (0, 4, 8, 12)) == 1, "they are spread evenly"
    seen = [
        {int(crop[0, 20, 20]) for crop, mixed in zip(pixels, grey, strict=True) if mixed is kind}
        for kind in (False, True)
    ]
    assert seen == [set(range(12)), set(range(4))]
    later = Crops(photographs, 40, 7, 16, 0, CropRule("center"), mixture=Mixture(micrographs, 0.25))
    assert all(torch.equal(later[item]["pixels"], pixels[7 + item]) for item in range(9))


def test_a_run_records_what_was_mixed_in(tiny_distillation, image_folder, tmp_path):
    other = tmp_path / "others"
    other.mkdir()
    for number in range(3):
        Image.effect_noise((60, 60), 90).convert("RGB").save(other / f"noise{number}.png")
    stages = [Stage(28, None, 1.0, 4, 1e-3, 0)]
    distill(tiny_distillation(mixed_images=str(other), mixed_share=0.25, stages=stages))
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (saved["mixed_images"], saved["mixed_share"]) == (str(other), 0.25)
    # Six photographs, of which an epoch shows each once, are three quarters of eight samples.
    assert saved["stages"][0]["steps"] == 2
    assert set(json.loads((tmp_path / "run" / "images.json").read_text())) == {
        str(image_folder),
        str(other),
        "the validation",
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixed_share": 0.5}, "mixed_images is None and mixed_share 0.5; give both"),
        ({"mixed_images": "m"}, "mixed_images is 'm' and mixed_share 0.0; give both"),
        ({"mixed_images": "m", "mixed_share": 1.0}, r"the share in \(0, 1\)"),
        ({"mixed_images": "m", "mixed_share": 0.5, "streaming": True}, "Streams cannot be mixed"),
        ({"validation_sizes": []}, r"validation_sizes is \[\]; it must hold sizes"),
    ],
)
def test_choices_that_contradict_each_other_are_named(tiny_distillation, values, message):
    with pytest.raises(ValueError, match=message):
        tiny_distillation(**values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainable=heads", "trainable 'heads'; it must be one of all, slopes, weights"),
    ],
)
def test_impossible_choices_of_a_stage_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        Stage.parse(f"size=28,steps=4,warmup_steps=0,{text}")
