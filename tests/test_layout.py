# SPDX-License-Identifier: Apache-2.0
"""Who imports whom, and that no file has grown too long to read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LINES = 400
# What each room may import of the others; CONTRIBUTING says why.
ALLOWED = {
    "modeling_alibi_dinov2": set(),
    "alibi_dinov2/io": {"modeling_alibi_dinov2"},
    "alibi_dinov2/pictures": {"alibi_dinov2/io"},
    "alibi_dinov2/features": {"modeling_alibi_dinov2", "alibi_dinov2/io"},
    "alibi_dinov2/segmentation": {
        "modeling_alibi_dinov2",
        "alibi_dinov2/io",
        "alibi_dinov2/features",
        "alibi_dinov2/pictures",
    },
    "alibi_dinov2": {"modeling_alibi_dinov2"}
    | {f"alibi_dinov2/{room}" for room in ("io", "features", "segmentation", "pictures")},
    "training": {"modeling_alibi_dinov2", "alibi_dinov2"},
    "evaluation": {"modeling_alibi_dinov2", "alibi_dinov2"},
    "benchmarks": {"modeling_alibi_dinov2", "alibi_dinov2", "training", "evaluation"},
    "plugins": {"modeling_alibi_dinov2", "alibi_dinov2", "benchmarks"},
}
# What is wired into a distillation: the probe that finds positional channels, and the watch over the student; and the
# exports that are published together.
NEIGHBOURS = {
    "training/distill.py": "evaluation",
    "training/watch.py": "evaluation",
    "evaluation/report/release.py": "training",
}
ROOMS = sorted(ALLOWED, key=len, reverse=True)
FILES = sorted(
    path
    for room in ("modeling_alibi_dinov2", "alibi_dinov2", "training", "evaluation", "benchmarks", "plugins", "tests")
    for path in (REPOSITORY / room).rglob("*.py")
)


def room_of(path: str) -> str | None:
    """The innermost room that a path lies in."""
    return next((room for room in ROOMS if path == room or path.startswith(f"{room}/")), None)


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it, as paths."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.replace(".", "/") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            base = node.module.replace(".", "/")
            yield from (f"{base}/{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_from_below(room):
    for path in FILES:
        name = path.relative_to(REPOSITORY).as_posix()
        if room_of(name) != room:
            continue
        for module in imports(path):
            other = room_of(module)
            if other in (None, room) or NEIGHBOURS.get(name) == other:
                continue
            allowed = {other, other.split("/")[0]} & ALLOWED[room]
            assert allowed, f"{name} imports {module}"


def test_no_file_is_too_long():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not [str(path) for path, length in lengths.items() if length > LINES]
