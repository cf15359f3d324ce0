# SPDX-License-Identifier: Apache-2.0
"""What importing the package does, and what a copy of its files in a Hub folder may rely on."""

import ast
import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HFValidationError
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    dynamic_module_utils,
)

import modeling_alibi_dinov2
from modeling_alibi_dinov2 import (
    Dinov2AlibiBackbone,
    Dinov2AlibiConfig,
    Dinov2AlibiForImageClassification,
    Dinov2AlibiForSemanticSegmentation,
    Dinov2AlibiImageProcessor,
    Dinov2AlibiModel,
)
from tests.comparison import assert_close

# Transformers itself, and what it cannot be installed without or, in the case of images, used without.
AVAILABLE_TO_STRANGERS = {"torch", "transformers", "huggingface_hub", "numpy", "PIL"}
FILES = sorted(Path(modeling_alibi_dinov2.__file__).parent.glob("*.py"))


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [
        (AutoModel, Dinov2AlibiModel),
        (AutoBackbone, Dinov2AlibiBackbone),
        (AutoModelForImageClassification, Dinov2AlibiForImageClassification),
        (AutoModelForSemanticSegmentation, Dinov2AlibiForSemanticSegmentation),
    ],
)
def test_the_auto_classes_know_the_models(tiny_config, auto_class, model_class):
    assert type(auto_class.from_config(tiny_config())) is model_class


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [
        (AutoModel, Dinov2AlibiModel),
        (AutoModelForImageClassification, Dinov2AlibiForImageClassification),
        (AutoModelForSemanticSegmentation, Dinov2AlibiForSemanticSegmentation),
    ],
)
def test_the_auto_classes_load_the_models(tiny_model, tmp_path, auto_class, model_class):
    tiny_model(model_class).save_pretrained(tmp_path)
    assert type(auto_class.from_pretrained(tmp_path)) is model_class


def test_auto_backbone_loads_no_folder_of_any_model(tiny_model, tiny_teacher, tmp_path):
    """It asks the Hub first, and a path is no name of a repository. If this fails, the README can say less."""
    for name, model in (("ours", tiny_model(Dinov2AlibiBackbone)), ("stock", tiny_teacher())):
        model.save_pretrained(tmp_path / name)
        with pytest.raises(HFValidationError, match="Repo id must"):
            AutoBackbone.from_pretrained(tmp_path / name)
    assert type(Dinov2AlibiBackbone.from_pretrained(tmp_path / "ours", out_features=["stage1"])) is Dinov2AlibiBackbone


def test_a_stranger_loads_the_backbone_of_a_folder(tiny_model, random_pixels, tmp_path, monkeypatch):
    """By the copies of the files in it, as someone does who has not installed the package."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    # Another test may have loaded such files from another place.
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not Path(place, "transformers_modules").is_dir()])
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "folder"
    tiny_model().save_pretrained(folder)
    for file in FILES:
        if file.name != "__init__.py":
            shutil.copyfile(file, folder / file.name)
    backbone_class = dynamic_module_utils.get_class_from_dynamic_module(
        "modeling_alibi_dinov2.Dinov2AlibiBackbone", str(folder)
    )
    assert backbone_class.__module__.startswith("transformers_modules.")
    pixels, choice = random_pixels(1, 2, 3), {"out_features": ["stage1", "stage3"]}
    with torch.no_grad():
        found = backbone_class.from_pretrained(folder, **choice)(pixels).feature_maps
        expected = Dinov2AlibiBackbone.from_pretrained(folder, **choice)(pixels).feature_maps
    for feature_map, expected_map in zip(found, expected, strict=True):
        assert_close(feature_map, expected_map, 0.0, "the same operations on the same weights")


def test_the_auto_classes_know_the_config_and_the_processor(tmp_path):
    assert type(AutoConfig.for_model("dinov2_alibi")) is Dinov2AlibiConfig
    Dinov2AlibiImageProcessor().save_pretrained(tmp_path)
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is Dinov2AlibiImageProcessor


def test_everything_public_can_be_imported():
    for name in modeling_alibi_dinov2.__all__:
        assert hasattr(modeling_alibi_dinov2, name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_imports_only_what_a_stranger_has_and_its_siblings(file):
    siblings = {path.stem for path in FILES}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module in siblings  # `from .x import y` is all that is followed when a model's files are copied
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in modules:
                assert module.split(".")[0] in AVAILABLE_TO_STRANGERS | sys.stdlib_module_names
