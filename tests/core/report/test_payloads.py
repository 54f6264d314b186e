"""Names from outside in the files that are taken along: report and film as HTML, tables as CSV and Markdown."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from lrc_core.charts.film import film_of
from lrc_core.charts.film_html import film_html
from lrc_core.report.build import ReportOptions, make_report
from lrc_core.report.content import Report
from lrc_core.report.html.page import report_html
from lrc_core.report.sources import Asked
from lrc_core.results.archive import Archive
from lrc_core.runs.spec import AllocateSpec
from lrc_core.runs.store import RunStore
from tests.factories import run_factory, table_factory
from tests.factories.payload_store import PAYLOAD, fill
from tests.factories.payloads import EVIL


class Found(HTMLParser):
    """Scripts, handlers, frames and addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts, self.handlers, self.frames, self.addresses = 0, [], [], []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.frames += [tag] if tag in ("iframe", "object", "embed", "base", "form") else []
        for name, value in attrs:
            self.handlers += [name] if name.startswith("on") else []
            if name in ("href", "src", "action", "data", "xlink:href", "srcset", "content"):
                self.addresses.append(value or "")


def make(store: RunStore, compared: str, title: str = "") -> Report:
    return make_report(Asked(compare=(compared,)), ReportOptions(title, None), Archive((store,)))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Report and film, of plain runs and of poisoned ones."""
    folder: Path = tmp_path_factory.mktemp("payloads")
    bad, good = RunStore(folder / "bad"), RunStore(folder / "good")
    ids = fill(bad, folder / "plans")
    card = run_factory.make_card()
    plain = table_factory.compare_run(good, card)
    learned = run_factory.allocate_run(good, card)
    films = []
    for store, run_id in ((good, learned.id), (bad, ids["learned"])):
        view = Archive((store,)).require(run_id, AllocateSpec)
        films.append(film_html(film_of(view.run)))
    return {
        "report": (report_html(make(good, plain.id)), report_html(make(bad, ids["compared"], PAYLOAD[:150]))),
        "film": (films[0], films[1]),
    }


@pytest.mark.parametrize("name", ["report", "film"])
def test_a_file_takes_no_name_for_more_than_a_name(pages: dict[str, tuple[str, str]], name: str) -> None:
    plain, poisoned = (Found(page) for page in pages[name])
    assert poisoned.scripts == plain.scripts and poisoned.frames == plain.frames
    assert poisoned.handlers == plain.handlers
    assert not [address for address in poisoned.addresses if EVIL in address or address.startswith("javascript:")]


def test_the_payloads_are_in_the_report(pages: dict[str, tuple[str, str]]) -> None:
    assert EVIL in pages["report"][1] and EVIL not in pages["report"][0]
