"""The report of finished comparisons: two files to download, and the command line that writes the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from lrc_core.errors import LrcError
from lrc_core.escape import escaped
from lrc_core.names import model_label
from lrc_core.paths import samples_home
from lrc_core.report.build import ReportOptions, command_of, make_report
from lrc_core.report.content import Report
from lrc_core.report.html.page import report_html
from lrc_core.report.pdf.document import report_pdf
from lrc_core.report.sources import Asked, find_sources
from lrc_core.results.archive import AnyRun, archive, stamp_of
from lrc_core.runs.store import RunStore
from pages.ui.shared import state
from pages.ui.shared.naming import download, file_name
from pages.ui.shared.prose import prose

FILES = (("HTML", ":material/language:"), ("PDF", ":material/picture_as_pdf:"))


def section(views: Sequence[AnyRun], prefix: str, keep: float | None = None) -> None:
    """Title, downloads and command of a report of these runs.

    Args:
        views: runs that measured alike; of a cell that several measured, the newest counts, as in the tables.
        prefix: of the widgets' keys.
        keep: size that leads, in share kept.
    """
    done = sorted((view for view in views if view.done), key=lambda view: (view.sample, -view.status.created_at))
    with st.expander("Report: HTML and PDF", icon=":material/summarize:"):
        st.caption(prose("report"))
        if not done:
            st.markdown("A report is made of finished runs; nothing here is finished yet.")
            return
        asked = Asked(compare=tuple(view.id for view in done))
        if problem := _problem(asked, _stamps(done)):
            st.warning(escaped(problem), icon=":material/warning:")
            return
        if len(done) < len(views):
            st.caption(":material/info: What is still being measured is not in it.")
        title = st.text_input(
            "Title", key=f"{prefix}_report_title", max_chars=160, placeholder="Made from the model's name"
        )
        frame = _frame(title, keep)
        with st.container(horizontal=True):
            for name, icon in FILES:
                download(
                    f"Report ({name})",
                    _maker(asked, frame, name),
                    file_name("report", title.strip() or model_label(done[0].spec.model), ending=name.lower()),
                    key=f"{prefix}_report_{name.lower()}",
                    icon=icon,
                    help="Made when you press it; this takes a few seconds.",
                )
        st.code(command_of(asked, frame), language="bash", wrap_lines=True)


def _stamps(views: Sequence[AnyRun]) -> tuple[tuple[int, int], ...]:
    """What changes when the report could: the results, and the folders of runs."""
    results = (view.path / "result.json" for view in views)
    return tuple(stamp_of(path) for path in (*results, RunStore().root, samples_home()))


@st.cache_data(max_entries=32, show_spinner=False)
def _problem(asked: Asked, stamps: tuple[tuple[int, int], ...]) -> str:
    """Why there can be no report, "" where there can."""
    try:
        find_sources(asked, archive())
    except LrcError as error:
        return str(error)
    return ""


def _frame(title: str, keep: float | None) -> ReportOptions:
    """Title and target, with the price that the user set for the card."""
    price, currency = state.price()
    return ReportOptions(title.strip(), keep, price=price, currency=currency)


def _maker(asked: Asked, frame: ReportOptions, name: str) -> Any:
    """Makes a file when it is asked for, from the runs as they are then."""

    def make() -> bytes:
        report: Report = make_report(asked, frame, archive())
        return report_html(report).encode() if name == "HTML" else report_pdf(report)

    return make
