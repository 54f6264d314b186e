"""``lrc report``: finished comparisons as one HTML file that needs no network, and as a PDF."""

from __future__ import annotations

import argparse
from pathlib import Path

from lrc_core.cli.output import answer, print_files
from lrc_core.errors import SettingsError
from lrc_core.files import write_atomic
from lrc_core.report.build import ReportOptions, make_report
from lrc_core.report.html.page import report_html
from lrc_core.report.pdf.document import report_pdf
from lrc_core.report.sources import Asked


def report(arguments: argparse.Namespace) -> None:
    """``lrc report``: ``{"run_id", "title", "files": [{"path", "bytes"}]}``. Nothing is written unless all is made."""
    asked = Asked(
        arguments.model or "",
        *(tuple(named or ()) for named in (arguments.compare, arguments.plans, arguments.answers)),
    )
    frame = ReportOptions(
        title=arguments.title,
        keep=arguments.keep,
        context=arguments.context,
        sequences=arguments.requests,
        price=arguments.price,
        currency=arguments.currency,
    )
    made = make_report(asked, frame)
    html, pdf = arguments.html, arguments.pdf
    if not html and not pdf:
        html, pdf = f"report-{made.source}.html", f"report-{made.source}.pdf"
    if html and pdf and Path(html).expanduser().absolute() == Path(pdf).expanduser().absolute():
        raise SettingsError(f"--html and --pdf both name {html}.", "Give them different names.")
    ways = ((html, lambda: report_html(made).encode()), (pdf, lambda: report_pdf(made)))
    files = [(Path(name).expanduser().absolute(), make()) for name, make in ways if name]
    for path, content in files:
        write_atomic(path, content)
    written = [{"path": str(path), "bytes": len(content)} for path, content in files]
    answer(arguments, {"run_id": made.source, "title": made.title, "files": written}, print_files)
