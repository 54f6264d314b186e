"""The blocks of a report as flowables of a PDF page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reportlab.lib.styles import ParagraphStyle
from reportlab.platypus import CondPageBreak, Flowable, KeepTogether, Paragraph, Spacer, Table

from lrc_core.charts.shapes import Dot, Drawing
from lrc_core.report.content import (
    ESTIMATED,
    Answers,
    BarPart,
    CardEntry,
    Cards,
    Commands,
    Facts,
    Picture,
    Pictures,
    Report,
    Words,
    WrittenAnswer,
)
from lrc_core.report.content import Table as Rows
from lrc_core.report.pdf.drawing import ACCENT, BAD, INK, MUTED, PANEL, PARTS, Figure, MemoryBar, Swatch, color
from lrc_core.report.pdf.fonts import ABSENT, BOLD, LINK, MONO, SANS, marked, markup
from lrc_core.report.pdf.page import WIDTH
from lrc_core.report.pdf.tables import how_words, padded, pdf_table
from lrc_core.report.sections.prose import tied

_LONG = 12  # rows of a table that may begin at the foot of a page
_SMALLEST = 0.46  # points a pixel of a heatmap
_SHORT = 700  # characters of an answer that stands beside another one
_CHUNK = 900  # characters of an answer in one row, so that long answers run on over pages


def style(name: str, size: float = 9.2, **changes: Any) -> ParagraphStyle:
    """A style of paragraph, black on white unless something else is said."""
    base: dict[str, Any] = {
        "fontName": SANS, "fontSize": size, "leading": 1.42 * size, "textColor": color(INK), "spaceAfter": 0.55 * size,
    }  # fmt: skip
    return ParagraphStyle(name, **{**base, **changes})


BODY = style("body")
NOTE = style("note", 8, textColor=color(MUTED))
READING = style("reading", 8.6)
WARNING = style("warning", 9, textColor=color(BAD))
H1 = style("h1", 24, fontName=BOLD, leading=28.5, spaceAfter=7)
H2 = style("h2", 15, fontName=BOLD, spaceBefore=16, spaceAfter=7, keepWithNext=1)
H3 = style("h3", 10.8, fontName=BOLD, spaceBefore=9, spaceAfter=4, keepWithNext=1)
H4 = style("h4", 9.2, fontName=BOLD, spaceAfter=2)
SMALL = style("small", 7.6, spaceAfter=2)
SOURCE = style("source", 6.4, textColor=color(MUTED), spaceAfter=0)
CODE = style("code", 7.4, fontName=MONO, spaceAfter=0)
ROLES = {"plain": BODY, "reading": READING, "note": NOTE, "warning": WARNING}


class Anchor(Flowable):
    """Where an entry of the outline leads."""

    def __init__(self, key: str, title: str) -> None:
        super().__init__()
        self._key, self._title = key, title

    def wrap(self, *_: float) -> tuple[float, float]:
        """It takes no room."""
        return 0.0, 0.0

    def draw(self) -> None:
        """Bookmark this place."""
        self.canv.bookmarkHorizontal(self._key, 0, 24)
        self.canv.addOutlineEntry(self._title, self._key, 0)


def story(report: Report, absent: int) -> list[Any]:
    """All flowables, in order.

    Args:
        absent: characters that no font draws; the last line says so.
    """
    named = f'<font face="{MONO}">{markup(report.source, MONO)}</font>'
    kind = style("kind", 9.4, fontName=BOLD, textColor=color(LINK), spaceBefore=8, spaceAfter=3)
    found: list[Any] = [
        Paragraph("Low-rank compression report", kind),
        Paragraph(markup(report.title, BOLD), H1),
        Paragraph(markup(report.subtitle), style("subtitle", 11, spaceAfter=3)),
        Paragraph(f"{markup(report.made)} · run {named}{report.more}", NOTE),
    ]
    links = [
        f'{number} <a href="#{section.key}" color="{LINK}">{markup(section.title)}</a>'
        for number, section in enumerate(report.sections, start=1)
    ]
    found.append(Paragraph(" &nbsp;&nbsp; ".join(links), style("contents", 8.6, spaceBefore=3, textColor=color(MUTED))))
    for number, section in enumerate(report.sections, start=1):
        head = f'<font color="{ACCENT}">{number}</font>&nbsp; {markup(section.title, BOLD)}'
        opening: list[Any] = [Anchor(section.key, section.title), Paragraph(head, H2)]
        drawn = [(type(block), _DRAWN[type(block)](block)) for block in section.blocks]
        while drawn and drawn[0][0] is Words:
            opening += drawn.pop(0)[1]
        # A heading never stands alone, nor an introduction without the picture that it introduces.
        if drawn and (drawn[0][0] in (Cards, Pictures) or len(opening) == 2):
            first = drawn[0][1].pop(0)
            opening += first._content if isinstance(first, KeepTogether) else [first]
        found += [CondPageBreak(110), KeepTogether(opening)]
        for _, flowables in drawn:
            found += flowables
    if absent:
        said = f"Characters that no font at hand has stand as {ABSENT} ({absent} of them); the HTML file shows them."
        found.append(Paragraph(markup(said), NOTE))
    return found


def _words(block: Words) -> list[Any]:
    return [Paragraph(marked(block.text), ROLES[block.role])]


def _boxed(rows: Sequence[Sequence[Any]], widths: Sequence[float], *more: tuple[Any, ...]) -> Table:
    """A table that only lays out."""
    commands = [("VALIGN", (0, 0), (-1, -1), "TOP"), *padded(left=0, right=8), *more]
    return Table(rows, colWidths=list(widths), style=commands, hAlign="LEFT")


def _panel(rows: Sequence[Sequence[Any]], widths: Sequence[float], corner: int = 5, **sides: float) -> Table:
    """The same on a ground of its own."""
    ground = [("BACKGROUND", (0, 0), (-1, -1), color(PANEL)), ("ROUNDEDCORNERS", [corner] * 4)]
    return _boxed(rows, widths, *ground, *padded(**sides))


def _in_rows(cells: list[Any], each: int) -> list[list[Any]]:
    """Cells row by row, the last one filled up."""
    cells = cells + [""] * (-len(cells) % each)
    return [cells[start : start + each] for start in range(0, len(cells), each)]


def _facts(block: Facts) -> list[Any]:
    each = min(5, len(block.entries))
    value = style("value", 13.5 if each > 3 else 11, fontName=BOLD, spaceAfter=1)
    cells: list[Any] = [
        [
            Paragraph(markup(fact.name), style("name", 7.4, textColor=color(MUTED), spaceAfter=1)),
            Paragraph(markup(tied(fact.value), BOLD), value),
            Paragraph(
                marked(fact.note) + (f"<br/>{how_words(fact.how).strip()}" if fact.how else ""),
                style("fine", 7, textColor=color(MUTED), spaceAfter=0),
            ),
        ]
        for fact in block.entries
    ]
    box = _panel(_in_rows(cells, each), [WIDTH / each] * each, left=9, top=8, bottom=8)
    return [Spacer(1, 3), box, Spacer(1, 8)]


def _rows(block: Rows) -> list[Any]:
    if block.detail:
        return []
    caption = Paragraph(markup(block.caption, BOLD), H3)
    long = len(block.lines) > _LONG  # begins where it stands and goes on, rather than leave half a page empty
    found: list[Any] = (
        [
            CondPageBreak(130),
            Paragraph(markup(block.caption, BOLD), style("long", 10.8, fontName=BOLD, spaceBefore=9, spaceAfter=4)),
            pdf_table(block),
        ]
        if long
        else [caption, pdf_table(block)]
    )
    if block.note:
        found += [Spacer(1, 4), Paragraph(marked(block.note), NOTE)]
    return found


def _pictures(block: Pictures) -> list[Any]:
    each = max(1, min(block.columns, len(block.items)))
    if block.links is not None:  # letters must stay legible
        each = max(1, min(each, int(WIDTH / (_SMALLEST * block.items[0].drawing.width + 10))))
    room = WIDTH / each
    largest = 0.72 if block.links is None else 0.5
    cells: list[Any] = [_picture(item, room - 10, largest) for item in block.items]
    rows = _in_rows(cells, each)
    if block.legend:
        key: Any = _boxed([[_legend(block)]], [WIDTH], *padded(bottom=2))
    else:
        key = Swatch(block.ramp)
    first = KeepTogether([Paragraph(markup(block.title, BOLD), H3), key, _boxed([rows[0]], [room] * each)])
    return [first, *(_boxed([row], [room] * each) for row in rows[1:]), Spacer(1, 4)]


def _legend(block: Pictures) -> Any:
    parts: list[Any] = []
    for entry in block.legend:
        dot = Drawing(12, 12, (Dot(6, 6, 8, entry.symbol, entry.color),))
        parts += [Figure(dot, 9), Paragraph(markup(entry.label), SMALL)]
    each = min(5, len(block.legend))
    return _boxed(_in_rows(parts, 2 * each), [12, WIDTH / 5 - 16] * each, *padded(top=0, bottom=0, right=2))


def _picture(item: Picture, width: float, largest: float) -> list[Any]:
    found: list[Any] = [Paragraph(markup(tied(item.title), BOLD), H4)] if item.title else []
    found += (
        [Paragraph(markup(tied(item.note)), style("under", 7, textColor=color(MUTED), spaceAfter=3))]
        if item.note
        else []
    )
    found.append(Figure(item.drawing, width, largest))
    found += [Spacer(1, 3), Paragraph(marked(item.reading), SMALL)] if item.reading else []
    found += [_source(item.source)] if item.source else []
    return found


def _source(run_id: str) -> Paragraph:
    return Paragraph(f'run <font face="{MONO}">{markup(run_id, MONO)}</font>', SOURCE)


def _answers(block: Answers) -> list[Any]:
    prompt = Paragraph(
        f'<font color="{MUTED}" size="7.4">Prompt</font><br/>{_lines(block.prompt)}', style("prompt", 9, spaceAfter=0)
    )
    head = [Paragraph(markup(block.title, BOLD), H3), Paragraph(marked(block.note), NOTE)]
    if len(block.prompt) < _CHUNK:
        head += [_panel([[prompt]], [WIDTH], left=9, top=6, bottom=7), Spacer(1, 6)]
        found: list[Any] = [KeepTogether(head)]
    else:
        found = [*head, prompt, Spacer(1, 6)]
    if len(block.entries) > 1 and all(len(entry.text) < _SHORT for entry in block.entries):
        return [KeepTogether([*head, *_abreast(block)])]
    for entry in block.entries:
        answer = _answer(entry)
        found += [answer if len(entry.text) > _CHUNK else KeepTogether(answer), Spacer(1, 7)]
    return found


def _abreast(block: Answers) -> list[Any]:
    """Short answers two by two: all of them stand on one page, where they can be compared."""
    wide = WIDTH / 2
    rows = _in_rows([[_answer(entry, wide - 12)] for entry in block.entries], 2)
    tight = padded(top=0, bottom=0)
    return [part for row in rows for part in (_boxed([row], [wide, wide], *tight), Spacer(1, 6))]


def _lines(text: str) -> str:
    return "<br/>".join(markup(line) for line in text.split("\n"))


def _chunks(text: str) -> list[str]:
    """Pieces that fit into a row, broken at spaces where there are any."""
    found, rest = [], text
    while len(rest) > _CHUNK or rest.count("\n") > 30:
        lines = rest.split("\n")
        most = min(_CHUNK, len("\n".join(lines[:30])))
        cut = rest.rfind(" ", most // 2, most)
        cut = cut if cut > 0 else most
        found.append(rest[:cut])
        rest = rest[cut:]
    return [*found, rest]


def _answer(entry: WrittenAnswer, width: float = WIDTH) -> Table:
    rows: list[list[Any]] = [[Paragraph(markup(entry.name, BOLD), H4)]]
    rows += [[Paragraph(_lines(chunk), style("text", 8.8, spaceAfter=0))] for chunk in _chunks(entry.text)]
    foot = [part for part in (entry.measured,) if part]
    last: list[Any] = [Paragraph(markup(part), SMALL) for part in foot]
    rows.append([[*last, *([_source(entry.source)] if entry.source else [])] or ""])
    mark = ("LINEBEFORE", (0, 0), (0, -1), 2.5, color(entry.color))
    return _boxed(rows, [width], mark, *padded(left=9, top=1, bottom=1))


def _cards(block: Cards) -> list[Any]:
    found: list[Any] = []  # no space first: a heading is kept with the very next thing, which would be the space
    wide = WIDTH / 2
    for start in range(0, len(block.entries), 2):
        pair = block.entries[start : start + 2]
        row: list[Any] = [_card(entry, block.largest, wide - 24) for entry in pair] + [""] * (2 - len(pair))
        lines = [("LINEABOVE", (at, 0), (at, 0), 2.5, color(entry.color)) for at, entry in enumerate(pair)]
        found += [_boxed([row], [wide, wide], *lines, *padded(top=6, right=20)), Spacer(1, 6)]
    return found


def _card(entry: CardEntry, largest: int, width: float) -> list[Any]:
    parts = [Paragraph(_part(part), SMALL) for part in entry.parts]
    lines = [Paragraph(marked(line), style("card", 8.6, spaceAfter=3)) for line in entry.lines]
    note = [Paragraph(marked(entry.note), style("behind", 7, textColor=color(MUTED)))] if entry.note else []
    total = Paragraph(marked(entry.total), style("total", 8.8, spaceAfter=3))
    return [
        Paragraph(markup(entry.name, BOLD), H4),
        total,
        MemoryBar(entry.parts, largest, width),
        Spacer(1, 2),
        *parts,
        Spacer(1, 3),
        *lines,
        *note,
    ]


def _part(part: BarPart) -> str:
    """A part of the memory with its colour; an estimated one is hatched here too."""
    sign = "▨" if part.how == ESTIMATED else "■"
    chip = f'<font face="{SANS}" color="{PARTS.get(part.key, MUTED)}">{sign}</font>'
    return (
        f'{chip} {markup(part.name)} <font face="{BOLD}">{markup(tied(part.words), BOLD)}</font>{how_words(part.how)}'
    )


def _commands(block: Commands) -> list[Any]:
    found: list[Any] = []
    for number, entry in enumerate(block.entries, start=1):
        count = f"{number}. " if len(block.entries) > 1 else ""
        title = f'{count}<font face="{BOLD}">{markup(entry.title, BOLD)}</font>'
        if entry.source:
            title += (
                f' <font size="7" color="{MUTED}">run <font face="{MONO}">{markup(entry.source, MONO)}</font></font>'
            )
        line = Paragraph(markup(entry.line, MONO), CODE)
        box = _panel([[line]], [WIDTH], 4, left=8, top=5, bottom=6)
        found.append(KeepTogether([Paragraph(title, style("command", 8.8, spaceAfter=2)), box, Spacer(1, 6)]))
    return found


_DRAWN: dict[type, Callable[[Any], list[Any]]] = {
    Words: _words,
    Facts: _facts,
    Rows: _rows,
    Pictures: _pictures,
    Answers: _answers,
    Cards: _cards,
    Commands: _commands,
}
