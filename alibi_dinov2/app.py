# SPDX-License-Identifier: Apache-2.0
"""The page that segments in a browser, served from this machine to this machine."""

import json
import re
import shutil
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PAGE = Path(__file__).parent / "page"  # where the build puts it, in a clone and in the wheel
MODELS = "models/"
# A model that transformers.js loads: one file of weights is enough.
NEEDED = ("config.json", "preprocessor_config.json")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Threads of WebAssembly need a page that nothing foreign can look into.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}


class PageServer(ThreadingHTTPServer):
    """A server of the built page on this machine's own address, which others cannot reach.

    Args:
        model: folder of a model in ONNX, as `training.export_onnx` writes it, or a Hub id.
        port: 0 for any that is free.
        page: folder of the built page.

    Raises:
        FileNotFoundError: the page was not built, or the model's folder lacks something.
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, model: str, port: int = 0, page: Path = PAGE) -> None:
        if not (page / "index.html").is_file():
            raise FileNotFoundError(
                f"{page} holds no page. In a clone, `make app` builds it; it needs Node.js 20 or newer."
            )
        folder = Path(model)
        self.model = folder.resolve() if folder.is_dir() else None
        if self.model:
            require_model(self.model)
            self.source = {"model": self.model.name, "path": MODELS}
        elif HUB_ID.fullmatch(model):
            self.source = {"model": model}
        else:
            raise FileNotFoundError(
                f"{model} is neither a folder nor a Hub id; `python -m training.export_onnx` makes one."
            )
        super().__init__(("127.0.0.1", port), partial(PageHandler, directory=str(page)))

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://localhost:{self.server_address[1]}/"


def require_model(folder: Path) -> None:
    """Raise a `FileNotFoundError` unless a folder holds a model that the page can load."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if not list((folder / "onnx").glob("*.onnx")):
        missing.append("onnx/*.onnx")
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}; give a folder that `python -m training.export_onnx` wrote."
        )


class PageHandler(SimpleHTTPRequestHandler):
    """Files of the page, and of the model under `models/`; `config.json` tells the page which one."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def send_head(self) -> Any:
        if urlsplit(self.path).path != "/config.json":
            return super().send_head()
        content = json.dumps(self.server.source).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return BytesIO(content)

    def translate_path(self, path: str) -> str:
        model = self.server.model
        prefix = f"/{MODELS}{model.name}/" if model else None
        wanted = unquote(urlsplit(path).path)
        if model is None or prefix is None or not wanted.startswith(prefix):
            return super().translate_path(path)
        inside = (model / wanted.removeprefix(prefix)).resolve()
        # What lies elsewhere is not there, whatever the address says.
        return str(inside if inside.is_relative_to(model) else model / "nowhere")

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        try:
            shutil.copyfileobj(source, outputfile)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the browser went away

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the page shows what goes wrong."""


def serve(model: str, port: int) -> None:
    """Serve the page until Ctrl-C, and print its address; raises what `PageServer` raises."""
    with PageServer(model, port) as server:
        print(f"{server.address}   (Ctrl-C ends it)", flush=True)
        server.serve_forever()
