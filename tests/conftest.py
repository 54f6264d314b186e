"""Shared by all tests: no network, and nothing written into the user's folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _own_folders(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to a temporary folder; so does the cache, except where a test needs the real starter pack."""
    monkeypatch.setenv("LRC_RUNS", str(tmp_path / "lrc-runs"))
    if request.node.get_closest_marker("pack") is None and request.node.get_closest_marker("browser") is None:
        monkeypatch.setenv("LRC_CACHE", str(tmp_path / "lrc-cache"))
