# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are whole or not there: written beside their final name, then renamed."""

import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux, in <fcntl.h> and <stdio.h>
CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
RETIRED = ".old"


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

    A kill leaves the old folder or the new one. Where the system cannot exchange two names in one step there is a
    moment at which the old one has another name; whoever comes next to make the folder finds it and puts it back.

    Args:
        path: the final name.
        replace: whether a folder that is there already gives way to the new one.

    Raises:
        FileExistsError: `path` is a file, or a folder with something in it and `replace` is not set.
    """
    path = Path(os.path.realpath(path))  # a link to a folder stays one
    require_new_folder(path, replace=replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        seal_folder(temporary)
        if not path.exists():
            temporary.rename(path)
        elif not exchange(temporary, path):
            retired = temporary.with_name(temporary.name + RETIRED)
            path.rename(retired)
            temporary.rename(path)
            shutil.rmtree(retired)
    finally:
        # After an exchange this is the old folder.
        shutil.rmtree(temporary, ignore_errors=True)


def require_new_folder(path: str | Path, *, replace: bool = False) -> None:
    """Raise a `FileExistsError` if `new_folder` would; for long work that is to fail before it begins.

    A folder whose replacement was killed half-way is put back first.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; give a folder that does not exist yet.")
    if not path.exists():
        retired = max(path.parent.glob(f".{path.name}-*{RETIRED}"), key=lambda old: old.stat().st_mtime, default=None)
        if retired:
            retired.rename(path)
    if path.is_dir() and any(path.iterdir()) and not replace:
        raise FileExistsError(f"{path} exists and is not empty. Choose another folder, or remove this one first.")


def exchange(first: Path, second: Path) -> bool:
    """Give each of two files or folders the other's name, in one step; false where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    if renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill leaves it whole or gone: what is half removed has another name."""
    condemned = path.with_name(f".{path.name}-removed")
    shutil.rmtree(condemned, ignore_errors=True)
    path.rename(condemned)
    shutil.rmtree(condemned)


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
