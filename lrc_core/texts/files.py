"""A user's text file as documents, whatever its format; what is not text is refused by its name. No torch.

Read are plain text (one document), JSON lines, JSON arrays, CSV and TSV, and Parquet, each as it is or compressed with
gzip, bzip2, xz or zstandard. What a file is, its content says: the ending decides only between kinds of plain text. The
field that holds the text is ``text`` unless the name says otherwise: ``reviews.csv#field=body``.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lrc_core.errors import TextError
from lrc_core.paths import expanded
from lrc_core.texts.formats import not_text, packed_as

FIELD = "text"
_SHOWN = 60
"""Characters of the first document that a preview shows."""
_MARK = "#field="
_LONGEST = 4 * 2**30
"""Bytes of text, unpacked, that are read at most: ten times the largest text that anybody measures a model on."""
_STEP = 2**24
"""Bytes that are read at once."""
_REMEMBERED = 16 * 2**20
"""Bytes of a file up to which its documents are kept for whoever reads it next."""
_JSON, _LINES, _TABLE, _PARQUET, _PLAIN = "JSON", "JSON lines", "table", "Parquet", "plain text"
_ENDINGS = {
    ".jsonl": _LINES, ".ndjson": _LINES, ".json": _JSON, ".csv": _TABLE, ".tsv": _TABLE, ".tab": _TABLE,
}  # fmt: skip
_PACKED = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class TextFile:
    """What was understood of a file.

    Attributes:
        documents: in the order of the file.
        format: in words: ``CSV, field body``, ``JSON lines, field text, gzip``.
    """

    documents: tuple[str, ...]
    format: str

    @property
    def characters(self) -> int:
        """Of all documents."""
        return sum(map(len, self.documents))

    @property
    def words(self) -> str:
        """A preview in one line: how many documents, how long, read as what, and how the first begins."""
        count = f"{len(self.documents):,} document{'s' if len(self.documents) != 1 else ''}"
        first = " ".join(self.documents[0][:_SHOWN].split()) if self.documents else ""
        more = "…" if self.documents and len(self.documents[0]) > _SHOWN else ""
        return f"{count}, {self.characters:,} characters ({self.format}), beginning “{first}{more}”"


def split_field(name: str) -> tuple[Path, str]:
    """Path and field of a text's name; "" where it names no field. A file that exists by the whole name has none."""
    path, mark, field = name.rpartition(_MARK)
    if not mark or os.path.isfile(expanded(name)):
        return expanded(name), ""
    return expanded(path), field


def is_file(name: str) -> bool:
    """Whether a text's name stands for a file that is there."""
    return os.path.isfile(split_field(name)[0])


def absolute(name: str) -> str:
    """The name of a file's text, wherever the program runs."""
    path, field = split_field(name)
    return os.path.abspath(path) + (f"{_MARK}{field}" if field else "")


def read_file(name: str) -> TextFile:
    """The documents of a file.

    Args:
        name: its path, with ``#field=NAME`` where the text is not in ``text``.

    Raises:
        TextError: not there, unreadable, not text (naming what it is and how to convert it), or without that field.
    """
    path, field = split_field(name)
    try:
        found = path.stat()
    except OSError as error:
        raise TextError(f"Cannot read {path}: {error.strerror}.") from error
    if found.st_size > _REMEMBERED:
        return _read(path, field)
    return _read_once(path, field, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))


@lru_cache(maxsize=4)  # looked at, checked and read within a moment
def _read_once(path: Path, field: str, _stamp: tuple[int, ...]) -> TextFile:
    return _read(path, field)


def _read(path: Path, field: str) -> TextFile:
    data, packed = _unpacked(path)
    found = _documents(path, data, field)
    words = ", ".join(filter(None, [found.format, packed]))
    return TextFile(found.documents, words)


def _unpacked(path: Path) -> tuple[bytes, str]:
    """The file's content without its compression, and the compression's name."""
    try:
        with path.open("rb") as file:
            packed = packed_as(file.read(16))
        with _OPENERS[packed](path) as file:
            data = _at_most(file, _LONGEST + 1)
    except EOFError as error:
        raise TextError(f"{path} is cut short: its {packed} data end in the middle.", "Copy the file again.") from error
    except (OSError, lzma.LZMAError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TextError(f"Cannot read {path}{f' as {packed}' if packed else ''}: {reason}.") from error
    if len(data) > _LONGEST:
        raise TextError(f"{path} holds more than {_LONGEST // 2**30} GB of text.", "Name a part of it.")
    if packed and (inner := packed_as(data[:16])):
        raise TextError(f"{path} is {inner} inside of {packed}.", "Unpack it once, then name the result.")
    return data, packed


def _at_most(file: Any, most: int) -> bytes:
    """The first bytes of a file, in steps: reading as many at once takes room for all of them, there or not."""
    parts: list[bytes] = []
    while most > 0 and (part := bytes(file.read(min(most, _STEP)))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _zstandard(path: Path) -> Any:
    import pyarrow

    return pyarrow.input_stream(str(path), compression="zstd")


_OPENERS: dict[str, Callable[[Path], Any]] = {
    "": lambda path: path.open("rb"),
    "gzip": gzip.open,
    "bzip2": bz2.open,
    "xz": lzma.open,
    "zstandard": _zstandard,
}


def _documents(path: Path, data: bytes, field: str) -> TextFile:
    if data.startswith(b"PAR1"):
        return _parquet(path, data, field)
    if problem := not_text(data):
        raise TextError(f"{path} is {problem.name}, not text.", problem.remedy)
    text = _decoded(path, data)
    endings = [ending for ending in path.suffixes if ending.lower() not in _PACKED]
    kind = _ENDINGS.get(endings[-1].lower() if endings else "", _PLAIN)
    if kind == _TABLE:
        return _table(path, text, field)
    found = _json(path, text, field, certain=kind != _PLAIN)
    if found is None and field:
        raise TextError(f"{path} is plain text and has no field {field!r}.", f"Name the file without {_MARK}{field}.")
    return found or TextFile((text,), _PLAIN)


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path} is not UTF-8 text: byte {error.start} cannot be read.",
            f"If it is Latin-1 or Windows-1252: `iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8.txt`.",
        ) from error


def _json(path: Path, text: str, field: str, *, certain: bool) -> TextFile | None:
    """Documents of JSON: an array, an object or one value per line. None where it is no JSON and need not be."""
    start = text.lstrip()[:1]
    if not start or (start not in "[{" and not certain):
        return TextFile((), _LINES) if certain else None
    try:
        return _whole(path, json.loads(text), field)
    except (ValueError, RecursionError):
        found = list(_lines(text))
    if bad := next(((number, value) for number, value in found if isinstance(value, ValueError)), None):
        if not certain:
            return None  # prose that begins with a bracket
        where = f"Line {bad[0]} of {path}" if len(found) > 1 else str(path)
        raise TextError(f"{where} is not JSON: {bad[1]}.", "Save it as JSON lines, or as .txt if it is plain text.")
    texts = tuple(_text_of(path, value, field, f"Line {number} of {path}") for number, value in found)
    return TextFile(texts, f"{_LINES}, field {field or FIELD}")


def _lines(text: str) -> Iterator[tuple[int, Any]]:
    """Numbers and values of the lines that are not empty; of a line that is no JSON, the error."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, ValueError(str(error))


def _whole(path: Path, found: Any, field: str) -> TextFile:
    """Documents of a file that is one JSON value."""
    if isinstance(found, dict) and isinstance(column := found.get(field or FIELD), list):
        found = [{field or FIELD: value} for value in column]
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        raise TextError(f"{path} holds one JSON {type(found).__name__}.", "Name a file of JSON objects with text.")
    texts = []
    for number, value in enumerate(found, start=1):
        where = f"Entry {number} of {path}" if len(found) > 1 else str(path)
        texts.append(_text_of(path, value, field, where))
    what = "strings" if found and isinstance(found[0], str) else f"field {field or FIELD}"
    return TextFile(tuple(texts), f"{_JSON} array, {what}")


def _text_of(path: Path, value: Any, field: str, where: str) -> str:
    found = value.get(field or FIELD) if isinstance(value, dict) else None if field else value
    if isinstance(found, str):
        return _whole_characters(found, where)
    raise TextError(
        f'{where} is not a JSON object with a "{field or FIELD}" string.', _fields_remedy(path, _strings(value))
    )


def _whole_characters(text: str, where: str) -> str:
    """The text itself; JSON can hold halves of characters, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise TextError(
            f"{where} holds half a character ({half}, at {error.start:,}): its text was cut within one.",
            "Take that character out.",
        ) from error
    return text


def _strings(value: Any) -> list[str]:
    """Fields of strings, the longest first."""
    found = {key: len(text) for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}
    return sorted(found, key=lambda key: -found[key])


def _fields_remedy(path: Path, names: Sequence[str]) -> str:
    if not names:
        return ""
    return f"It has {', '.join(names[:8])}. Name the one that holds the text: `{path.name}{_MARK}{names[0]}`."


def _table(path: Path, text: str, field: str) -> TextFile:
    """Documents of a table with a line of heads."""
    line = text.lstrip().split("\n", 1)[0]
    tabs = "\t" in line and any(ending.lower() in (".tsv", ".tab") for ending in path.suffixes)
    signs = "\t" if tabs else "\t,;|" if any(sign in line for sign in "\t,;|") else ","
    comma = max(signs, key=line.count)
    kind = "TSV" if comma == "\t" else "CSV"
    csv.field_size_limit(min(_LONGEST, 2**31 - 1))
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=comma, strict=True))
    except csv.Error as error:
        raise TextError(f"{path} is not a readable {kind} table: {error}.", "Save it as UTF-8 CSV again.") from error
    rows = [row for row in rows if row]
    heads = [head.strip() for head in rows[0]] if rows else []
    first = dict(zip(heads, rows[1] if rows[1:] else (), strict=False))
    column = _column(path, kind, heads, field, sorted(heads, key=lambda head: -len(first.get(head, ""))))
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(heads):
            raise TextError(
                f"Row {number} of {path} has {len(row)} cells, and the first row has {len(heads)}.",
                "Put texts that hold commas or line ends in double quotes.",
            )
    place = heads.index(column)
    documents = tuple(row[place] for row in rows[1:] if row[place].strip())
    return TextFile(documents, f"{kind}, field {column}")


def _column(path: Path, kind: str, heads: Sequence[str], field: str, likely: Sequence[str] = ()) -> str:
    """The column that holds the text; ``likely`` has the columns again, the likeliest first."""
    if heads.count(wanted := field or FIELD) > 1:
        raise TextError(f"The {kind} file {path} has {heads.count(wanted)} columns {wanted!r}.", "Rename one of them.")
    if wanted in heads:
        return wanted
    if not field and len(heads) == 1:
        return heads[0]
    raise TextError(f"The {kind} file {path} has no column {wanted!r}.", _fields_remedy(path, likely or heads))


def _parquet(path: Path, data: bytes, field: str) -> TextFile:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        strings = [entry.name for entry in file.schema_arrow if _holds_strings(entry.type)]
        column = _column(path, _PARQUET, strings, field)
        values = file.read(columns=[column]).column(0).to_pylist()
    except pyarrow.ArrowException as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TextError(f"The Parquet file {path} cannot be read: {reason}.", "Copy or make it again.") from error
    return TextFile(tuple(text for text in values if text), f"{_PARQUET}, field {column}")


def _holds_strings(kind: Any) -> bool:
    """Whether a column holds strings, in whatever way they are kept; a pandas category is a dictionary."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
