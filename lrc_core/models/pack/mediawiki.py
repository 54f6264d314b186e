"""Plain text out of MediaWiki mark-up and dumps: enough for clean running prose, not a full parser."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import IO
from xml.etree import ElementTree

_BRACES = re.compile(r"\{\{|\}\}|^[ \t:]*\{\||\|\}", re.MULTILINE)
_LINK = re.compile(r"\[\[((?:[^\[\]]|\[(?!\[)|\](?!\]))*)\]\]")  # innermost; single brackets may occur in captions
_STRAY_LINK = re.compile(r"\[\[|\]\]")
_EXTERNAL = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\]]*[ \t]*([^\]]*)\]")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_DROPPED_TAGS = "ref|math|gallery|source|syntaxhighlight|timeline|score|imagemap|chem|hiero|references"
_SELF_CLOSED = re.compile(rf"<(?:{_DROPPED_TAGS})\b[^<>]*/>", re.IGNORECASE)
_DROPPED = re.compile(rf"<({_DROPPED_TAGS})\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_HEADING = re.compile(r"^(={2,6})[ \t]*(.*?)[ \t]*\1[ \t]*$", re.MULTILINE)
_SWITCH = re.compile(r"__[A-Z]+__")
_LIST_ITEM = re.compile(r"^[:;]*[*#].*$", re.MULTILINE)
_INDENT = re.compile(r"^[:;]+[ \t]*", re.MULTILINE)
_EMPTY_BRACKETS = re.compile(r"[ \t]?\([\s,;:–/]*\)")
_FILE_SPACES = ("file", "image", "category", "media", "template", "user", "user talk", "special", "wikipedia", "wp")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*")
# Sections that hold lists of sources instead of prose.
_BACK_MATTER = {
    "references", "external links", "see also", "further reading", "notes", "bibliography", "sources", "footnotes",
    "notes and references", "citations", "works cited", "references and notes", "gallery",
}  # fmt: skip
# Templates that stand for words of the sentence: which positional parameters are the words.
_WORDS = {
    "convert": slice(0, 2), "cvt": slice(0, 2), "val": slice(0, 1), "nowrap": slice(0, 1), "small": slice(0, 1),
    "smaller": slice(0, 1), "nihongo": slice(0, 1), "angbr": slice(0, 1), "quote": slice(0, 1), "nts": slice(0, 1),
    "sub": slice(0, 1), "sup": slice(0, 1), "vanchor": slice(0, 1), "linktext": slice(0, 1), "w": slice(0, 1),
    "lang": slice(1, 2), "transl": slice(-1, None), "abbr": slice(0, 1), "as of": slice(0, 1), "chem": slice(0, None),
}  # fmt: skip


_SHORTEST = 2000  # characters of an article that is kept


def articles(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Titles and plain text of the articles in a MediaWiki XML dump, read in a stream.

    Args:
        stream: the XML, decompressed.

    Yields:
        (title, text) of the articles proper: redirects and pages outside the article namespace are left out.
    """
    for _, page in ElementTree.iterparse(stream, events=("end",)):
        if _local_name(page) != "page":
            continue
        parts = {_local_name(part): part for part in page.iter()}
        if parts["ns"].text == "0" and "redirect" not in parts:
            text = plain_text(parts["text"].text or "")
            if len(text) >= _SHORTEST:
                yield parts["title"].text or "", text
        page.clear()  # otherwise the whole dump stays in memory


def plain_text(markup: str) -> str:
    """Running text of a page: paragraphs and headings, one per line, without mark-up, tables, lists and notes."""
    text = _COMMENT.sub("", markup)
    text = _SELF_CLOSED.sub("", text)
    text = _DROPPED.sub("", text)
    text = _without_braces(text)
    text = _without_links(text)
    text = text.replace("'''''", "").replace("'''", "").replace("''", "")
    text = _without_back_matter(text)
    text = _HEADING.sub(r"\2", text)
    text = _TAG.sub("", _BREAK.sub("\n", _SWITCH.sub("", text)))
    # Entities last, so that an escaped "<" is not taken for a tag.
    text = html.unescape(text).replace("\xa0", " ").replace("\u2009", " ")
    return _tidy(text)


def _local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _without_braces(text: str) -> str:
    """Tables dropped and templates replaced by the words they stand for, however they are nested."""
    buffers: list[list[str]] = [[]]
    opened: list[str] = []
    position = 0
    while match := _BRACES.search(text, position):
        buffers[-1].append(text[position : match.start()])
        token, position = match.group().strip(" \t:"), match.end()
        if token in ("{{", "{|"):
            opened.append(token)
            buffers.append([])
            continue
        opener = "{{" if token == "}}" else "{|"
        if opener == "{|" and (not opened or opened[-1] != "{|"):
            position = match.start() + 1  # "|}}" ends a template with an empty parameter
            buffers[-1].append("|")
        elif opener in opened:
            _close(opener, opened, buffers)
    buffers[-1].append(text[position:])
    return "".join("".join(buffer) for buffer in buffers)  # what was never closed stays as text


def _close(opener: str, opened: list[str], buffers: list[list[str]]) -> None:
    """End the innermost ``opener``; whatever was left open within it becomes part of its content."""
    inner = ""
    while True:
        inner = "".join(buffers.pop()) + inner
        if opened.pop() == opener:
            break
    if opener == "{{":
        buffers[-1].append(_template_words(inner))


def _template_words(inner: str) -> str:
    name, *parameters = inner.split("|")
    words = _WORDS.get(name.strip().lower())
    if words is None:
        return ""
    return " ".join(value.strip() for value in [p for p in parameters if "=" not in p][words])


def _without_links(text: str) -> str:
    """Links replaced by their labels, innermost first, because captions of files hold links of their own."""
    replaced = 1
    while replaced:
        text, replaced = _LINK.subn(lambda match: _link_label(match.group(1)), text)
    return _STRAY_LINK.sub("", _EXTERNAL.sub(r"\1", text))


def _link_label(inner: str) -> str:
    target, bar, rest = inner.partition("|")
    space = target.partition(":")[0].strip().lower() if ":" in target else ""
    if space in _FILE_SPACES or (space and not bar and _LANGUAGE.fullmatch(space)):
        return ""
    # "[[Paris, Texas|]]" shows "Paris": rare, and its target is good enough.
    return rest.rpartition("|")[2] or target.lstrip(":")


def _without_back_matter(text: str) -> str:
    """Sections of sources removed, each up to the next heading of the same or a higher level."""
    kept: list[str] = []
    position, dropped_level = 0, 0
    for match in _HEADING.finditer(text):
        if not dropped_level:
            kept.append(text[position : match.start()])
        position, level = match.start(), len(match.group(1))
        if not dropped_level or level <= dropped_level:
            dropped_level = level if match.group(2).strip().lower() in _BACK_MATTER else 0
    if not dropped_level:
        kept.append(text[position:])
    return "".join(kept)


def _tidy(text: str) -> str:
    text = _INDENT.sub("", _LIST_ITEM.sub("", text))
    text = _EMPTY_BRACKETS.sub("", text)
    text = re.sub(r"\(\s*[;,]\s*", "(", text)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" ([,.;:)])", r"\1", text)
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if any(character.isalnum() for character in line))
