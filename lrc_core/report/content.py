"""What a report says, before anybody draws it: sections of blocks. HTML file and PDF are made from nothing else.

Text may hold ``**set off**``, `` `code` `` and ``[words](https://address)``, and nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from lrc_core.charts.shapes import Drawing

MEASURED, COUNTED, ESTIMATED = "measured", "counted", "estimated"
"""How a number came about; each looks different wherever it is shown."""


@dataclass(frozen=True)
class Words:
    """A paragraph.

    Attributes:
        role: ``plain``, ``reading`` (a sentence under a chart), ``note`` or ``warning``.
    """

    text: str
    role: str = "plain"


@dataclass(frozen=True)
class Fact:
    """One figure in large type."""

    name: str
    value: str
    note: str = ""
    how: str = ""


@dataclass(frozen=True)
class Facts:
    """Figures beside each other."""

    entries: tuple[Fact, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        label: its head, with the unit.
        numeric: right-aligned.
        how: how its numbers came about, "" for names.
        mono: names of runs.
    """

    label: str
    numeric: bool = False
    how: str = ""
    mono: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        sort: what it is sorted by; None sorts last.
        mark: signs of significance behind the value.
    """

    text: str
    sort: float | str | None = None
    mark: str = ""


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        key: the method it belongs to and its target, "" where it belongs to none.
        color: of the method.
        state: ``failed`` or ``missing``; "" where it was measured.
    """

    cells: tuple[Cell, ...]
    key: tuple[str, str] = ("", "")
    color: str = ""
    state: str = ""


@dataclass(frozen=True)
class Table:
    """A table that can be sorted.

    Attributes:
        caption: what it holds.
        note: what its signs mean.
        detail: the figures of a chart, folded away on a screen and left out of print.
    """

    caption: str
    columns: tuple[Column, ...]
    lines: tuple[TableRow, ...]
    note: str = ""
    detail: bool = False


@dataclass(frozen=True)
class Picture:
    """One drawing of a row of drawings.

    Attributes:
        alt: what it shows, for those who do not see it.
        title: above it.
        note: below the title, small.
        key: as of :class:`TableRow`, where all of it belongs to one plan.
        reading: a sentence under it, computed from what it shows.
        source: run id.
    """

    drawing: Drawing
    alt: str
    title: str = ""
    note: str = ""
    key: tuple[str, str] = ("", "")
    reading: str = ""
    source: str = ""


@dataclass(frozen=True)
class LegendEntry:
    """One entry of a legend: name, colour, symbol and method."""

    label: str
    color: str
    symbol: str
    key: str


@dataclass(frozen=True)
class Pictures:
    """Charts or heatmaps beside each other.

    Attributes:
        columns: how many stand beside each other on paper.
        legend: of charts.
        ramp: the label of the colour ramp of heatmaps, "" for charts.
        table: the figures behind them.
        links: of linked heatmaps what every cell is (see :mod:`lrc_core.report.drawing.heatmap`), None for charts.
    """

    title: str
    items: tuple[Picture, ...]
    columns: int = 2
    legend: tuple[LegendEntry, ...] = ()
    ramp: str = ""
    table: Table | None = None
    links: Any = None


@dataclass(frozen=True)
class WrittenAnswer:
    """What one model wrote.

    Attributes:
        measured: figures measured while it wrote.
        source: run id.
    """

    name: str
    color: str
    text: str
    measured: str = ""
    source: str = ""
    key: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Answers:
    """Answers of several models to one prompt."""

    title: str
    prompt: str
    note: str
    entries: tuple[WrittenAnswer, ...]


@dataclass(frozen=True)
class BarPart:
    """A part of a bar: its name, size in bytes, words and how it came about."""

    key: str
    name: str
    bytes: int
    words: str
    how: str


@dataclass(frozen=True)
class CardEntry:
    """One model's card.

    Attributes:
        parts: of its memory.
        lines: sentences.
        note: what stands behind them, with run ids.
    """

    name: str
    color: str
    total: str
    parts: tuple[BarPart, ...]
    lines: tuple[str, ...]
    note: str
    key: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Cards:
    """Cards on one scale.

    Attributes:
        largest: bytes that the full width of a bar stands for.
    """

    entries: tuple[CardEntry, ...]
    largest: int


@dataclass(frozen=True)
class Command:
    """A command line that makes something again, with the run that it made."""

    title: str
    line: str
    source: str = ""


@dataclass(frozen=True)
class Commands:
    """Command lines, ready to copy."""

    entries: tuple[Command, ...]


Block = Words | Facts | Table | Pictures | Answers | Cards | Commands


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        key: its anchor.
    """

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Switch:
    """Something that can be switched off on a screen: a method or a target."""

    key: str
    label: str
    color: str = ""


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        title: of the report.
        subtitle: model, decomposition and run in one line.
        made: when, in words.
        source: the run that it is mainly about.
        beside: how many more it is about.
        methods: methods in it, for switching them off.
        targets: sizes in it, likewise.
    """

    title: str
    subtitle: str
    made: str
    source: str
    methods: tuple[Switch, ...]
    targets: tuple[Switch, ...]
    sections: tuple[Section, ...] = field(default_factory=tuple)
    beside: int = 0

    @property
    def more(self) -> str:
        """Behind the run: `` and 3 more``."""
        return f" and {self.beside} more" if self.beside else ""


_HIDDEN = ("key", "color", "state", "role", "how", "symbol", "largest", "links")


def visible_texts(part: Any, *, detail: bool = False) -> Iterator[str]:
    """Every text of a report that a reader sees, markup included; drawings are left out.

    Args:
        detail: also what is left out of print.
    """
    if isinstance(part, str):
        if part:
            yield part
    elif isinstance(part, tuple):
        for entry in part:
            yield from visible_texts(entry, detail=detail)
    elif isinstance(part, Table) and part.detail and not detail:
        return
    elif is_dataclass(part) and not isinstance(part, Drawing):
        for info in fields(part):
            if info.name not in (*_HIDDEN, "sort", "alt", "methods", "targets"):
                yield from visible_texts(getattr(part, info.name), detail=detail)
