"""What the pages share: numbers as words, navigation, and no heavy imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lrc_core import words
from lrc_core.results.archive import Archive
from pages.ui.shared import state
from pages.ui.shared.frame import PAGES
from tests.factories import run_factory
from tests.pages.conftest import text_of
from tests.tree import ROOT

SCRIPT = """
import sys
from streamlit.testing.v1 import AppTest
PAGES = ("learn", "spectra", "allocate", "watch", "plans", "compare", "talk", "runs", "present")
for page in ("", *(f"pages/{name}.py" for name in PAGES)):
    app = AppTest.from_file("app.py", default_timeout=120)
    if page:
        app.switch_page(page)
    app.run()
    assert not app.exception, page
heavy = sorted({"torch", "transformers", "datasets", "lm_eval"} & set(sys.modules))
assert not heavy, heavy
"""


def test_pages_load_neither_torch_nor_transformers():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("page", list(PAGES))
def test_every_page_stands_on_nothing(open_page, page):
    app = open_page(page)
    assert not app.error
    assert len(app.title) == 1
    linked = {link.proto.label for link in app.get("page_link")}
    if page == "present":
        assert linked == {"Begin on Home"}  # no navigation, no settings
        return
    assert linked >= {info.title for key, info in PAGES.items() if key != "present"}
    assert app.button(key="present_from_here").label == PAGES["present"].title


def test_a_failure_shows_words_and_no_trace(open_page, monkeypatch):

    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(Archive, "done_spectra", broken)
    app = open_page("spectra")
    assert "not be drawn" in text_of(app)
    assert "a secret" not in text_of(app)


def test_links_carry_the_state(open_page):
    app = open_page("compare", model="owner/other", rate="35")
    link = next(link for link in app.get("page_link") if link.proto.label == "Spectra")
    assert "model=owner%2Fother" in link.proto.query_string and "rate=35" in link.proto.query_string


@pytest.mark.parametrize(
    ("value", "shown"), [(0.2, "20 %"), (0.2004, "20 %"), (0.1234, "12.3 %"), (1.0, "100 %"), (None, "–"), (0.0, "0 %")]
)
def test_percent(value, shown):
    assert words.percent(value) == shown


@pytest.mark.parametrize(
    ("share", "digits", "shown"),
    [
        (0.00001, 2, "under 0.01 %"),
        (0.0026, 0, "under 1 %"),
        (0.9997, 1, "over 99.9 %"),
        (0.996, 0, "over 99 %"),
        (0.006, 0, "1 %"),
        (1 - 1e-13, 1, "100 %"),
        (1e-16, 1, "0 %"),
    ],
)
def test_what_is_not_nothing_is_not_called_nothing_nor_what_is_not_all_all(share, digits, shown):
    assert words.percent(share, digits) == shown


@pytest.mark.parametrize(("size", "shown"), [(269_030_016, "269.0"), (51_230, "0.05123"), (1_134_200_000, "1,134")])
def test_megabytes_of_small_models_are_told_apart(size, shown):
    assert words.megabytes(size) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(4, "4 s"), (75, "1 min 15 s"), (3700, "1 h 01 min"), (None, "–"), (float("nan"), "–")]
)
def test_duration(value, shown):
    assert words.duration(value) == shown


def test_sizes_and_counts():
    assert words.data_size(269_030_016) == "269.0 MB"
    assert words.count(134_515_008) == "134.5 M"
    assert words.figure(float("inf")) == "–"
    assert words.with_error(17.314, 0.42) == "17.31 ± 0.42"


def test_kinds_keep_their_path_where_the_last_part_is_ambiguous():
    assert words.kind_labels(("a.out", "b.out", "c.in")) == {"a.out": "a.out", "b.out": "b.out", "c.in": "in"}


def test_a_settings_file_that_cannot_be_written_costs_only_the_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LRC_RUNS", str(tmp_path / "file" / "runs"))
    state.write_settings(model={"source": "x"})
    assert state.read_settings() == {}


@pytest.mark.parametrize(("page", "key"), [("runs", "ru_run"), ("watch", "wa_run"), ("watch", "wa_over")])
def test_what_is_chosen_stays_when_its_label_changes(open_page, store, card, page, key):
    """A browser says what is chosen by the label that it was last told."""
    chosen = run_factory.allocate_run(store, card, keep=0.6, state="running")
    run_factory.train(chosen, card, 0.6, steps=3)
    others = [run_factory.allocate_run(store, card, keep=keep) for keep in (0.7, 0.8)]
    app = open_page(page, **{"wa_run": others[0].id, key: chosen.id})
    told = app.selectbox(key=key).proto.raw_value
    for word in ("cancelling", "cancelled"):
        run_factory.set_state(chosen, word, 3)
        app.run()
        box = app.selectbox(key=key)
        assert box.value == chosen.id
        assert box.proto.set_value and box.proto.raw_value != told, "the browser is told the new label"
        told = box.proto.raw_value
