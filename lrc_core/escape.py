"""Names from outside are data: links, configurations, plans and weight files must not format, link or run anything.

In HTML, :func:`html.escape` does that; here are the other places where text has a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_SIGNS = frozenset(r"\`*_{}[]()<>#!|$:~^&")
_LIST = re.compile(r"(\d*)([-+=.)])")
# A name of a host or an address becomes a link however it is escaped, but not in code.
_LINKS = re.compile(r"\S*(?:[a-z][a-z0-9+.-]*:/|www\.|mailto:|xmpp:|\S@)\S*", re.IGNORECASE)
_TYPOGRAPHY = re.compile(r"\S*(?:--|->|<-|[<>]=)\S*")
_TAGS_OF_OURS = re.compile(r"<(?!br>|/?extra>)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escaped(text: str) -> str:
    """Text as Streamlit's Markdown shows it, letter for letter and without meaning; lines become spaces."""
    line = " ".join(text.splitlines()).lstrip()
    shown = "".join(_word(word) for word in re.split(r"(\s+)", line))
    return _LIST.sub(r"\1\\\2", shown, count=1) if _LIST.match(shown) else shown


def in_plotly(content: Any) -> Any:
    """What a Plotly figure holds, with every text shown letter for letter: Plotly reads a few tags, links among them.

    The tags that figures of ours set stay: breaks of lines, and the box that ``<extra>`` leaves out.

    Args:
        content: a figure as dictionaries and lists, or a part of one; the template of colours is left as it is.

    Returns:
        The same object where there is nothing to change.
    """
    if isinstance(content, str):
        return _TAGS_OF_OURS.sub("&lt;", content)
    if isinstance(content, dict):
        texts = {key: part if key == "template" else in_plotly(part) for key, part in content.items()}
        return content if all(texts[key] is part for key, part in content.items()) else texts
    if isinstance(content, list | tuple):
        parts = [in_plotly(part) for part in content]
        return content if all(part is old for part, old in zip(parts, content, strict=True)) else type(content)(parts)
    return content


def csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula, or for the end of a line.

    Such text gets an apostrophe in front, and breaks its lines by newlines, which writers of CSV put in quotes.
    """
    if not isinstance(value, str):
        return value
    mark = "'" if value.lstrip(" ").startswith(_FORMULA) else ""
    return mark + re.sub(r"\r\n?", "\n", value)


def csv_row(values: Iterable[Any]) -> list[Any]:
    """A line of cells."""
    return [csv_cell(value) for value in values]


def _word(word: str) -> str:
    if _LINKS.fullmatch(word) or _TYPOGRAPHY.fullmatch(word):
        return _code(word)
    return "".join(f"\\{sign}" if sign in _SIGNS else sign for sign in word)


def _code(word: str) -> str:
    """A code span; its fence is longer than any row of backticks in it."""
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", word)), default=0))
    space = " " if "`" in word else ""
    return f"{fence}{space}{word}{space}{fence}"
