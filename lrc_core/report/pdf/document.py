"""A report as a PDF, with reportlab alone: real text, vector charts, outline, page numbers. No browser, no torch."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from lrc_core.errors import SettingsError
from lrc_core.report.content import Report, visible_texts
from lrc_core.report.pdf.fonts import BOLD, SANS, absent_in, runs, width_of
from lrc_core.report.pdf.page import BOTTOM, PAGE, SIDE, TOP, WIDTH


def report_pdf(report: Report) -> bytes:
    """The whole file.

    Raises:
        SettingsError: reportlab is not installed.
    """
    try:
        from lrc_core.report.pdf.blocks import story
    except ImportError as error:
        raise SettingsError(
            f"A PDF needs the package reportlab, which cannot be loaded: {error}.",
            "Install it (`pip install reportlab`), or make the HTML file alone.",
        ) from error

    absent = absent_in([*visible_texts(report), report.title])

    def built(pages: int) -> tuple[bytes, int]:
        buffer = io.BytesIO()
        document = _document(report, buffer, pages)
        document.build(story(report, absent))
        return buffer.getvalue(), int(document.page)

    return built(built(0)[1])[0]  # twice, because every page says how many there are


def _document(report: Report, buffer: io.BytesIO, pages: int) -> Any:
    from reportlab.lib.pagesizes import A4
    from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate

    from lrc_core.report.sections.prose import printable

    document = BaseDocTemplate(
        buffer,
        pagesize=A4,
        title=" ".join(printable(report.title).split()),
        author="Low-rank compression explorer",
        subject=printable(report.subtitle),
        creator="lrc report",
        lang="en",
        pageCompression=1,
    )
    frame = Frame(SIDE, BOTTOM, WIDTH, PAGE[1] - TOP - BOTTOM, 0, 0, 0, 0, id="page")
    document.addPageTemplates([PageTemplate(id="all", frames=[frame], onPage=_furniture(report, pages))])
    return document


def _furniture(report: Report, pages: int) -> Callable[[Any, Any], None]:
    """What stands at the foot of every page, and above the title."""

    def draw(canvas: Any, document: Any) -> None:
        from lrc_core.report.pdf.drawing import ACCENT, LINE, MUTED, color

        canvas.saveState()
        if document.page == 1:
            x = SIDE
            canvas.setFillColor(color(ACCENT))
            for wide, strong in ((36, 1.0), (17, 0.55), (8, 0.3)):
                canvas.setFillAlpha(strong)
                canvas.roundRect(x, PAGE[1] - 46, wide, 5, 2, stroke=0, fill=1)
                x += wide + 4
            canvas.setFillAlpha(1)
        canvas.setStrokeColor(color(LINE))
        canvas.setLineWidth(0.6)
        canvas.line(SIDE, 40, PAGE[0] - SIDE, 40)
        canvas.setFillColor(color(MUTED))
        _line(canvas, _short(report.title, 78), SIDE, BOLD)
        end = f"run {report.source}{report.more}   ·   {document.page} of {pages}"
        _line(canvas, end, PAGE[0] - SIDE - width_of(end, 7.5), SANS)
        canvas.restoreState()

    return draw


def _line(canvas: Any, text: str, x: float, base: str) -> None:
    for font, part in runs(text, base):
        canvas.setFont(font, 7.5)
        canvas.drawString(x, 28, part)
        x += canvas.stringWidth(part, font, 7.5)


def _short(text: str, most: int) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1] + "…"
