# SPDX-License-Identifier: Apache-2.0
"""The parts of Transformers that the package relies on are there, and no other is relied on."""

import ast
import importlib
import inspect
import operator
from pathlib import Path

import pytest
import torch
import transformers
from transformers import (
    Dinov2WithRegistersBackbone,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
)

import modeling_alibi_dinov2
from modeling_alibi_dinov2.stock_parts import DINOV2, STOCK_PARTS, StockPart

FILES = sorted(Path(modeling_alibi_dinov2.__file__).parent.glob("*.py"))
PATHS = {part.path for part in STOCK_PARTS}


def find(path: str):
    """What is at a path below `transformers`."""
    names = path.split(".")
    for length in range(len(names), 0, -1):
        try:
            module = importlib.import_module(".".join(["transformers", *names[:length]]))
        except ModuleNotFoundError:
            continue
        return operator.attrgetter(".".join(names[length:]))(module) if names[length:] else module
    raise ModuleNotFoundError(path)


@pytest.fixture(scope="module")
def instances() -> list:
    """Instances of all classes that the list asks attributes of."""
    config = Dinov2WithRegistersConfig(hidden_size=6, num_attention_heads=1, num_hidden_layers=1, image_size=14)
    with torch.device("meta"):
        models = [
            model_class(config)
            for model_class in (
                Dinov2WithRegistersModel,
                Dinov2WithRegistersForImageClassification,
                Dinov2WithRegistersBackbone,
            )
        ]
    return [module for model in models for module in model.modules()] + [find("image_processing_backends.PilBackend")()]


def complaint(part: StockPart, instances: list) -> str | None:
    """What is wrong with a part, in a sentence that names it."""
    try:
        item = find(part.path)
    except (ImportError, AttributeError):
        return f"transformers.{part.path} is gone; it {part.reason}."
    if part.parameters:
        missing = set(part.parameters) - inspect.signature(item).parameters.keys()
        if missing:
            return f"transformers.{part.path} no longer takes {sorted(missing)}; it {part.reason}."
    if part.attributes:
        instance = next((instance for instance in instances if isinstance(instance, item)), None)
        if instance is None:
            return f"transformers.{part.path} has no instance in a stock model any more; it {part.reason}."
        missing = [name for name in part.attributes if not has(instance, name)]
        if missing:
            return f"transformers.{part.path} has lost {missing}; it {part.reason}."
    return None


def has(instance, name: str) -> bool:
    try:
        operator.attrgetter(name)(instance)
    except AttributeError:
        return False
    return True


@pytest.mark.parametrize("part", STOCK_PARTS, ids=lambda part: part.path)
def test_a_part_is_as_it_was(part, instances):
    assert complaint(part, instances) is None


def test_a_part_that_has_changed_is_named(instances, monkeypatch):
    layer = find(f"{DINOV2}.Dinov2WithRegistersLayer")
    calls = next(part for part in STOCK_PARTS if part.path == f"{DINOV2}.Dinov2WithRegistersLayer.forward")
    holds = next(part for part in STOCK_PARTS if part.path == f"{DINOV2}.Dinov2WithRegistersAttention")
    with monkeypatch.context() as patch:
        patch.setattr(layer, "forward", lambda self, hidden_states, **kwargs: hidden_states)
        assert "Dinov2WithRegistersLayer.forward no longer takes ['attention_mask']" in complaint(calls, instances)
        patch.delattr(layer, "forward")
        patch.setattr(find(DINOV2), "Dinov2WithRegistersLayer", object())
        assert "Dinov2WithRegistersLayer.forward is gone; it hands the mask" in complaint(calls, instances)
    attention = next(instance for instance in instances if isinstance(instance, find(holds.path)))
    monkeypatch.delattr(attention, "scaling")
    assert "Dinov2WithRegistersAttention has lost ['scaling']" in complaint(holds, instances)


def imports_of(tree: ast.Module) -> set[str]:
    """Paths below `transformers` of all that a file imports from there."""
    return {
        f"{node.module}.{alias.name}".removeprefix("transformers.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] == "transformers"
        for alias in node.names
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_everything_imported_is_public_or_listed(file):
    public = set(dir(transformers)) | {"initialization", "utils.logging"}  # the two modules, whose parts are listed
    unlisted = {
        path
        for path in imports_of(ast.parse(file.read_text())) - public
        if not any(listed == path or listed.startswith(path + ".") for listed in PATHS)
    }
    assert not unlisted


def private_names(tree: ast.Module) -> set[str]:
    """Names with one leading underscore that a file defines in a class, or reads from an object."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            names |= {target.id for item in node.body if isinstance(item, ast.Assign) for target in item.targets}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_private_name_is_listed(file):
    listed = {path.split(".")[-1] for path in PATHS}
    listed |= {name.split(".")[-1] for part in STOCK_PARTS for name in part.attributes}
    assert not private_names(ast.parse(file.read_text())) - listed


def test_what_is_listed_is_used():
    text = "\n".join(file.read_text() for file in FILES if file.name != "stock_parts.py")
    for part in STOCK_PARTS:
        last = part.path.split(".")[-1]
        name = part.path.split(".")[-2] if last in ("forward", "__init__") else last
        assert name in text, part.path
