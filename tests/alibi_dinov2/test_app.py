# SPDX-License-Identifier: Apache-2.0
"""The server of the page: what it gives, with which headers, and what it keeps to itself."""

import json
import subprocess
import sys
import threading
from http.client import HTTPConnection

import pytest

from alibi_dinov2.app import PageServer


@pytest.fixture
def page(tmp_path):
    folder = tmp_path / "page"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<title>page</title>")
    (folder / "config.json").write_text('{"model": "built with this one"}')
    (folder / "assets" / "runtime.wasm").write_bytes(b"\0asm")
    return folder


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "models" / "tiny ONNX"
    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    (folder / "onnx" / "model.onnx").write_bytes(b"weights")
    (folder.parent / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def ask(page, model):
    """Asks a running server: method and path -> answer with its content."""
    with PageServer(str(model), page=page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def run(path, method="GET"):
            connection = HTTPConnection("127.0.0.1", server.server_address[1])
            connection.request(method, path)
            answer = connection.getresponse()
            return answer, answer.read()

        yield run
        server.shutdown()


def test_every_answer_has_the_headers_that_threads_need(ask):
    for path in ("/", "/assets/runtime.wasm", "/config.json", "/nowhere"):
        answer, _ = ask(path)
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_the_page_is_served_with_types_that_browsers_insist_on(ask):
    assert ask("/")[1] == b"<title>page</title>"
    assert ask("/assets/runtime.wasm")[0].headers["Content-Type"] == "application/wasm"


def test_the_page_is_told_the_model_and_gets_its_files(ask):
    answer, content = ask("/config.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(content) == {"model": "tiny ONNX", "path": "models/"}
    assert ask("/models/tiny%20ONNX/onnx/model.onnx")[1] == b"weights"
    answer, content = ask("/models/tiny%20ONNX/onnx/model.onnx", "HEAD")  # how large is it?
    assert (answer.headers["Content-Length"], content) == ("7", b"")


@pytest.mark.parametrize(
    "path", ["/models/tiny%20ONNX/../secret.txt", "/models/tiny%20ONNX/%2e%2e/secret.txt", "/../models/secret.txt"]
)
def test_nothing_else_is_given_away(ask, path):
    answer, content = ask(path)
    assert answer.status == 404
    assert b"secret" not in content.replace(b"secret.txt", b"")


def test_a_hub_id_goes_to_the_page_as_it_is(page):
    with PageServer("someone/alibi-dinov2-small-ONNX", page=page) as server:
        assert server.source == {"model": "someone/alibi-dinov2-small-ONNX"}


def test_what_is_missing_is_said_with_the_remedy(page, model, tmp_path):
    with pytest.raises(FileNotFoundError, match="make app"):
        PageServer(str(model), page=tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder nor a Hub id"):
        PageServer("no such folder", page=page)
    (model / "onnx" / "model.onnx").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks onnx/\*\.onnx"):
        PageServer(str(model), page=page)


def test_the_command_ends_with_a_message(tmp_path):
    command = [sys.executable, "-m", "alibi_dinov2.cli", "app", "--model", str(tmp_path / "nowhere")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "error:" in result.stderr
    assert "Traceback" not in result.stderr
