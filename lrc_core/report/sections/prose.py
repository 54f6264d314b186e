"""Texts of a report."""

from __future__ import annotations

import re
from functools import cache

from lrc_core.paths import assets

_TEXTS = assets() / "text" / "report"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
_UNITS = re.compile(r"(?<=\d) (?=(?:%|×|[kMGT]?B|€|tokens?)(?!\w))|(?<=±) (?=\d)")
_PAPER = re.compile(r"arXiv (\d{4}\.\d{4,5})")


@cache
def _read(name: str) -> tuple[str, ...]:
    paragraphs = (_TEXTS / f"{name}.md").read_text(encoding="utf-8").strip().split("\n\n")
    return tuple(" ".join(paragraph.split()) for paragraph in paragraphs)


def report_prose(name: str, /, **values: str) -> tuple[str, ...]:
    """The paragraphs of a text of ``assets/text/report`` with values put in."""
    return tuple(paragraph.format(**values) if values else paragraph for paragraph in _read(name))


def tied(text: str) -> str:
    """Numbers stay on one line with their units and errors."""
    return _UNITS.sub("\u00a0", text)


def with_papers(text: str) -> str:
    """Papers of arXiv become links."""
    return _PAPER.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def p_words(p: float) -> str:
    """A p-value as people read it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def printable(text: str) -> str:
    """Without control characters, which neither HTML nor a PDF can hold."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
