"""A hub and a web server on loopback that fail as real ones do, and keep count of what they were asked for."""

import hashlib
import http.server
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Server:
    """What is served and which faults are switched on; `requests` says what was asked for and how much was sent."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # URL path -> content
    datasets: dict[str, dict[str, bytes]] = field(default_factory=dict)  # repo -> path -> content, at COMMIT and main
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)  # likewise
    drops: int = 0  # bodies that end in the middle of what was asked for; -1: all of them
    broken: bytes = b""  # content that always ends in the middle
    reset: bool = False  # such an end is a reset (RST) and not an orderly close (FIN)
    stall: threading.Event | None = None  # bodies wait in the middle until it is set
    ranges: bool = True
    etags: bool = True
    git: bool = False  # files of datasets lie in Git: an ETag that is no SHA-256, and no redirect
    corrupt: bool = False  # the bytes sent are not those that the ETag speaks of
    gated: bool = False
    failures: list[int] = field(default_factory=list)  # statuses of the next answers
    requests: list[dict] = field(default_factory=list)

    def bodies(self) -> list[dict]:
        """The requests that were answered with content."""
        return [request for request in self.requests if request["sent"]]


class Handler(http.server.BaseHTTPRequestHandler):
    server_version = "loopback"
    protocol_version = "HTTP/1.1"
    state: ClassVar[Server]

    def do_GET(self):
        headers = {name.title(): value for name, value in self.headers.items()}
        self.seen = {"method": self.command, "path": self.path, "headers": headers, "sent": 0}
        self.state.requests.append(self.seen)
        path = unquote(self.path)
        if self.state.failures:
            self.refuse(self.state.failures.pop(0))
        elif path.startswith("/datasets/"):
            self.resolve(self.state.datasets, path.removeprefix("/datasets/"))
        elif path.startswith("/api/models/"):
            self.tree(path.removeprefix("/api/models/").partition("?")[0])
        elif "/resolve/" in path:
            self.resolve(self.state.models, path.removeprefix("/"))
        elif path in self.state.files:
            content = self.state.files[path]
            self.content(content, {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if self.state.etags else {})
        else:
            self.refuse(404)

    do_HEAD = do_GET  # noqa: N815

    def resolve(self, repos: dict[str, dict[str, bytes]], path: str):
        repo, _, rest = path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        if self.refused(repos, repo, revision):
            return
        if name not in repos[repo]:
            self.refuse(404, "EntryNotFound", {"X-Repo-Commit": COMMIT})
        else:
            content = repos[repo][name]
            if self.state.git:
                etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                self.content(content, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})
                return
            digest = hashlib.sha256(content).hexdigest()
            self.state.files[f"/cdn/{digest}"] = content
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            cdn = self.state.address.replace("127.0.0.1", "localhost")  # another host, as the hub's CDN is
            self.refuse(302, "", {"X-Repo-Commit": COMMIT, "Location": f"{cdn}/cdn/{digest}", **linked})

    def tree(self, path: str):
        repo, _, revision = path.partition("/tree/")
        if not self.refused(self.state.models, repo, revision):
            files = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.state.models[repo].items()
            ]
            self.content(json.dumps(files).encode(), {"Content-Type": "application/json"})

    def refused(self, repos: dict[str, dict[str, bytes]], repo: str, revision: str) -> bool:
        if repo not in repos:
            # as the hub: whoever has no token is not told whether the repo exists
            self.refuse(404 if "Authorization" in self.headers else 401, "RepoNotFound")
        elif self.state.gated:
            self.refuse(403 if "Authorization" in self.headers else 401, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        else:
            return False
        return True

    def refuse(self, status: int, code: str = "", headers: dict | None = None):
        self.send_response(status)
        for name, value in (({"X-Error-Code": code} if code else {}) | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def content(self, content: bytes, headers: dict[str, str]):
        start = 0
        asked, valid = self.headers.get("Range", ""), self.headers.get("If-Range")
        if self.state.ranges and asked and valid in (None, headers.get("ETag")):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if start >= len(content):
            self.refuse(416, "", {"Content-Range": f"bytes */{len(content)}"})
            return
        body = content[start:]
        if self.state.corrupt:
            body = bytes(len(body))
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.body(body)

    def body(self, body: bytes):
        half = len(body) // 2
        if self.state.stall and not self.state.stall.is_set():
            self.send(body[:half])
            self.state.stall.wait(10)
            body, half = body[half:], 0
        broken = self.state.broken and self.state.broken.endswith(body)
        if not self.state.drops and not broken:
            self.send(body)
            return
        self.state.drops -= not broken
        self.send(body[:half])
        self.close_connection = True
        if self.state.reset:
            threading.Event().wait(0.2)  # a reset throws away what the other side has not read yet
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def send(self, body: bytes):
        self.seen["sent"] += len(body)  # before, since the other side may have all of it before `write` returns
        try:
            self.wfile.write(body)
        except ConnectionError:  # the test has killed the other side
            self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of loopback until the block ends."""
    state = Server()
    handler = type("Serving", (Handler,), {"state": state})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def take_for_the_hub(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have huggingface_hub ask this address, again without a pause; with an empty cache below the folder, no token."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    for module in ("constants", "file_download"):
        name = "HUGGINGFACE_CO_URL_TEMPLATE"
        monkeypatch.setattr(f"huggingface_hub.{module}.{name}", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for module in ("utils._http", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.time", SimpleNamespace(sleep=lambda _: None))
