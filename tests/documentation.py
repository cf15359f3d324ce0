# SPDX-License-Identifier: Apache-2.0
"""The documents' examples, and a folder in which they run: tiny stand-ins under the names that the documents use."""

import re
import runpy
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from tests.conftest import TINY, randomise_special_tokens
from training.create_student import save_student
from training.export import export
from training.import_onnx_teacher import teacher_processor

REPOSITORY = Path(__file__).parents[1]
HUB_TEACHER = "facebook/dinov2-with-registers-small"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a document asks for and what the test gives instead: the same run, shorter.
SHORTER = {"steps=10000": "steps=2", "batch_size=256": "batch_size=2", "warmup_steps=500": "warmup_steps=1"}

# The card of a page that is a static Space.
PAGE = """---
title: The page
sdk: static
app_build_command: npm ci && npm run build
app_file: dist/index.html
custom_headers:
  cross-origin-opener-policy: same-origin
license: apache-2.0
---

# The page
"""


def blocks(document: Path, *languages: str) -> list[tuple[str, str]]:
    """Language and text of a document's fenced blocks in these languages, in order."""
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if language in languages]


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block as words; lines that end in a backslash go on."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def make_sandbox(folder: Path) -> None:
    """Fill a folder with what the documents' examples find beside them."""
    torch.manual_seed(0)
    teacher = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**TINY))
    randomise_special_tokens(teacher)
    teacher.save_pretrained(folder / "teacher")
    teacher_processor().save_pretrained(folder / "teacher")
    save_student(str(folder / "teacher"), folder / "stand-in")
    export(folder / "stand-in", folder / "model_cards" / "alibi-dinov2-small", "a tiny teacher", "noise")
    for source in (REPOSITORY / "data" / "micrographs").glob("*lshr*.png"):
        small_copy(source, folder / "data" / "micrographs" / source.name)
    shutil.copyfile(REPOSITORY / "data" / "micrographs" / "LICENSE.md", folder / "data" / "micrographs" / "LICENSE.md")
    for source in (REPOSITORY / "data" / "biased_labels").glob("*.png"):
        small_copy(source, folder / "data" / "biased_labels" / source.name)
    make_page(folder / "web")
    random = np.random.default_rng(0)
    for number in range(8):
        save(random.integers(0, 256, (240, 240, 3), dtype=np.uint8), folder / "photographs" / f"{number}.png")
    for name, parts in {"animals": ("train/", "validation/"), "superalloy": ("",)}.items():
        for part in parts:
            for image in "abc":
                mask = (np.indices((84, 84)).sum(axis=0) // 21 % 2).astype(np.uint8)
                save(np.where(mask, 200, 60).astype(np.uint8), folder / name / f"{part}images" / f"{image}.png")
                save(mask, folder / name / f"{part}masks" / f"{image}.png")


def make_page(folder: Path) -> None:
    """Write what a built page has as far as publishing goes, with a model that was put beside it to try it out."""
    for name, content in {
        "README.md": PAGE,
        "package.json": "{}",
        "dist/index.html": "<p>a page</p>",
        "dist/config.json": '{"model": "tiny-ONNX", "path": "models/"}',
        "dist/assets/runtime.wasm": "runtime",
        "dist/models/tiny-ONNX/onnx/model.onnx": "weights",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def small_copy(source: Path, target: Path) -> None:
    """A fifth of an image's or a label image's size, by leaving out pixels."""
    save(np.asarray(Image.open(source))[::5, ::5], target)


def save(pixels: np.ndarray, path: Path) -> None:
    """Write an image, and the folder for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def run_command(words: list[str]) -> None:
    """Run a documented command in this process, in the working directory; `make` and `pip` are only looked up.

    Raises:
        AssertionError: it ends with an exit status other than 0, or there is no such target or extra.
    """
    program, *arguments = shortened(words)
    if program == "make":
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{re.escape(arguments[0])}:", makefile, re.MULTILINE), words
    elif program == "pip":
        known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for extras in re.findall(r"\[(.*?)\]", " ".join(arguments)):
            assert known.keys() >= set(extras.split(",")), words
    else:
        status = run_program(program, arguments)
        assert status in (None, 0), f"{shlex.join(words)} ended with {status}"


def run_program(program: str, arguments: list[str]) -> object:
    """The exit status of a Python program: a module, a script of the clone, or the package's command."""
    if program == "alibi-dinov2":
        start = lambda: runpy.run_module("alibi_dinov2.cli", run_name="__main__", alter_sys=True)  # noqa: E731
    elif program == "python" and arguments[0] == "-m":
        _, module, *arguments = arguments
        start = lambda: runpy.run_module(module, run_name="__main__", alter_sys=True)  # noqa: E731
    elif program == "python" or [program, arguments[0]] == ["accelerate", "launch"]:
        script, *arguments = arguments[1:] if program == "accelerate" else arguments
        start = lambda: runpy.run_path(str(REPOSITORY / script), run_name="__main__")  # noqa: E731
    else:
        raise AssertionError(f"The documents use {program}, which the tests do not know.")
    with patch.object(sys, "argv", [program, *arguments]):
        try:
            start()
        except SystemExit as end:
            return end.code
    return 0


def shortened(words: list[str]) -> list[str]:
    """A documented command with the Hub's teacher on this machine, and fewer and smaller steps of a distillation."""
    words = [
        "teacher" if word == HUB_TEACHER and before in ("--teacher", "--model", "--models") else word
        for before, word in zip(["", *words], words, strict=False)
    ]
    for long, short in SHORTER.items():
        words = [word.replace(long, short) for word in words]
    if "--stages" in words:
        words += ["--validation_count", "2"]
    return words


def copy_sandbox(source: Path, target: Path) -> Path:
    """A fresh copy of a sandbox, for one document."""
    return Path(shutil.copytree(source, target))
