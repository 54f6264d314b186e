"""Shared by all tests: no network, nothing written into the user's folders, marks for what takes long."""

from __future__ import annotations

import asyncio
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Set before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before anything imports torch, and for processes that tests start: tiny models are slower on many threads.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# Results are compared with computations in float32, also on processors that have bfloat16.
os.environ["LRC_CPU_BF16"] = "0"
# Processes that tests start load the stand-in for the pipeline, which acts only where a test asks for it.
_STAND_IN = str(Path(__file__).parent / "stand_in")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_STAND_IN, os.environ.get("PYTHONPATH")]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``make quick`` leaves out: trained methods, and tests that start processes."""
    for item in items:
        if isinstance(item, pytest.Function):
            if _trains(item):
                item.add_marker(pytest.mark.trained)
            if _starts_processes(item):
                item.add_marker(pytest.mark.process)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test without a browser begins outside any event loop, whatever ran before it in its process.

    Playwright's own loop counts as running for as long as Playwright is started, not only while it is at work.
    """
    if item.get_closest_marker("browser") is None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where files go whole to processes, browser tests go to few of them."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.schedule import Beside

    return Beside(config, log)


def _trains(item: pytest.Function) -> bool:
    """Whether a method that learns is the test's parameter, or its module imports code of one or of tuning."""
    entry = item.callspec.params.get("entry") if hasattr(item, "callspec") else None
    if getattr(entry, "learns", False) or getattr(entry, "structured", False):
        return True
    return any(name.startswith(_TRAINING) for name in _origins(item.module))


def _starts_processes(item: pytest.Function) -> bool:
    return "lrc" in item.fixturenames or bool({"subprocess", "tests.factories.job_helpers"} & _origins(item.module))


_TRAINING = (
    *(
        f"lrc_core.allocate.{name}"
        for name in ("masks.training", "llrc", "successive", "ara", "ars", "dobi", "llm_pruner")
    ),
    "lrc_core.tune",
)


@cache
def _origins(module: ModuleType) -> frozenset[str]:
    """Modules that a test's module imports, or imports something from."""
    values = vars(module).values()
    return frozenset(getattr(value, "__module__", None) or getattr(value, "__name__", "") or "" for value in values)


@pytest.fixture(autouse=True)
def _own_folders(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to a temporary folder; so does the cache, except where a test needs the real starter pack."""
    monkeypatch.setenv("LRC_RUNS", str(tmp_path / "lrc-runs"))
    if request.node.get_closest_marker("pack") is None and request.node.get_closest_marker("browser") is None:
        monkeypatch.setenv("LRC_CACHE", str(tmp_path / "lrc-cache"))
