"""Files as people have them are read as the documents in them, or refused by what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lrc_core.cli.jobs import print_rows
from lrc_core.errors import TextError
from lrc_core.quality.plain_words import surprise
from lrc_core.quality.tables import records, to_markdown
from lrc_core.texts.documents import load_documents
from lrc_core.texts.files import absolute, is_file, read_file, split_field
from lrc_core.texts.label import text_labels

DOCUMENTS = ('He said "no, never".', "Two\nlines; and a\ttab", "résumé", "[1] a note")


def _csv(comma: str, head: str = "text") -> bytes:
    quoted = [text.replace('"', '""') for text in DOCUMENTS]
    rows = "".join(f'{number}{comma}"{text}"\n' for number, text in enumerate(quoted))
    return f"id{comma}{head}\n{rows}".encode()


def _lines(field: str = "text") -> bytes:
    return "\n".join(json.dumps({"id": 1, field: text}) for text in DOCUMENTS).encode()


def _parquet(field: str = "text", texts: Any = DOCUMENTS) -> bytes:
    target = io.BytesIO()
    table = pyarrow.table({"id": range(len(DOCUMENTS)), "title": ["x"] * len(DOCUMENTS), field: texts})
    pyarrow.parquet.write_table(table, target)
    return target.getvalue()


FORMATS: dict[str, bytes] = {
    "a.jsonl": _lines(),
    "a.ndjson": _lines(),
    "lines.json": _lines(),
    "lines.txt": _lines(),
    "array.json": json.dumps([{"text": text} for text in DOCUMENTS]).encode(),
    "strings.json": json.dumps(DOCUMENTS, indent=1).encode(),
    "array.jsonl": json.dumps([{"text": text} for text in DOCUMENTS]).encode(),
    "columns.json": json.dumps({"text": DOCUMENTS}).encode(),
    "strings.jsonl": "\n".join(map(json.dumps, DOCUMENTS)).encode(),
    "marked.jsonl": b"\xef\xbb\xbf" + _lines(),
    "windows.jsonl": _lines().replace(b"\n", b"\r\n"),
    "a.csv": _csv(","),
    "semicolons.csv": _csv(";"),
    "a.tsv": _csv("\t"),
    "commas.tsv": _csv("\t").replace(b"id\t", b"id, as, we, count\t"),
    "marked.csv": b"\xef\xbb\xbf" + _csv(","),
    "a.parquet": _parquet(),
    "categories.parquet": _parquet(texts=pyarrow.array(DOCUMENTS).dictionary_encode()),
    "views.parquet": _parquet(texts=pyarrow.array(DOCUMENTS).cast(pyarrow.string_view())),
    "no-ending": _parquet(),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("packed", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_every_format_gives_the_documents(name: str, packed: str, tmp_path: Path) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": _zstandard}[packed]
    path = tmp_path / (name + packed)
    path.write_bytes(pack(FORMATS[name]))
    found = read_file(str(path))
    assert found.documents == DOCUMENTS == tuple(load_documents(str(path)))
    assert f"{len(DOCUMENTS)} documents" in found.words and DOCUMENTS[0] in found.words


def _zstandard(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def test_compression_is_seen_without_its_ending(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(_lines()))
    assert read_file(str(path)).documents == DOCUMENTS


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.json"])
def test_another_field_is_named(name: str, tmp_path: Path) -> None:
    data = {"a.jsonl": _lines("body"), "a.csv": _csv(",", "body"), "a.parquet": _parquet("body")}
    path = tmp_path / name
    path.write_bytes(data.get(name) or json.dumps([{"body": text} for text in DOCUMENTS]).encode())
    asked = f"{path}#field=body"
    assert read_file(asked).documents == DOCUMENTS and is_file(asked) and absolute(asked) == asked
    with pytest.raises(TextError, match=r"body|title") as caught:
        read_file(str(path))
    assert "#field=" in caught.value.remedy, "the remedy is the name to give"
    with pytest.raises(TextError, match="nothing"):
        read_file(f"{path}#field=nothing")


def test_a_file_whose_name_has_the_mark_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "a#field=b"
    path.write_text("text")
    assert split_field(str(path)) == (path, "") and read_file(str(path)).documents == ("text",)


@pytest.mark.parametrize(
    "text", ["[1] Smith, J. (2020).\nProse.", "{curly} beginnings\nof prose", "1,2,3\nno table", "42"]
)
def test_prose_stays_prose(text: str, tmp_path: Path) -> None:
    for name in ("a.txt", "a.md", "notes"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_file(str(tmp_path / name)).documents == (text,)


def _zip(*names: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return target.getvalue()


def _tar() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return target.getvalue()


def _arrow() -> bytes:
    target = io.BytesIO()
    table = pyarrow.table({"text": list(DOCUMENTS)})
    with pyarrow.ipc.new_file(target, table.schema) as writer:
        writer.write_table(table)
    return target.getvalue()


TABLE = "object", ".csv"
"""One line with commas is a table of heads without rows."""
REFUSED: dict[str, tuple[bytes, str]] = {
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
    "docx": (_zip("[Content_Types].xml", "word/document.xml"), "Word"),
    "epub": (_zip("mimetype", "META-INF/container.xml"), "EPUB"),
    "zip": (_zip("a.txt"), "zip archive"),
    "tar": (_tar(), "tar"),
    "tar.gz": (gzip.compress(_tar()), "tar"),
    "twice": (gzip.compress(gzip.compress(b"text")), "gzip"),
    "html": (b"\n<!-- c -->\n<!DOCTYPE html><html><body>text</body></html>", "HTML"),
    "xml": (b"<?xml version='1.0'?><a>text</a>", "XML"),
    "rtf": (b"{\\rtf1 text}", "RTF"),
    "UTF-16": ("text in two bytes".encode("utf-16"), "UTF-16"),
    "UTF-16 unmarked": ("text in two bytes".encode("utf-16-le"), "UTF-16"),
    "UTF-32": ("text".encode("utf-32"), "UTF-32"),
    "Latin-1": ("résumé".encode("latin-1"), "byte 1.*Latin-1"),
    "zeros": (bytes(range(256)) * 9, "binary"),
    "image": (b"\x89PNG\r\n\x1a\n\0\0", "PNG"),
    "arrow": (_arrow(), "Arrow"),
    "gguf": (b"GGUF\3\0\0\0", "GGUF"),
    "cut gzip": (gzip.compress(b"text" * 99)[:-9], "cut short"),
    "object": (b'{"name": "x", "values": [1]}', "text"),
}


@pytest.mark.parametrize(
    ("what", "ending"),
    [(what, ending) for what in REFUSED for ending in (".txt", ".jsonl", ".csv", "") if (what, ending) != TABLE],
)
def test_everything_else_is_named_and_how_to_convert_it(what: str, ending: str, tmp_path: Path) -> None:
    data, name = REFUSED[what]
    path = tmp_path / f"file{ending}"
    path.write_bytes(data)
    with pytest.raises(TextError, match=name) as caught:
        read_file(str(path))
    assert str(path) in caught.value.message and caught.value.remedy


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}', "Line 2"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "Line 2"),
        ("a.json", b'[{"text": "a"}, {"other": "b"}]', "Entry 2"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "cut \\ud83d"}', "Line 2.*half a character"),
        ("a.json", b'["\\udc00 cut"]', "half a character"),
        ("a.csv", b"text,id,text\nfirst,1,second\n", "2 columns"),
        ("a.json", b"3.5", "float"),
        ("a.csv", b"text,id\nno, quotes,1\n", "Row 2"),
        ("a.csv", b'text\n"never closed\n', "CSV"),
        ("a.parquet", b"PAR1" + b"\0" * 40, "Parquet"),
        ("a.txt#field=body", b"prose", "plain text"),
    ],
)
def test_damage_names_the_place(name: str, data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name.partition("#")[0]).write_bytes(data)
    with pytest.raises(TextError, match=words):
        read_file(str(tmp_path / name))


def test_missing_values_are_no_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", None, "", "b"]}), path)
    (tmp_path / "a.csv").write_text('id,text\n1,a\n2,\n3,"b"\n')
    assert read_file(str(path)).documents == read_file(str(tmp_path / "a.csv")).documents == ("a", "b")


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    assert read_file(str(path)).documents == ("one",)
    path.write_text("two")
    assert read_file(str(path)).documents == ("two",)


def test_labels_are_as_long_as_it_takes_to_tell_texts_apart() -> None:
    cases: list[Any] = [
        (["wiki", "c4"], ["wiki", "c4"]),
        (["/a/one/test.txt", "/a/two/test.txt", "/a/two/other.txt"], ["one/test.txt", "two/test.txt", "other.txt"]),
        (["/a/x/test.txt", "/b/x/test.txt"], ["a/x/test.txt", "b/x/test.txt"]),
        (["/t.csv#field=a", "/t.csv#field=b"], ["t.csv#field=a", "t.csv#field=b"]),
        (["test.txt", "/a/test.txt"], ["test.txt", "a/test.txt"]),
        (["owner/name", "other/name"], ["owner/name", "other/name"]),
    ]
    for names, labels in cases:
        assert list(text_labels(names).values()) == labels


def test_a_model_below_a_megabyte_has_a_size_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    shares = {"keep_target": 1.0, "keep_achieved": 1.0, "bytes_share": 1.0, "model_bytes": 146_800}
    print_rows([{"method": "dense", **shares, "perplexity": {}, "zero_shot": {}}])
    assert "146.8 kB" in capsys.readouterr().out


def test_two_texts_of_one_name_have_columns_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"/a/one/test.txt": {"value": 11.0, "stderr": 1.0}, "/a/two/test.txt": {"value": 22.0, "stderr": 1.0}}
    row = {"method": "dense", "keep_target": 1.0, "keep_achieved": 1.0, "perplexity": scores, "zero_shot": {}}
    print_rows([row])
    head = capsys.readouterr().out.splitlines()[0]
    assert "one/test.txt ppl" in head and "two/test.txt ppl" in head
    found = records({"rows": [row]})[0]
    assert (found["perplexity_one/test.txt"], found["perplexity_two/test.txt"]) == (11.0, 22.0)
    assert "one/test.txt" in to_markdown({"rows": [row]}) and "two/test.txt" in to_markdown({"rows": [row]})
    assert surprise(row, row).count("test.txt") == 2 and "two/test.txt" in surprise(row, row)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_a_short_file_takes_little_memory(pack: Any, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(pack(b"some words " * 1000))
    tracemalloc.start()
    try:
        read_file(str(path))
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
