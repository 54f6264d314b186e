"""Tables of a report on a PDF page: as wide as the page, heads again on every page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reportlab.lib.styles import ParagraphStyle
from reportlab.platypus import LongTable, Paragraph

from lrc_core.report.content import ESTIMATED, MEASURED, Column, Table, TableRow
from lrc_core.report.pdf.drawing import ACCENT, BAD, INK, LINE, MUTED, PANEL, color
from lrc_core.report.pdf.fonts import BOLD, MONO, SANS, markup, width_of
from lrc_core.report.pdf.page import WIDTH
from lrc_core.report.sections.prose import tied

_SIZE, _PAD = 7.2, 3.2


def how_words(how: str) -> str:
    """How a number came about, small and in its own colour, as markup."""
    if not how:
        return ""
    words = f"▨ {how}" if how == ESTIMATED else how
    paint = ACCENT if how == MEASURED else MUTED
    return f' <font size="6.2" color="{paint}">{words}</font>'


def _style(name: str, column: Column, **changes: Any) -> ParagraphStyle:
    base = {
        "fontName": MONO if column.mono else SANS,
        "fontSize": _SIZE - 1.3 if column.mono else _SIZE,
        "leading": 1.3 * _SIZE,
        "alignment": 2 if column.numeric else 0,
        "textColor": color(INK),
    }
    return ParagraphStyle(name, **{**base, **changes})


def pdf_table(block: Table) -> LongTable:
    """A table that goes on over pages where it must."""
    heads = [
        Paragraph(
            markup(column.label, BOLD) + (f"<br/>{how_words(column.how).strip()}" if column.how else ""),
            _style("head", column, fontName=BOLD, fontSize=_SIZE),
        )
        for column in block.columns
    ]
    rows = [heads, *(_row(line, block.columns) for line in block.lines)]
    looks: list[tuple[Any, ...]] = [
        ("VALIGN", (0, 0), (-1, 0), "BOTTOM"),
        ("VALIGN", (0, 1), (-1, -1), "TOP"),
        ("BACKGROUND", (0, 0), (-1, 0), color(PANEL)),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, color(LINE)),
        *padded(left=_PAD, right=_PAD, top=2.4, bottom=2.8),
    ]
    for number, line in enumerate(block.lines, start=1):
        if line.state and len(block.columns) > 3 and not any(cell.text for cell in line.cells[3:]):
            looks.append(("SPAN", (2, number), (-1, number)))
    return LongTable(rows, colWidths=_widths(block), style=looks, repeatRows=1, hAlign="LEFT")


def _row(line: TableRow, columns: Sequence[Column]) -> list[Any]:
    cells: list[Any] = []
    for number, (cell, column) in enumerate(zip(line.cells, columns, strict=True)):
        text = markup(
            cell.text if column.mono else tied(cell.text), MONO if column.mono else BOLD if number == 0 else SANS
        )
        if number == 0 and line.color:
            text = f'<font face="{SANS}" color="{line.color}">■</font> {text}'
        if cell.mark:
            text += f'<super rise="2.2" size="5.6">{markup(cell.mark)}</super>'
        changes: dict[str, Any] = {"fontName": BOLD} if number == 0 and not column.mono else {}
        if line.state and number == 2 and not line.cells[-1].text:
            changes = {"alignment": 0, "textColor": color(BAD if line.state == "failed" else MUTED)}
        cells.append(Paragraph(text, _style("cell", column, **changes)))
    return cells


def _widths(block: Table) -> list[float]:
    """Every column as wide as it needs; what is too much is taken from those that can break their lines."""
    wanted, least = [], []
    for number, column in enumerate(block.columns):
        lines = [line for line in block.lines if not (line.state and number >= 2)] or list(block.lines)
        base = MONO if column.mono else BOLD if number == 0 else SANS
        size = _SIZE - 1.3 if column.mono else _SIZE
        texts = [line.cells[number].text + line.cells[number].mark for line in lines]
        more = 2 * _PAD + 1 + (9 if number == 0 and any(line.color for line in lines) else 0)
        full = max((width_of(text, size, base) for text in texts), default=0.0)
        words = [word for text in texts for word in text.split()] or [""]
        head = max(width_of(word, _SIZE, BOLD) for word in column.label.split() or [""])
        head = max(head, 34.0 if column.how else 0.0)
        wanted.append(max(full, head) + more)
        narrow = max(width_of(word, size, base) for word in words)
        # Numbers and names stay on one line; sentences and commands may break.
        stays = column.numeric or full < 100
        least.append(max(full if stays else min(narrow, 90.0), head) + more)
    spare = WIDTH - sum(least)
    if spare <= 0:
        return [WIDTH * width / sum(least) for width in least]
    room = [max(0.0, width - low) for width, low in zip(wanted, least, strict=True)]
    if sum(room) <= spare:
        extra = (WIDTH - sum(wanted)) / len(wanted) if sum(wanted) < WIDTH else 0.0
        return [width + extra for width in wanted]
    return [low + spare * more / sum(room) for low, more in zip(least, room, strict=True)]


def padded(**sides: float) -> list[tuple[Any, ...]]:
    """Commands that leave so many points free at the sides of all cells: ``left``, ``right``, ``top``, ``bottom``."""
    return [(f"{side.upper()}PADDING", (0, 0), (-1, -1), points) for side, points in sides.items()]
