"""A small hub on 127.0.0.1: the routes that huggingface_hub asks for, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
API = re.compile(r"/api/models/(.+?)(?:/revision/([^/]+)|/tree/([^/]+))?")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Hub:
    """What is served, what goes wrong, and what was asked for."""

    repositories: dict[str, Path]
    address: str = ""
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)  # id → status and X-Error-Code
    cuts: dict[str, int] = field(default_factory=dict)  # file → how often its body is cut in the middle
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range

    def asked(self, file: str, method: str = "GET") -> list[str | None]:
        """The Range header of each request for a file, in order."""
        found = [(FILE.fullmatch(path), asked) for verb, path, asked in self.requests if verb == method]
        return [asked for match, asked in found if match and match[3] == file]


@contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[Hub]:
    """Serve directories as repositories, by id, until the block ends."""
    hub = Hub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        file, listing = FILE.fullmatch(path), API.fullmatch(path)
        if file:
            repository, revision, name = file.groups()
        elif listing:
            repository, revision, name = listing[1], listing[2] or listing[3] or "main", ""
        else:
            return self._send(404, b"")
        directory = self.hub.repositories.get(repository)
        refused = self.hub.refused.get(repository) or (None if directory else (404, "RepoNotFound"))
        if refused is None and revision not in ("main", "v1", COMMIT):
            refused = (404, "RevisionNotFound")
        if refused or directory is None:
            status, code = refused or (404, "RepoNotFound")
            return self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": "refused"})
        if file:
            return self._send_file(directory, name)
        names = sorted(str(each.relative_to(directory)) for each in directory.rglob("*") if each.is_file())
        if listing and listing[3]:
            entries = [
                {
                    "type": "file",
                    "path": each,
                    "size": (directory / each).stat().st_size,
                    "oid": _etag(directory / each),
                }
                for each in names
            ]
            return self._send(200, json.dumps(entries).encode())
        told = {"id": repository, "modelId": repository, "sha": COMMIT, "private": False, "tags": [], "downloads": 0}
        return self._send(200, json.dumps({**told, "siblings": [{"rfilename": each} for each in names]}).encode())

    def _send_file(self, directory: Path, name: str) -> None:
        path = directory / name
        if not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = path.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(path)}"', "Accept-Ranges": "bytes"}
        status, start = 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked:
            status, start = 206, int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.command == "GET" and self.hub.cuts.get(name, 0) > 0
        if cut:
            self.hub.cuts[name] -= 1
        return self._send(status, content[start:], headers, cut=cut)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()
        if cut:
            self.connection.shutdown(socket.SHUT_RDWR)


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
