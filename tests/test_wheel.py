# SPDX-License-Identifier: Apache-2.0
"""The wheel as a stranger has it: two packages, and the README's examples from another directory."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.documentation import REPOSITORY, blocks, commands, make_sandbox

README = REPOSITORY / "README.md"
SECTION = {"bash": "alibi-dinov2 ", "python": "alibi"}  # what tells the examples that need no clone


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(REPOSITORY)], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment with the wheel and what it depends on, but not the clone."""
    folder = tmp_path_factory.mktemp("stranger") / "venv"
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True)
    # Its dependencies are those of this environment: a folder named in a .pth file is searched, but the .pth files in
    # it are not read, so that the clone stays unknown.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def run(environment: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(environment / "bin" / words[0]), *words[1:]], cwd=folder, env=clean, capture_output=True, text=True
    )


def test_the_wheel_holds_two_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"alibi_dinov2", "modeling_alibi_dinov2"}
    shipped = {name for name in names if name.endswith(".py")}
    packages = ("alibi_dinov2", "modeling_alibi_dinov2")
    sources = {
        path.relative_to(REPOSITORY).as_posix() for name in packages for path in (REPOSITORY / name).rglob("*.py")
    }
    assert shipped == sources


def test_a_stranger_has_the_packages_and_not_the_clone(environment, tmp_path):
    code = """
import alibi_dinov2, modeling_alibi_dinov2
from importlib.util import find_spec
print([name for name in ("training", "evaluation", "common", "benchmarks", "tests") if find_spec(name)])
print(alibi_dinov2.__file__, modeling_alibi_dinov2.__file__)
"""
    result = run(environment, tmp_path, "python", "-c", code)
    found, files = result.stdout.splitlines()
    assert found == "[]"
    assert all(file.startswith(str(environment)) for file in files.split())


def test_the_readmes_examples_work_in_that_environment(environment, tmp_path):
    make_sandbox(tmp_path)
    examples = [(kind, text) for kind, text in blocks(README, "bash", "python") if SECTION[kind] in text]
    assert {kind for kind, _ in examples} == {"bash", "python"}
    python = [text for kind, text in examples if kind == "python"]
    result = run(environment, tmp_path, "python", "-c", "\n".join(python))
    assert result.returncode == 0, result.stderr
    for text in (text for kind, text in examples if kind == "bash"):
        for words in commands(text):
            if words[0] == "alibi-dinov2":
                result = run(environment, tmp_path, *words)
                assert result.returncode == 0, result.stderr
    assert (tmp_path / "masks").is_dir()
