"""Shared by tests of the core: the hub, played by a server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.core.hub_stand_in import Hub
from tests.tiny_models import save_tiny


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A running hub with one model, and a library that believes in it; its cache is a temporary folder."""
    from huggingface_hub import constants

    Hub.folder, Hub.asked = save_tiny(tmp_path / "remote"), []
    (Hub.folder / "README.md").write_text("a card")
    (Hub.folder / "onnx").mkdir()
    (Hub.folder / "onnx" / "model.safetensors").write_bytes(b"another format")
    (Hub.folder / "code.py").write_text("raise SystemExit")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    yield Hub
    server.shutdown()
    server.server_close()
