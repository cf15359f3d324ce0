# SPDX-License-Identifier: Apache-2.0
"""Files and folders are whole or not there."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from alibi_dinov2.io.files import new_file, new_folder, remove_folder, require_new_folder, sha256_of, write_json


def test_file_appears_only_when_finished(tmp_path):
    path = tmp_path / "new" / "record.json"
    with new_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"old": True})

    def fail():
        with new_file(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert json.loads(path.read_text()) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_what_is_no_json(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "record.json", {"r2": float("nan")})
    assert not list(tmp_path.iterdir())


def test_files_get_the_permissions_of_the_umask(tmp_path):
    previous = os.umask(0o022)
    try:
        write_json(tmp_path / "record.json", {})
        with new_folder(tmp_path / "folder") as folder:
            (folder / "weights").write_bytes(b"1")
            (folder / "weights").chmod(0o600)
    finally:
        os.umask(previous)
    modes = [oct(path.stat().st_mode & 0o777) for path in sorted(tmp_path.rglob("*"))]
    assert modes == ["0o755", "0o644", "0o644"]


def test_folder_with_content_is_refused_and_kept(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("1")
    with pytest.raises(FileExistsError, match="not empty"), new_folder(tmp_path / "run"):
        pytest.fail("must not begin")
    assert (tmp_path / "run" / "precious").read_text() == "1"


def test_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("1")
    with pytest.raises(FileExistsError, match="is a file"), new_folder(tmp_path / "run"):
        pytest.fail("must not begin")


def test_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("old", "new"):
        with new_folder(tmp_path / "best", replace=True) as folder:
            (folder / content).write_text(content)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_error_while_replacing_keeps_the_old_folder(tmp_path):
    with new_folder(tmp_path / "best") as folder:
        (folder / "old").write_text("old")

    def fail():
        with new_folder(tmp_path / "best", replace=True) as folder:
            (folder / "half").write_text("new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["old"]


def test_kill_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"old": True})
    script = (
        "import os, signal, sys\n"
        "from alibi_dinov2.io.files import new_file\n"
        "with new_file(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert json.loads(path.read_text()) == {"old": True}


def test_checksum(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()


KILLED_WHILE_REPLACING = """
import os, shutil, signal, sys
from pathlib import Path
from alibi_dinov2.io import files

path, calls, exchanging = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
left = [calls]

def counted(function):
    def call(*args, **options):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return function(*args, **options)
    return call

with files.new_folder(path, replace=True) as folder:
    for name in ("a", "b"):
        (folder / name).write_text("new")
    # Every step that changes what is on the disk, from here to the end.
    files.exchange = counted(files.exchange if exchanging else lambda first, second: False)
    os.rename, os.unlink, os.rmdir = counted(os.rename), counted(os.unlink), counted(os.rmdir)
    Path.rename = counted(Path.rename)
print("finished")
"""


@pytest.mark.parametrize("exchanging", [True, False])
def test_kill_at_any_point_of_a_replacement_leaves_the_old_folder_or_the_new_one(tmp_path, exchanging):
    path, found = tmp_path / "best", []
    for calls in range(20):
        with new_folder(path, replace=True) as folder:
            for name in ("a", "b"):
                (folder / name).write_text("old")
        command = [sys.executable, "-c", KILLED_WHILE_REPLACING, str(path), str(calls), str(exchanging)]
        killed = subprocess.run(command, check=False, capture_output=True, text=True)
        if killed.stdout == "finished\n":
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        # Where names cannot be exchanged the next who asks for the folder puts the old one back.
        with pytest.raises(FileExistsError, match="not empty"):
            require_new_folder(path)
        content = {file.name: file.read_text() for file in path.iterdir()}
        assert content in ({"a": "old", "b": "old"}, {"a": "new", "b": "new"}), calls
        found.append(content["a"])
    else:
        pytest.fail("was killed at every attempt")
    assert found == sorted(found, reverse=True)
    assert set(found) == {"old", "new"}


def test_linked_folder_is_replaced_where_it_is(tmp_path):
    with new_folder(tmp_path / "disk" / "best") as folder:
        (folder / "old").write_text("old")
    (tmp_path / "best").symlink_to(tmp_path / "disk" / "best")
    with new_folder(tmp_path / "best", replace=True) as folder:
        (folder / "new").write_text("new")
    assert (tmp_path / "best").is_symlink()
    assert [path.name for path in (tmp_path / "disk" / "best").iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["best"]


def test_folder_is_removed_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "file").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr("os.unlink", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            remove_folder(folder)
    assert not folder.exists()
    # What a kill has left is no hindrance, and goes.
    folder.mkdir()
    remove_folder(folder)
    assert not list(tmp_path.iterdir())
