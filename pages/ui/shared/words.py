"""Numbers as people read them, and the prose of assets/text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lrc_core.words import (
    ago,
    count,
    data_size,
    duration,
    figure,
    kind_labels,
    measured,
    percent,
    rounded,
    short_kind,
    significant,
    with_error,
)

ASSETS = Path(__file__).parents[3] / "assets"


@cache
def prose(name: str) -> str:
    """A text of assets/text with its lines joined, paragraphs kept."""
    paragraphs = (ASSETS / "text" / f"{name}.md").read_text(encoding="utf-8").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


__all__ = [
    "ASSETS",
    "ago",
    "count",
    "data_size",
    "duration",
    "figure",
    "kind_labels",
    "measured",
    "percent",
    "prose",
    "rounded",
    "short_kind",
    "significant",
    "with_error",
]
