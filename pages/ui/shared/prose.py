"""The prose of assets/text."""

from __future__ import annotations

from functools import cache

from lrc_core.paths import assets, start_command

ASSETS = assets()


@cache
def prose(name: str) -> str:
    """A text of assets/text with its lines joined, paragraphs kept; it names the commands that there are here."""
    written = (ASSETS / "text" / f"{name}.md").read_text(encoding="utf-8")
    paragraphs = written.replace("make app", start_command("app")).strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
