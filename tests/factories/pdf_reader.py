"""Reads back a PDF as reportlab writes it: pages, their text through the fonts' own tables, title, outline, fonts."""

from __future__ import annotations

import base64
import re
import zlib


class Pdf:
    """A file in memory.

    Args:
        data: its bytes.
    """

    def __init__(self, data: bytes) -> None:
        assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
        self.data = data
        self._objects = {int(n): body for n, body in re.findall(rb"(?s)\n(\d+) 0 obj\n(.*?)\nendobj", data)}

    @property
    def pages(self) -> list[bytes]:
        """Dictionaries of the pages, in order."""
        tree = next(body for body in self._objects.values() if b"/Type /Pages" in body)
        kids = re.search(rb"(?s)/Kids \[(.*?)\]", tree)
        assert kids is not None
        return [self._objects[int(n)] for n in re.findall(rb"(\d+) 0 R", kids[1])]

    def text(self) -> str:
        """All text in the order in which it is drawn, a line for every string."""
        return "\n".join(self.page_text(page) for page in self.pages)

    def title(self) -> str:
        """Of the document's information."""
        return _string(re.search(rb"/Title (\((?:\\.|[^\\)])*\))", self._info())[1])  # type: ignore[index]

    def outline(self) -> list[str]:
        """Titles of the outline's entries."""
        entries = [body for body in self._objects.values() if b"/Dest" in body and b"/Parent" in body]
        return [_string(re.search(rb"/Title (\((?:\\.|[^\\)])*\))", body)[1]) for body in entries]  # type: ignore[index]

    def fonts(self) -> dict[str, bool]:
        """Names of the fonts in use, and whether each is embedded."""
        found = {}
        for body in self._objects.values():
            if b"/Type /Font " in body + b" " and (name := re.search(rb"/BaseFont /(\S+)", body)):
                descriptor = re.search(rb"/FontDescriptor (\d+) 0 R", body)
                held = b"/FontFile2" in self._objects[int(descriptor[1])] if descriptor else False
                found[name[1].decode()] = held
        return found

    def _info(self) -> bytes:
        trailer = re.search(rb"/Info (\d+) 0 R", self.data)
        assert trailer is not None
        return self._objects[int(trailer[1])]

    def _stream(self, number: int) -> bytes:
        body = self._objects[number]
        raw = re.search(rb"(?s)stream\r?\n(.*?)\r?\n?endstream", body)
        assert raw is not None
        data = raw[1]
        if b"/ASCII85Decode" in body:
            data = base64.a85decode(b"<~" + data if not data.startswith(b"<~") else data, adobe=True)
        return zlib.decompress(data) if b"/FlateDecode" in body else data

    def page_text(self, page: bytes) -> str:
        """Text of one of the pages, in the order in which it is drawn."""
        content = re.search(rb"/Contents (\d+) 0 R", page)
        assert content is not None
        maps = self._font_maps()
        found, current = [], ""
        pattern = rb"/(\S+) [\d.]+ Tf|(\((?:\\.|[^\\)])*\)) Tj"
        for font, string in re.findall(pattern, self._stream(int(content[1]))):
            if font:
                current = font.decode()
            else:
                table = maps.get(current)
                codes = _bytes(string)
                found.append("".join(table[code] for code in codes) if table else codes.decode("utf-16-be"))
        return "\n".join(found)

    def _font_maps(self) -> dict[str, dict[int, str]]:
        """Characters of every font that has a table of its own; the others (East Asia) hold UTF-16."""
        named = re.findall(rb"/(F\d+\S*) (\d+) 0 R", b"\n".join(self._objects.values()))
        maps = {}
        for name, number in named:
            body = self._objects[int(number)]
            if table := re.search(rb"/ToUnicode (\d+) 0 R", body):
                maps[name.decode()] = _characters(self._stream(int(table[1])))
            elif b"/WinAnsiEncoding" in body:
                maps[name.decode()] = {code: bytes([code]).decode("cp1252", "replace") for code in range(256)}
        return maps


def _characters(table: bytes) -> dict[int, str]:
    found = {}
    for block in re.findall(rb"(?s)beginbfrange(.*?)endbfrange", table):
        for first, _, values in re.findall(rb"<(\w+)> <(\w+)> \[(.*?)\]", block):
            for step, value in enumerate(re.findall(rb"<(\w+)>", values)):
                found[int(first, 16) + step] = bytes.fromhex(value.decode()).decode("utf-16-be")
        for first, last, value in re.findall(rb"<(\w+)> <(\w+)> <(\w+)>", block):
            for code in range(int(first, 16), int(last, 16) + 1):
                found[code] = chr(int(value, 16) + code - int(first, 16))
    for block in re.findall(rb"(?s)beginbfchar(.*?)endbfchar", table):
        for code, value in re.findall(rb"<(\w+)> <(\w+)>", block):
            found[int(code, 16)] = bytes.fromhex(value.decode()).decode("utf-16-be")
    return found


def _bytes(literal: bytes) -> bytes:
    """A string literal's bytes."""
    plain = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}

    def unescaped(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8)]) if code.isdigit() else plain.get(code, code)

    return re.sub(rb"(?s)\\(\d{1,3}|.)", unescaped, literal[1:-1])


def _string(literal: bytes) -> str:
    data = _bytes(literal)
    return data.decode("utf-16") if data.startswith(b"\xfe\xff") else data.decode("latin-1")
