# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are whole or not there: written beside their final name, then renamed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def new_file(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary name in the same folder; on success rename it to `path`, on an error remove it.

    Args:
        path: the final name.
        durable: whether to wait until the bytes are on the disk; not needed for what can be computed again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.chmod(0o666 & ~current_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling folder; on success rename it to `path`, on an error remove it.

    Args:
        path: the final name.
        replace: whether a folder that is there already gives way to the new one.

    Raises:
        FileExistsError: `path` is a file, or a folder with something in it and `replace` is not set.
    """
    path = Path(path)
    require_new_folder(path, replace=replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        seal_folder(temporary)
        if path.exists():
            # Two renames: at no moment is there half a folder under the final name.
            retired = temporary.with_name(f"{temporary.name}.old")
            path.rename(retired)
            temporary.rename(path)
            shutil.rmtree(retired)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_new_folder(path: str | Path, *, replace: bool = False) -> None:
    """Raise a `FileExistsError` if `new_folder` would; for long work that is to fail before it begins."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; give a folder that does not exist yet.")
    if path.is_dir() and any(path.iterdir()) and not replace:
        raise FileExistsError(f"{path} exists and is not empty. Choose another folder, or remove this one first.")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all. NaN is refused: a file with it is not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with new_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_folder(folder: Path) -> None:
    """Bring a temporary folder to the disk, and give it and its files the permissions that the user's umask allows."""
    mask = current_umask()
    for path in (folder, *folder.rglob("*")):
        if path.is_file():
            sync(path)
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def sync(path: Path) -> None:
    """Have the bytes on the disk before the name: a rename may otherwise survive a power cut that they do not."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def current_umask() -> int:
    """The process's umask; temporary files are private, final ones follow the user's habit."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
