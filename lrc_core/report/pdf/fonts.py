"""Typefaces of the PDF: Source Sans, that of the app, embedded so that it looks the same everywhere; Courier for
commands; and for East Asian text, which both lack, the reader's own fonts by their standard names."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from functools import cache
from itertools import groupby

from lrc_core.charts.theme import LIGHT
from lrc_core.report.sections.prose import printable, tied

SANS, BOLD, MONO = "SourceSansPro", "SourceSansPro-Bold", "Courier"
LINK = LIGHT["link-color"]
ABSENT = "◊"
"""Stands for a character that no font at hand has."""
_COURIER = frozenset(range(0x20, 0x7F))
"""What every reader's Courier has; the rest of a command (a file's name, say) is in Source Sans."""
_EAST = (
    ("HYSMyeongJo-Medium", re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")),
    ("HeiseiKakuGo-W5", re.compile(r"[\u3040-\u30ff\u31f0-\u31ff]")),
    ("STSong-Light", re.compile(r"[\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]")),
)
_SPLIT = re.compile(r"(\[[^\]]+\]\(https://[^)\s]+\)|`[^`]+`|\*\*.+?\*\*)")


@cache
def _covered() -> dict[str, frozenset[int]]:
    """Characters of the fonts. The first call makes all of them known."""
    from font_source_sans_pro import font_files_ttf
    from reportlab.lib.fonts import addMapping
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfbase.ttfonts import TTFont

    found = {MONO: _COURIER}
    for name in (SANS, BOLD):
        font = TTFont(name, font_files_ttf[name.replace("-", "")])
        pdfmetrics.registerFont(font)
        found[name] = frozenset(font.face.charToGlyph)
    for name, _ in _EAST:
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    for name in (SANS, BOLD, MONO, *(name for name, _ in _EAST)):
        for bold in (0, 1):
            for italic in (0, 1):
                addMapping(name, bold, italic, BOLD if bold and name == SANS else name)
    return found


def font_of(char: str, base: str) -> str:
    """The font that draws a character; "" where none does."""
    covered = _covered()
    if ord(char) > 0xFFFF:  # reportlab writes these so that no reader can copy them
        return ""
    for name in (base, SANS):
        if ord(char) in covered[name]:
            return name
    return next((name for name, pattern in _EAST if pattern.match(char)), "")


def runs(text: str, base: str = SANS) -> list[tuple[str, str]]:
    """A text as (font, part) pairs; characters that nothing draws become ``ABSENT``."""
    drawn = []
    for char in printable(text).replace("\n", " ").replace("\t", " "):
        font = font_of(char, base)
        drawn.append((font or SANS, char if font else ABSENT))
    return [(font, "".join(char for _, char in part)) for font, part in groupby(drawn, key=lambda pair: pair[0])]


def width_of(text: str, size: float, base: str = SANS) -> float:
    """Points that a text takes on one line."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    return float(sum(stringWidth(part, font, size) for font, part in runs(text, base)))


def markup(text: str, base: str = SANS) -> str:
    """Text as markup of a paragraph."""
    return "".join(
        html.escape(part, quote=False)
        if font == base
        else f'<font face="{font}">{html.escape(part, quote=False)}</font>'
        for font, part in runs(text, base)
    )


def marked(text: str) -> str:
    """Text of a report, with ``**``, backticks and links, as markup of a paragraph."""
    found = []
    for part in _SPLIT.split(tied(text)):
        if part.startswith("**") and part.endswith("**") and len(part) > 4:
            found.append(f'<font face="{BOLD}">{markup(part[2:-2], BOLD)}</font>')
        elif part.startswith("`") and part.endswith("`") and len(part) > 2:
            found.append(f'<font face="{MONO}">{markup(part[1:-1], MONO)}</font>')
        elif part.startswith("[") and (match := re.fullmatch(r"\[([^\]]+)\]\((https://[^)\s]+)\)", part)):
            found.append(f'<a href="{html.escape(match[2])}" color="{LINK}">{markup(match[1])}</a>')
        else:
            found.append(markup(part))
    return "".join(found)


def absent_in(texts: Iterable[str]) -> int:
    """How many characters of these texts no font draws."""
    return sum(not font_of(char, SANS) for text in texts for char in printable(text) if char not in "\n\t")
