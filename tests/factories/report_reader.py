"""Reads a report as a reader does: what its page says, and what stands in which table."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

from lrc_core.report.content import Report, Table
from lrc_core.results.archive import Archive
from lrc_core.runs.store import RunStore

Make = Callable[..., Report]
"""``make(frame, **asked)`` makes a report of what :class:`~lrc_core.report.sources.Asked` takes."""


class Page(HTMLParser):
    """Text of a page without scripts and styles, and all its elements."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self._silent = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._silent = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = ""

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)

    @property
    def text(self) -> str:
        return squeezed("".join(self.parts))


def squeezed(text: str) -> str:
    return "".join(text.split())


def said(text: str) -> str:
    """A text of the content as a reader sees it."""
    text = re.sub(r"\[([^\]]+)\]\(https://[^)\s]+\)", r"\1", text)
    return squeezed(text.replace("**", "").replace("`", ""))


def table_of(report: Report, caption: str) -> Table:
    return next(b for s in report.sections for b in s.blocks if isinstance(b, Table) and b.caption == caption)


def looked_up(stores: tuple[RunStore, RunStore]) -> Archive:
    return Archive(stores, stores[1].root)
