"""The hub, played by a tiny HTTP server on this machine: just enough of its interface."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lrc_core.runs.spec import ModelRef

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REF = ModelRef("someone/tiny")


class Hub(BaseHTTPRequestHandler):
    """Just enough of the hub's interface: model info, tree, and files by revision."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.asked.append(f"{self.command} {path}")
        if not path.startswith(("/api/models/someone/tiny", "/someone/tiny/")):
            code = "GatedRepo" if "gated" in path else "RepoNotFound"
            return self._send(403 if code == "GatedRepo" else 404, b"{}", {"X-Error-Code": code})
        if path.startswith("/api/"):
            if "/revision/" in path and not path.endswith(("main", COMMIT)):
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self._send_json(self._tree() if "/tree/" in path else self._info())
        file = self.folder / path.split("/", 5)[5]
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        self._send_file(file.read_bytes())

    def _send_file(self, data: bytes) -> None:
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range", "")
        if not wanted.startswith("bytes="):
            return self._send(200, data, headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        stop = min(int(last) + 1, len(data)) if last else len(data)
        headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
        self._send(206, data[int(first) : stop], headers)

    def _files(self) -> dict[str, int]:
        return {p.relative_to(self.folder).as_posix(): p.stat().st_size for p in self.folder.rglob("*") if p.is_file()}

    def _info(self) -> Any:
        siblings = [{"rfilename": name, "size": size} for name, size in self._files().items()]
        return {"id": "someone/tiny", "modelId": "someone/tiny", "sha": COMMIT, "siblings": siblings, "tags": []}

    def _tree(self) -> Any:
        return [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in self._files().items()]

    def _send_json(self, data: Any) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass
