"""What a file is that is no text, by its first bytes. No torch, no reading."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass


@dataclass(frozen=True)
class NotText:
    """Something else than text.

    Attributes:
        name: with its article: ``a PDF document``.
        remedy: how it becomes text.
    """

    name: str
    remedy: str


_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}
_OFFICE = "Save it as plain text (UTF-8) in the program that made it, or `pandoc FILE -t plain -o text.txt`."
_UNPACK = "Unpack it and name one of its files."
_MARKUP = "Turn it into plain text: `pandoc FILE -t plain -o text.txt`."
_BINARY = "Name a UTF-8 text, JSON lines, JSON, CSV or Parquet file."
_TABLES = "Convert it: `python -c \"import pandas; pandas.read_{}('FILE').to_parquet('text.parquet')\"`."
_BEGINNINGS = (
    (b"%PDF", NotText("a PDF document", "Turn it into plain text: `pdftotext FILE text.txt`.")),
    (b"{\\rtf", NotText("an RTF document", _OFFICE)),
    (b"\xd0\xcf\x11\xe0", NotText("an old Office document (.doc, .xls, .ppt)", _OFFICE)),
    (b"7z\xbc\xaf", NotText("a 7z archive", _UNPACK)),
    (b"Rar!", NotText("a RAR archive", _UNPACK)),
    (b"ARROW1", NotText("an Arrow file", _TABLES.format("feather"))),
    (b"ORC", NotText("an ORC file", _TABLES.format("orc"))),
    (b"Obj\x01", NotText("an Avro file", "Convert it to JSON lines or Parquet.")),
    (b"SQLite format 3", NotText("an SQLite database", "Export the texts as CSV.")),
    (b"GGUF", NotText("a GGUF model", "Give it as the model, not as a text.")),
    (b"\x89PNG", NotText("a PNG image", _BINARY)),
    (b"\xff\xd8\xff", NotText("a JPEG image", _BINARY)),
    (b"\x80\x04", NotText("a Python pickle", "Save the texts as JSON lines.")),
    (b"\x93NUMPY", NotText("a NumPy array", "Save the texts as JSON lines.")),
    (b"\x89HDF", NotText("an HDF5 file", _TABLES.format("hdf"))),
    (b"\x7fELF", NotText("a program", _BINARY)),
)  # fmt: skip
_WIDE = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_ZIPPED = (
    ("word/", "a Word document (.docx)"), ("xl/", "an Excel workbook (.xlsx)"), ("ppt/", "a presentation (.pptx)"),
    ("META-INF/container.xml", "an EPUB book"), ("content.xml", "an OpenDocument file"),
)  # fmt: skip
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_XML = re.compile(rb"\s*<(\?xml|!doctype|svg|rss|mediawiki|TEI)\b", re.IGNORECASE)


def packed_as(head: bytes) -> str:
    """The compression that these first bytes are of; "" for none."""
    return next((name for beginning, name in _PACKED.items() if head.startswith(beginning)), "")


def not_text(data: bytes) -> NotText | None:
    """What these bytes are if they are no UTF-8 text that is worth reading as it stands; None where they may be."""
    for beginning, encoding in _WIDE.items():
        if data.startswith(beginning):
            return _other_encoding(encoding)
    head = data.removeprefix(b"\xef\xbb\xbf")[:4096]
    for beginning, found in _BEGINNINGS:
        if head.startswith(beginning):
            return found
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zipped(data)
    if data[257:262] == b"ustar":
        return NotText("a tar archive", _UNPACK)
    if b"\0" in data:
        return _with_zeros(head)
    if _HTML.match(head):
        return NotText("an HTML page", _MARKUP)
    if _XML.match(head):
        return NotText("an XML document", _MARKUP)
    return None


def _zipped(data: bytes) -> NotText:
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        names = []
    for beginning, name in _ZIPPED:
        if any(found.startswith(beginning) for found in names):
            return NotText(name, _OFFICE)
    if "data.pkl" in {found.rpartition("/")[2] for found in names}:
        return NotText("a file of PyTorch tensors", _BINARY)
    return NotText("a zip archive", _UNPACK)


def _with_zeros(head: bytes) -> NotText:
    """Text of two bytes per character without a mark has its zeros in every other place."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > 0.3 * len(head) and min(even, odd) < 0.05 * len(head):
        return _other_encoding("UTF-16")
    return NotText("binary data", _BINARY)


def _other_encoding(name: str) -> NotText:
    return NotText(f"text in {name}, not in UTF-8", f"Convert it: `iconv -f {name} -t UTF-8 FILE > text.txt`.")
