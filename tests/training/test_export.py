# SPDX-License-Identifier: Apache-2.0
"""An exported folder is a model of its own: it loads where this repository is not."""

import json

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from alibi_dinov2.features.backbone import load_backbone
from alibi_dinov2.io.files import write_json
from evaluation.position.noise import noise_images
from evaluation.report.publish import publish
from evaluation.report.records import Stopwatch, describe_images, make_record
from modeling_alibi_dinov2 import (
    Dinov2AlibiForImageClassification,
    Dinov2AlibiForSemanticSegmentation,
    Dinov2AlibiImageProcessor,
    Dinov2AlibiModel,
)
from tests.comparison import assert_close
from tests.stranger import run_as_stranger
from training.create_student import save_student
from training.export import export, package_files

STRANGER = """
import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, pipeline

folder, image_path, output = sys.argv[1:]
image = Image.open(image_path)
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    tokens = model(**processor(image, return_tensors="pt")).last_hidden_state
extract = pipeline("image-feature-extraction", model=folder, trust_remote_code=True)
np.savez(output, tokens=tokens.numpy(), pipeline=np.asarray(extract(image)))
"""


def record_of(folder, name, value):
    images = noise_images(1, 56)
    metrics = {"r2_all_patches": value, "r2_held_out": value - 1}
    record = make_record(
        "positional_probe",
        metrics,
        describe_images("noise", images),
        load_backbone(folder, name=name),
        {"size": 56},
        0,
        Stopwatch(),
    )
    return record | {"command": ["python", "-m", "evaluation.position.positional_probe", "--model", name]}


@pytest.fixture
def hub_folder(tmp_path, student_folder, teacher_folder):
    """An exported student with two records, its own and its teacher's."""
    write_json(tmp_path / "teacher.json", record_of(teacher_folder, "teacher", 0.95))
    write_json(tmp_path / "alibi.json", record_of(student_folder, "alibi", -0.25))
    export(student_folder, tmp_path / "hub", "a tiny teacher", "no images", "org/teacher")
    publish(tmp_path / "hub", [tmp_path / "alibi.json"], [tmp_path / "teacher.json"])
    return tmp_path / "hub"


def test_stranger_loads_it_bit_for_bit(hub_folder, student_folder, tmp_path):
    image = noise_images(1, 64)[0]
    image.save(tmp_path / "image.png")
    run_as_stranger(STRANGER, tmp_path, hub_folder, tmp_path / "image.png", tmp_path / "stranger.npz")
    pixels = Dinov2AlibiImageProcessor.from_pretrained(student_folder)(image, return_tensors="pt")
    with torch.no_grad():
        expected = Dinov2AlibiModel.from_pretrained(student_folder)(**pixels).last_hidden_state.numpy()
    found = np.load(tmp_path / "stranger.npz")
    np.testing.assert_array_equal(found["tokens"], expected)
    # The pipeline passes through Python floats.
    np.testing.assert_allclose(found["pipeline"], expected, rtol=1e-6)


def test_stranger_loads_models_with_heads(tmp_path, tiny_model, random_pixels):
    heads = {
        "AutoModelForSemanticSegmentation": Dinov2AlibiForSemanticSegmentation,
        "AutoModelForImageClassification": Dinov2AlibiForImageClassification,
    }
    pixels = random_pixels(1, 3, 4)
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    expected = {}
    for auto_class, head in heads.items():
        model = tiny_model(head, num_labels=5)
        model.save_pretrained(tmp_path / auto_class)
        Dinov2AlibiImageProcessor(do_center_crop=False).save_pretrained(tmp_path / auto_class)
        export(tmp_path / auto_class, tmp_path / f"hub-{auto_class}", "a tiny teacher", "no images")
        with torch.no_grad():
            expected[auto_class] = model(pixels).logits.numpy()
    script = """
import numpy as np
import torch
import transformers

folder, *names = sys.argv[1:]
pixels = torch.from_numpy(np.load(f"{folder}/pixels.npy"))
for name in names:
    model = getattr(transformers, name).from_pretrained(f"{folder}/hub-{name}", trust_remote_code=True)
    with torch.no_grad():
        np.save(f"{folder}/{name}.npy", model(pixels).logits.numpy())
"""
    run_as_stranger(script, tmp_path, tmp_path, *heads)
    for auto_class, logits in expected.items():
        reason = "kernels round by where in memory the weights lie"
        assert_close(np.load(tmp_path / f"{auto_class}.npy"), logits, 1e-5, reason)


