"""The prose of assets/text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

ASSETS = Path(__file__).parents[3] / "assets"


@cache
def prose(name: str) -> str:
    """A text of assets/text with its lines joined, paragraphs kept."""
    paragraphs = (ASSETS / "text" / f"{name}.md").read_text(encoding="utf-8").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
