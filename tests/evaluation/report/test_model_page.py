# SPDX-License-Identifier: Apache-2.0
"""What a model's page has beside its card: pictures of its features, examples that run, a notebook that runs."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from nbclient import NotebookClient
from PIL import Image

from alibi_dinov2 import dense_features, load_backbone, read_image
from alibi_dinov2.pictures.feature_colours import feature_colours
from evaluation.report.publish import publish
from modeling_alibi_dinov2 import Dinov2AlibiImageProcessor, Dinov2AlibiModel
from tests.evaluation.report.example_records import contents

REPOSITORY = Path(__file__).parents[3]
SHIPPED = REPOSITORY / "model_cards" / "alibi-dinov2-small"


@pytest.fixture
def folder(tmp_path, exported):
    return Path(shutil.copytree(exported, tmp_path / "tiny"))


def run_notebook(folder, monkeypatch, modules) -> str:
    """Run a folder's notebook in it, from top to bottom, and return what it printed."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(modules))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def cosines(text: str) -> tuple[float, float]:
    """What the notebook prints last: of an image of 12 bits in the full range of 16, and of the stretched one."""
    full_range, stretched = re.findall(r"features (-?\d\.\d+)", text)
    return float(full_range), float(stretched)


def test_the_notebook_runs_from_top_to_bottom(folder, monkeypatch, tmp_path):
    before = contents(folder)
    text = run_notebook(folder, monkeypatch, tmp_path / "modules")
    assert "steel_15kx.png (140, 112) L" in text
    assert "steel_16_bits.tif (112, 140) I;16" in text
    assert contents(folder) == before


def test_the_shipped_notebook_runs_and_shows_why_to_stretch(monkeypatch, tmp_path):
    folder = tmp_path / "alibi-dinov2-small"
    shutil.copytree(SHIPPED, folder)
    for path in sorted((folder / "examples").glob("*.png"))[1:]:  # one is enough
        path.unlink()
    full_range, stretched = cosines(run_notebook(folder, monkeypatch, tmp_path / "modules"))
    # Percentiles are not the ends of the 8-bit original: contrast differs a little, and weights answer to it (.987).
    assert stretched > 0.98
    assert full_range < stretched - 0.1


def test_the_notebook_names_the_model_as_one_loads_it(folder):
    publish(folder, repo_id="someone/tiny")
    source = (folder / "notebook.ipynb").read_text()
    assert 'snapshot_download(\\"someone/tiny\\")' in source
    assert "# tiny: what is at a place" in source
    assert "{{" not in source


def test_pictures_of_the_examples_show_their_components_and_stand_in_the_metadata(folder):
    card = ModelCard.load(folder / "README.md")
    entries = card.data.to_dict()["widget"]
    assert [entry["src"] for entry in entries] == ["examples/steel_15kx.png", "examples/steel_16_bits.tif"]
    assert [entry["output"]["url"] for entry in entries] == ["outputs/steel_15kx.png", "outputs/steel_16_bits.png"]
    assert "<Gallery />" in card.text
    assert (folder / "outputs" / "LICENSE.md").read_text() == "Noise, CC0.\n"
    for entry in entries:
        maps = list(dense_features(load_backbone(folder), [read_image(folder / entry["src"])], 518))
        ((colours,),) = feature_colours([maps])
        found = np.asarray(Image.open(folder / entry["output"]["url"]))
        assert found.shape == (colours.shape[0] * 8, colours.shape[1] * 8, 3)
        assert np.abs(found[4::8, 4::8].astype(int) - colours).max() <= 1  # rounding of float32 kernels


def test_without_examples_there_are_neither_pictures_nor_a_notebook(folder):
    for name in ("examples", "outputs"):
        shutil.rmtree(folder / name)
    (folder / "notebook.ipynb").unlink()
    publish(folder)
    assert not (folder / "outputs").exists()
    assert not (folder / "notebook.ipynb").exists()
    assert "Gallery" not in (folder / "README.md").read_text()


def test_nothing_changes_when_an_example_cannot_be_read(folder, tmp_path):
    before = contents(folder)
    examples = Path(shutil.copytree(folder / "examples", tmp_path / "broken"))
    (examples / "steel_15kx.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="steel_15kx"):
        publish(folder, examples=examples)
    assert contents(folder) == before


@pytest.mark.parametrize(("bits", "low"), [(8, 0), (12, 300), (16, 20_000)])
def test_the_example_of_the_card_sees_the_contrast_of_any_depth(folder, monkeypatch, tmp_path, bits, low):
    """It gives features of the same picture, whichever way a microscope has written it."""
    random = np.random.default_rng(3)
    grey = random.integers(0, 256, (56, 70)).astype(np.uint8)
    values = grey if bits == 8 else (low + grey.astype(np.uint16) * 5).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "micrograph.tif")
    card = (folder / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace("518", "56")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)
    processor = Dinov2AlibiImageProcessor.from_pretrained(folder)
    inputs = processor(Image.fromarray(grey), size={"shortest_edge": 56}, do_center_crop=False, return_tensors="pt")
    with torch.no_grad():
        expected = Dinov2AlibiModel.from_pretrained(folder)(**inputs).last_hidden_state[0, 5:].reshape(4, 5, -1)
    assert names["features"].shape == expected.shape
    cosine = torch.nn.functional.cosine_similarity(names["features"].detach(), expected, dim=-1)
    # A thousandth of the values is black, and as many white: grey levels move by one at most.
    assert cosine.min() > 0.999


def test_the_notebook_is_the_one_of_the_template():
    source = json.loads((SHIPPED / "notebook.ipynb").read_text())
    assert 'snapshot_download("alibi-dinov2-small")' in "".join("".join(cell["source"]) for cell in source["cells"])
