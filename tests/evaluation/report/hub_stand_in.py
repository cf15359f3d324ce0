# SPDX-License-Identifier: Apache-2.0
"""A local stand-in for the Hub's HTTP interface, as far as creating a repository and committing to it goes."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Hub:
    """What the stand-in holds and what it was asked.

    Attributes:
        repositories: files by repository, where that of a Space begins with `spaces/`, and path; those of large files
            are in `large` too, by SHA-256.
        commits: number of commits.
        requests: method and path of each request.
        refusals: parts of paths, and the statuses with which the next requests for them are answered.
        damage: path of a file that is to be spoilt on its way in.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0
    requests: list[str] = field(default_factory=list)
    refusals: dict[str, list[int]] = field(default_factory=dict)
    damage: str | None = None
    endpoint: str = ""

    def create(self, name: str) -> tuple[int, dict]:
        address = {"url": f"{self.endpoint}/{name}", "id": name}
        if name in self.repositories:
            return 409, address | {"error": "You already created this repo"}
        self.repositories[name] = {".gitattributes": b"*.safetensors filter=lfs"}
        return 200, address

    def preupload(self, files: list[dict]) -> dict:
        modes = [
            {"uploadMode": "lfs" if is_large(file["path"]) else "regular", "shouldIgnore": False} for file in files
        ]
        return {"files": [{"path": file["path"], **mode} for file, mode in zip(files, modes, strict=True)]}

    def batch(self, objects: list[dict]) -> dict:
        upload = {
            entry["oid"]: {"actions": {"upload": {"href": f"{self.endpoint}/large/{entry['oid']}"}}}
            for entry in objects
        }
        return {"objects": [entry | ({} if entry["oid"] in self.large else upload[entry["oid"]]) for entry in objects]}

    def commit(self, repository: str, lines: list[dict]) -> dict:
        files = dict(self.repositories[repository])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        if self.damage:
            files[self.damage] += b"!"
        self.repositories[repository] = files
        self.commits += 1
        return {"commitUrl": f"{self.endpoint}/{repository}/commit/{self.commits}", "commitOid": f"{self.commits:040x}"}

    def tree(self, repository: str) -> list[dict]:
        return [tree_entry(path, content) for path, content in sorted(self.repositories[repository].items())]


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".png", ".onnx", ".wasm"))


def tree_entry(path: str, content: bytes) -> dict:
    """A file as the Hub lists it: git's checksum, and for a large file that of its pointer and its own SHA-256."""
    entry = {"type": "file", "path": path, "size": len(content)}
    if not is_large(path):
        return entry | {"oid": hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()}
    large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry | {"oid": "0" * 40, "lfs": large}


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_) -> None:
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = urlsplit(self.path).path
            hub.requests.append(f"{self.command} {path}")
            refusal = next((statuses.pop(0) for part, statuses in hub.refusals.items() if part in path and statuses), 0)
            status, reply = (refusal, {"error": "refused by the stand-in"}) if refusal else self.reply(path, body)
            content = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = answer

        def reply(self, path: str, body: bytes) -> tuple[int, object]:
            if self.command == "PUT":
                digest = path.rsplit("/", 1)[-1]
                if hashlib.sha256(body).hexdigest() != digest:
                    return 400, {"error": "another checksum"}
                hub.large[digest] = body
                return 200, {}
            if path == "/api/repos/create":
                wanted = json.loads(body)
                space = wanted.get("type") == "space"
                if space and wanted.get("sdk") != "static":
                    return 400, {"error": "a Space needs an SDK"}
                return hub.create(f"{'spaces/' if space else ''}{wanted['organization']}/{wanted['name']}")
            if path == "/api/validate-yaml":
                return 200, {"errors": [], "warnings": []}
            if match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
                return 200, hub.batch(json.loads(body)["objects"])
            match = re.fullmatch(r"/api/(models|spaces)/([^/]+/[^/]+)/(preupload|commit|tree)/.+", path)
            repository = f"{'spaces/' if match[1] == 'spaces' else ''}{match[2]}" if match else None
            if not match or repository not in hub.repositories:
                return 404, {"error": f"{path} is not known"}
            if match[3] == "preupload":
                return 200, hub.preupload(json.loads(body)["files"])
            if match[3] == "commit":
                return 200, hub.commit(repository, [json.loads(line) for line in body.splitlines()])
            return 200, hub.tree(repository)

    return Handler


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A stand-in that answers at its `endpoint` until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