def test_half_precision_halves_the_file_and_loads_in_single_precision(tmp_path, student_folder):
    for half in (False, True):
        export(student_folder, tmp_path / f"{half}", "t", "i", half=half)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("True", "False")]
    assert sizes[0] < 0.6 * sizes[1]
    model, original = (Dinov2AlibiModel.from_pretrained(folder) for folder in (tmp_path / "True", student_folder))
    assert model.dtype == torch.float32
    for name, tensor in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.half().float()), name
    assert Dinov2AlibiModel.from_pretrained(tmp_path / "True", dtype=torch.float16).dtype == torch.float16


def test_model_of_another_family_is_refused(tmp_path, teacher_folder):
    with pytest.raises(ValueError, match="holds a Dinov2WithRegistersModel; only ALiBi-DINOv2 models"):
        export(teacher_folder, tmp_path / "hub", "t", "i")


def test_folder_holds_all_that_reaches_the_hub(hub_folder):
    names = {path.name for path in hub_folder.iterdir()}
    assert {path.name for path in package_files()} < names
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "results"} < names
    assert (hub_folder / "LICENSE").read_bytes() == (package_files()[0].parents[1] / "LICENSE").read_bytes()
    auto_map = json.loads((hub_folder / "config.json").read_text())["auto_map"]
    for reference in auto_map.values():
        module, name = reference.split(".")
        assert f"class {name}(" in (hub_folder / f"{module}.py").read_text()
    assert (hub_folder / "requirements.txt").read_text().splitlines()
    assert not [path for path in hub_folder.rglob("*") if path.suffix in (".bin", ".pkl", ".pt", ".pth")]


def test_card_shows_the_records_and_carries_them_as_metadata(hub_folder):
    card = ModelCard.load(hub_folder / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "org/teacher"
    assert card.data.pipeline_tag == "image-feature-extraction"
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"r2_all_patches": -0.25, "r2_held_out": -1.25}
    rows = [line for line in card.text.splitlines() if line.startswith("| R² of position, all patches")]
    assert len(rows) == 1
    assert [cell.strip() for cell in rows[0].split("|")[3:5]] == ["-0.25", "0.95"]
    assert "Distilled from a tiny teacher on no images." in card.text
    assert "two-dimensional ALiBi bias on a torus" in card.text


def test_records_of_other_weights_are_refused(tmp_path, hub_folder):
    before = (hub_folder / "README.md").read_bytes()
    with pytest.raises(ValueError, match=r"teacher\.json was measured on other weights"):
        publish(hub_folder, [tmp_path / "teacher.json"])
    assert (hub_folder / "README.md").read_bytes() == before


def test_student_without_position_encoding_is_not_called_alibi(tmp_path, teacher_folder):
    save_student(str(teacher_folder), tmp_path / "nope", position_encoding="none")
    export(tmp_path / "nope", tmp_path / "hub", "t", "i")
    publish(tmp_path / "hub")
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert "NoPE" in card.text
    assert "torus" not in card.text
    assert "alibi" not in card.data.tags


def test_output_with_content_is_kept(hub_folder, student_folder):
    before = (hub_folder / "README.md").read_bytes()
    with pytest.raises(FileExistsError, match="not empty"):
        export(student_folder, hub_folder, "t", "i")
    assert (hub_folder / "README.md").read_bytes() == before


def test_exported_processor_handles_images_of_any_shape(hub_folder):
    processor = Dinov2AlibiImageProcessor.from_pretrained(hub_folder)
    image = Image.new("L", (333, 100))
    pixels = processor(image, size={"shortest_edge": 100}, do_center_crop=False, return_tensors="pt")["pixel_values"]
    assert [side % 14 for side in pixels.shape[-2:]] == [0, 0]
