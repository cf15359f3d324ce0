# SPDX-License-Identifier: Apache-2.0
"""Files and folders are whole or not there."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from alibi_dinov2.io.files import new_file, new_folder, sha256_of, write_json


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
