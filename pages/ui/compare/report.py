"""The report of a finished comparison: two files to download, and the command line that writes the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from lrc_core.errors import LrcError
from lrc_core.escape import escaped
from lrc_core.names import method_label, model_label
from lrc_core.paths import samples_home
from lrc_core.report.build import ReportOptions, command_of, make_report
from lrc_core.report.content import Report
from lrc_core.report.html.page import report_html
from lrc_core.report.pdf.document import report_pdf
from lrc_core.report.sources import Asked, find_sources
from lrc_core.results import comparisons
from lrc_core.results.archive import AnyRun, archive, stamp_of
from lrc_core.runs.spec import CompareSpec, QualitySpec
from lrc_core.runs.store import RunStore
from pages.ui.shared import state
from pages.ui.shared.naming import download, file_name
from pages.ui.shared.prose import prose

REPORTED = CompareSpec | QualitySpec
FILES = (("HTML", ":material/language:"), ("PDF", ":material/picture_as_pdf:"))


def section(views: Sequence[AnyRun], prefix: str, keep: float | None = None) -> None:
    """Title, downloads and command of the newest of these runs that a report can be made of.

    Args:
        views: runs, newest first.
        prefix: of the widgets' keys.
        keep: size that leads, in share kept.
    """
    able = [(view, spec.methods) for view in views if view.done and isinstance(spec := view.spec, REPORTED)]
    view, methods = able[0] if able else (None, ())
    with st.expander("Report: HTML and PDF", icon=":material/summarize:"):
        st.caption(prose("report"))
        if view is None:
            st.markdown("A report is made of a finished comparison or bench; these rows are single measurements.")
            return
        if problem := _problem(view.id, _stamps(view)):
            st.warning(escaped(problem), icon=":material/warning:")
            return
        if len(views) > 1:
            names = ", ".join(map(method_label, methods))
            st.caption(
                f":material/info: It is about one run, of {escaped(names)}; what other runs measured is not in it."
            )
        title = st.text_input(
            "Title", key=f"{prefix}_report_title", max_chars=160, placeholder="Made from the model's name"
        )
        asked, frame = Asked(compare=view.id), _frame(title, keep)
        with st.container(horizontal=True):
            for name, icon in FILES:
                download(
                    f"Report ({name})",
                    _maker(asked, frame, name),
                    file_name("report", title.strip() or model_label(view.spec.model), ending=name.lower()),
                    key=f"{prefix}_report_{name.lower()}",
                    icon=icon,
                    help="Made when you press it; this takes a few seconds.",
                )
        st.code(command_of(asked, frame), language="bash", wrap_lines=True)


def has(view: AnyRun, decomposition: str) -> bool:
    """Whether a comparison's rows are, among others, of a decomposition."""
    spec = view.spec
    known = getattr(spec, "decompositions", (getattr(spec, "decomposition", ""),))
    return decomposition == comparisons.EVERY or decomposition in known


def _stamps(view: AnyRun) -> tuple[tuple[int, int], ...]:
    """What changes when the report could: the result, and the folders of runs."""
    return tuple(stamp_of(path) for path in (view.path / "result.json", RunStore().root, samples_home()))


@st.cache_data(max_entries=32, show_spinner=False)
def _problem(run_id: str, stamps: tuple[tuple[int, int], ...]) -> str:
    """Why there can be no report, "" where there can."""
    try:
        find_sources(Asked(compare=run_id), archive())
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
