"""A model's card, runs about it, and reports of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrc_core.report.build import ReportOptions, make_report
from lrc_core.report.content import Report
from lrc_core.report.sources import Asked
from lrc_core.runs.store import RunStore
from lrc_core.types import ModelCard
from tests.factories import run_factory
from tests.factories.report_reader import Make, looked_up


@pytest.fixture
def card() -> ModelCard:
    return run_factory.make_card()


@pytest.fixture
def stores(tmp_path: Path) -> tuple[RunStore, RunStore]:
    return RunStore(tmp_path / "runs"), RunStore(tmp_path / "samples")


@pytest.fixture
def make(stores: tuple[RunStore, RunStore], card: ModelCard) -> Make:
    run_factory.spectra_run(stores[0], card)

    def made(frame: ReportOptions | None = None, **asked: Any) -> Report:
        return make_report(Asked(**asked), frame, looked_up(stores))

    return made
