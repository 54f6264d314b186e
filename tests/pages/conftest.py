"""The app in-process: an AppTest that starts at app.py, on run folders of the test's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from lrc_core.models.preflight import Preflight
from lrc_core.runs.store import RunStore
from lrc_core.types import ModelCard
from pages.ui.shared import cards
from tests.factories import run_factory
from tests.tree import ROOT

Open = Callable[..., AppTest]
PAIRS = {"al_decomposition": "Whitened (SVD-LLM)", "al_storage": "Pairs"}
"""Query parameters of Allocate for what papers count: whitened factors, stored as pairs."""


@pytest.fixture(autouse=True, scope="session")
def _one_search_for_components() -> Iterator[None]:
    """Every AppTest reads the metadata of all installed packages in search of components: over a second each."""
    with pytest.MonkeyPatch.context() as patch:
        found = cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", found)
        yield


@pytest.fixture
def store() -> RunStore:
    """The user's runs (a temporary folder)."""
    return RunStore()


@pytest.fixture
def card() -> ModelCard:
    return run_factory.make_card()


@pytest.fixture
def known(store, card):
    """The model has been read by a job of the user's own."""
    return run_factory.spectra_run(store, card)


@pytest.fixture(autouse=True)
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """Shipped samples: none, until a test writes some."""
    folder = tmp_path / "samples"
    monkeypatch.setenv("LRC_SAMPLES", str(folder))
    return RunStore(folder)


@pytest.fixture(autouse=True)
def report(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the pre-flight says; a test may change it."""
    content: dict[str, object] = {
        "kind": "starter",
        "exists": True,
        "architecture": "LlamaForCausalLM",
        "params": 134_515_008,
        "weight_bytes": 269_030_016,
        "n_blocks": 30,
        "hidden_size": 576,
        "memory_needed": 1_500_000_000,
        "memory_available": 9_000_000_000,
        "disk_needed": 2_000_000_000,
        "disk_available": 50_000_000_000,
        "warnings": (),
        "problems": (),
    }
    monkeypatch.setattr(cards, "preflight", lambda ref: Preflight(source=ref.source, **content))
    return content


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch, store: RunStore) -> list[tuple[object, dict[str, str] | None]]:
    """Specs that pages submit, with the environment; the runs are queued and nothing is started."""
    from lrc_core.jobs import manager

    seen: list[tuple[object, dict[str, str] | None]] = []

    def submit(spec, *, env=None, store=store, automatic=False, on=None):
        seen.append((spec, env))
        return store.create(spec)

    monkeypatch.setattr(manager, "submit", submit)
    return seen


@pytest.fixture
def open_page() -> Iterator[Open]:
    """``open_page("spectra", rate="30")``: the page as a link with these query parameters opens it."""
    st.cache_data.clear()
    st.cache_resource.clear()

    def opener(page: str = "home", **query: str | list[str]) -> AppTest:
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
        for key, value in query.items():
            app.query_params[key] = value
        if page != "home":
            app.switch_page(f"pages/{page}.py")
        app.run()
        assert not app.exception
        return app

    yield opener


def text_of(app: AppTest) -> str:
    """Everything that is written on the page, for looking words up: as it is read, without escapes of Markdown."""
    parts = [
        element.value
        for kind in ("title", "header", "markdown", "caption", "code", "text")
        for element in app.get(kind)
    ]
    for alerts in (app.error, app.warning, app.info):
        parts += [f"{getattr(alert.proto, 'title', '')} {alert.value}" for alert in alerts]
    parts += [element.proto.body for element in app.get("html")]
    return re.sub(r"\\(?=[^a-zA-Z0-9\s])", "", "\n".join(str(part) for part in parts))
