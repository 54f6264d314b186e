"""The read-only demo: shipped runs only, nothing that starts, stops or deletes, nothing written."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from lrc_core.errors import ReadOnlyError
from lrc_core.jobs import cache, manager
from lrc_core.paths import READ_ONLY, plans_home, runs_home
from lrc_core.runs.spec import SpectraSpec
from lrc_core.runs.store import RunStore
from pages.ui import heavy_imports
from pages.ui.shared import state
from tests.factories import run_factory, table_factory
from tests.pages.conftest import ROOT, text_of

PAGES = ("home", "learn", "spectra", "allocate", "watch", "plans", "compare", "talk", "runs")
STARTS = "play_arrow"
"""Icon of every button that starts a job."""


@pytest.fixture
def demo(samples, card, tmp_path, monkeypatch) -> RunStore:
    """Samples of all kinds, a run of the user's that must stay out of sight, and the mode switched on."""
    own = RunStore()
    run_factory.allocate_run(own, card, keep=0.55)
    run_factory.spectra_run(samples, card)
    run_factory.allocate_run(samples, card, keep=0.7)
    table_factory.compare_run(samples, card)
    monkeypatch.setenv("LRC_SAMPLES", str(samples.root))
    monkeypatch.setenv(READ_ONLY, "1")
    return own


def everything_in(*folders: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size) for folder in folders for path in folder.rglob("*")
    }


@pytest.mark.parametrize("page", PAGES)
def test_no_page_offers_to_start_or_delete_and_nothing_is_written(open_page, demo, samples, tmp_path, page):
    before = everything_in(tmp_path)
    app = open_page(page)
    labels = [button.label for button in app.button if STARTS in str(button.proto.icon)]
    assert labels == [] and not any(button.label.startswith("Delete") for button in app.button)
    text = text_of(app)
    assert "Read-only demo" in text
    assert "not be drawn" not in text
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("home", "lrc spectra starter"),
        ("allocate", "lrc allocate starter --method"),
        ("plans", "lrc evaluate starter --plan smollm2-135m-by-hand-20-percent-removed-plan.json"),
        ("compare", "lrc compare starter --keep 0.9 0.8"),
        ("talk", "lrc generate starter"),
    ],
)
def test_in_place_of_the_button_stands_why_and_the_command(open_page, demo, page, command):
    text = text_of(open_page(page, co_more="true"))  # the form of Compare is in a fold
    assert "nothing is started" in text
    assert command in text


def test_no_command_names_a_file_that_was_never_written(open_page, demo):
    text = text_of(open_page("plans", pl_take_away="true"))
    assert "lrc export smollm2-135m-by-hand-20-percent-removed-plan.json" in text
    assert str(plans_home()) not in text


def test_the_runs_are_the_samples_and_settings_live_in_the_tab(open_page, demo, samples):
    app = open_page("runs")
    assert not set(demo.ids()) & set(samples.ids()) and demo.ids()
    assert set(app.dataframe[0].value["Id"]) == set(samples.ids())
    app = open_page("learn", learn_step="3")
    app.button(key="learn_on").click().run()
    assert app.query_params["learn_step"] in ("4", ["4"])
    assert app.button(key="learn_step_3").proto.icon  # the step is marked as done, in this session
    assert not state.settings_path().exists()


def test_nobody_elsewhere_is_told_where_runs_lie(open_page, demo, samples):
    assert not any(str(samples.root) in caption.value for caption in open_page("runs", ru_run=samples.ids()[0]).caption)


def test_nothing_is_said_of_own_runs_where_none_can_be_made(open_page, demo, monkeypatch):
    assert "Your own runs" not in text_of(open_page("learn", learn_step="3"))
    monkeypatch.delenv(READ_ONLY)
    assert "Your own runs" in text_of(open_page("learn", learn_step="3"))


def test_the_core_refuses_too(demo, samples):
    assert runs_home() == samples.root and not plans_home().exists()
    run_id = samples.ids()[0]
    for act in (
        lambda: manager.submit(SpectraSpec()),
        lambda: manager.resume(run_id),
        lambda: manager.cancel(run_id),
        lambda: manager.delete(run_id),
        cache.clean_cache,
    ):
        with pytest.raises(ReadOnlyError, match="read-only demo"):
            act()


def test_a_heavy_import_fails_loudly():
    program = (
        "import logging, sys; logging.basicConfig()\n"
        "from pages.ui.heavy_imports import refuse_heavy_imports\n"
        "refuse_heavy_imports()\n"
        "try:\n"
        "    import torch\n"
        "except ImportError as error:\n"
        "    print(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all("import torch" in said for said in (done.stdout, done.stderr))


def test_what_is_imported_ahead_exists():
    for name in (*heavy_imports.FIRST, *heavy_imports.LATER):
        assert importlib.util.find_spec(name), f"{name} is gone or was renamed: nothing would be imported ahead"
