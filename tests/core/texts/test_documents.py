"""Documents, their parts, and windows of tokens."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lrc_core.errors import TextError
from lrc_core.kinds.checks import check_texts
from lrc_core.texts import documents, windows
from lrc_core.texts.documents import dealt, load_documents, part_of
from lrc_core.texts.unseen import unseen_documents
from lrc_core.texts.windows import mixed_windows, sequential_windows, token_windows, wants_bos
from tests.factories.tiny_models import tiny_text, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
DOCUMENTS = [tiny_text(300, seed) for seed in range(10)]


def test_parts_are_disjoint_and_complete() -> None:
    parts = {part: part_of(DOCUMENTS, part) for part in ("calibrate", "select", "report")}
    assert [len(part) for part in parts.values()] == [6, 2, 2]
    assert sorted(document for part in parts.values() for document in part) == sorted(DOCUMENTS)
    assert part_of(DOCUMENTS, "all") == DOCUMENTS
    assert part_of(["short"] * 4, "report") == ["short"] * 4, "too short to be divided"


def test_files_are_read(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_text("\ufeffrésumé", encoding="utf-8")
    lines.write_text("\n".join(json.dumps({"text": text}) for text in DOCUMENTS), encoding="utf-8")
    assert load_documents(str(plain), "report") == ["résumé"]
    assert load_documents(str(lines)) == DOCUMENTS
    assert load_documents(str(lines), "select") == [DOCUMENTS[3], DOCUMENTS[8]]


def test_bad_texts_name_the_file_and_place(tmp_path: Path) -> None:
    binary, lines, empty = tmp_path / "a.txt", tmp_path / "b.jsonl", tmp_path / "c.txt"
    binary.write_bytes(b"abc\xff")
    lines.write_text('{"text": "a"}\n{"txt": "b"}\n')
    empty.write_text(" \n")
    for path, message in ((binary, "byte 3"), (lines, "Line 2"), (empty, "empty")):
        with pytest.raises(TextError, match=message) as caught:
            load_documents(str(path))
        assert path.name in str(caught.value)
    for name, part in (("no-such-text", "all"), (str(empty), "middle"), ("gensim", "all"), ("gensim", "calibrate")):
        with pytest.raises(TextError):
            load_documents(name, part)
    with pytest.raises(TextError, match=r"missing\.txt"):
        load_documents(str(tmp_path / "missing.txt"))


def test_windows_are_distinct_pieces_of_the_stream_and_seeded() -> None:
    every = token_windows(DOCUMENTS, TOKENIZER, window=32, count=0, seed=0)
    joined = TOKENIZER("\n\n".join(DOCUMENTS)).input_ids
    assert every.dtype == torch.long and every.flatten().tolist() == joined[: every.numel()]
    assert len(every) == len(joined) // 32
    some = token_windows(DOCUMENTS, TOKENIZER, window=32, count=20, seed=1)
    rows = {tuple(row) for row in every.tolist()}
    assert some.shape == (20, 32) and len({tuple(row) for row in some.tolist()} & rows) == 20
    assert torch.equal(some, token_windows(DOCUMENTS, TOKENIZER, window=32, count=20, seed=1))
    assert torch.equal(some[:5], token_windows(DOCUMENTS, TOKENIZER, window=32, count=5, seed=1))
    assert not torch.equal(some, token_windows(DOCUMENTS, TOKENIZER, window=32, count=20, seed=2))
    assert len(token_windows(DOCUMENTS, TOKENIZER, window=32, count=10_000, seed=1)) == len(every)


def test_beginning_of_sequence_is_part_of_the_window() -> None:
    with_bos = token_windows(DOCUMENTS, TOKENIZER, window=32, count=0, seed=0, bos=True)
    without = token_windows(DOCUMENTS, TOKENIZER, window=31, count=0, seed=0)
    assert with_bos.shape[1] == 32 and bool((with_bos[:, 0] == TOKENIZER.bos_token_id).all())
    assert torch.equal(with_bos[:, 1:], without)
    assert wants_bos("auto", tiny_tokenizer(add_bos=True)) and not wants_bos("auto", TOKENIZER)
    assert wants_bos("yes", TOKENIZER) and not wants_bos("no", tiny_tokenizer(add_bos=True))
    # Special tokens that a tokenizer adds by itself never come into the stream.
    own = tiny_tokenizer(add_bos=True)
    assert torch.equal(token_windows(DOCUMENTS, own, window=31, count=0, seed=0), without)


def test_too_short_says_how_many_tokens_there_are() -> None:
    for cut in (token_windows, sequential_windows):
        options: dict[str, Any] = {"count": 1, "seed": 0} if cut is token_windows else {"max_windows": 1}
        with pytest.raises(TextError, match="5 tokens"):
            cut(["abcde"], TOKENIZER, window=6, **options)
        assert cut(["abcdef"], TOKENIZER, window=6, **options).shape == (1, 6)
    nameless = tiny_tokenizer()
    nameless.bos_token = None
    with pytest.raises(TextError, match="beginning"):
        token_windows(DOCUMENTS, nameless, window=6, count=1, seed=0, bos=True)


def test_long_texts_are_tokenised_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = token_windows(DOCUMENTS, TOKENIZER, window=16, count=0, seed=0)
    monkeypatch.setattr(windows, "_AT_ONCE", 700)
    assert torch.equal(token_windows(DOCUMENTS, TOKENIZER, window=16, count=0, seed=0), whole)


def test_sequential_windows_in_order_spread_and_strided() -> None:
    every = sequential_windows(DOCUMENTS, TOKENIZER, window=32, max_windows=0)
    assert torch.equal(every, token_windows(DOCUMENTS, TOKENIZER, window=32, count=0, seed=0))
    some = sequential_windows(DOCUMENTS, TOKENIZER, window=32, max_windows=4)
    assert torch.equal(some, every[[index * len(every) // 4 for index in range(4)]])
    assert torch.equal(sequential_windows(DOCUMENTS, TOKENIZER, window=32, max_windows=10_000), every)
    strided = sequential_windows(DOCUMENTS, TOKENIZER, window=32, max_windows=0, stride=16)
    assert torch.equal(strided[1:, :16], strided[:-1, 16:]) and torch.equal(strided[::2][: len(every)], every)
    with pytest.raises(TextError, match="stride"):
        sequential_windows(DOCUMENTS, TOKENIZER, window=32, max_windows=0, stride=33)


def test_mixed_windows_take_equal_shares_in_turns(tmp_path: Path) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    paths[0].write_text("a" * 600)
    paths[1].write_text("b" * 600)
    mixed = mixed_windows([str(p) for p in paths], TOKENIZER, part="calibrate", window=20, count=7, seed=0)
    a, b = TOKENIZER("ab").input_ids
    assert mixed[:, 0].tolist() == [a, b, a, b, a, b, a]
    everything = mixed_windows([str(p) for p in paths], TOKENIZER, part="calibrate", window=20, count=0, seed=0)
    assert len(everything) == 36, "the calibration part of each: three pieces of five"
    with pytest.raises(TextError):
        mixed_windows([], TOKENIZER, part="calibrate", window=20, count=7, seed=0)


def test_built_in_formats() -> None:
    body = "x" * 1001
    wiki = (
        f'<doc id="1" url="u" title="A">\nA\n\n{body}\n\n</doc>\n<doc id="2" url="u" title="B">\nB\n\nshort\n</doc>\n'
    )
    assert documents._built_in("wiki", wiki) == [f"A\n\n{body}"]
    pages = ["page\u2028one", "page two"]
    assert documents._built_in("c4", "\n".join([*pages, "", ""])) == pages
    pieces = documents._built_in("code", "\n".join(["y" * 99] * 100))
    assert len(pieces) == 3 and "\n".join(pieces) == "\n".join(["y" * 99] * 100)


def test_hub_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []
    rows = {
        "train": datasets.Dataset.from_dict({"id": [1, 2], "text": ["one", "two"]}),
        "test": datasets.Dataset.from_dict({"sentence": ["three"]}),
    }

    def load(name: str, config: str | None, split: str | None) -> Any:
        asked.append((name, config, split))
        if name == "no/where":
            raise ConnectionError("cannot reach the hub")
        return rows[split] if split else datasets.DatasetDict(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert load_documents("some/set:raw", "calibrate") == ["one", "two"]
    assert load_documents("some/set:raw", "report") == ["three"]
    assert load_documents("some/set:raw:test", "all") == ["three"]
    assert asked == [("some/set", "raw", None), ("some/set", "raw", None), ("some/set", "raw", "test")]
    with pytest.raises(TextError, match="reach the hub"):
        load_documents("no/where")


@pytest.mark.pack
def test_built_in_texts_of_the_pack() -> None:
    wiki, c4 = load_documents("wiki"), load_documents("c4")
    assert (len(wiki), len(c4)) == (407, 118)
    assert wiki[0].splitlines()[0].split()[:2] == ["2007", "European"] and "<doc" not in "".join(wiki)
    articles = load_documents("gensim", "report")
    assert 80 <= len(articles) <= 100 and 2.2e6 < sum(map(len, articles)) < 2.9e6
    assert not any(mark in text for text in articles for mark in ("{{", "}}", "[[", "]]", "'''", "<ref"))
    for name in ("tiny", "technical", "code", "multilingual"):
        assert all(load_documents(name, part) for part in ("calibrate", "select", "report"))


def test_few_documents_are_cut_into_pieces_that_are_dealt() -> None:
    text = tiny_text(30_000)
    pieces = dealt([text])
    assert len(pieces) == 8 and max(map(len, pieces)) < 4100
    assert "".join("".join(pieces).split()) == "".join(text.split())
    parts = [part_of([text], part) for part in ("calibrate", "select", "report")]
    assert sorted(piece for part in parts for piece in part) == sorted(pieces)
    assert part_of([text], "all") == [text], "where nothing is held back it is one document"
    assert dealt(["x" * 3000]) == ["x" * 600] * 5, "without a border it is cut anywhere"


def _as(kind: str, folder: Path, documents: list[str]) -> str:
    """The same documents under another name, in another format."""
    path = folder / f"other.{kind}"
    if kind == "jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(json.dumps({"text": text}) for text in documents).encode()))
    elif kind == "csv":
        path.write_text("text\n" + "\n".join(f'"{text}"' for text in documents))
    elif kind == "json":
        path.write_text(json.dumps(documents[::-1]))
    else:
        path.write_text("\n\n".join(documents))
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl.gz", "csv", "json", "txt"])
def test_what_was_calibrated_on_is_not_reported_on_whatever_file_it_lies_in(kind: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text("\n".join(json.dumps({"text": text}) for text in DOCUMENTS))
    same = unseen_documents(str(mine), [str(mine)])
    assert same.documents == part_of(DOCUMENTS, "report") and "8 of 10 documents of mine.jsonl" in same.warning
    other = unseen_documents(_as(kind, tmp_path, DOCUMENTS), ["wiki", str(mine)])
    assert other.warning and other.documents
    known = {line for text in part_of(DOCUMENTS, "calibrate") for line in text.split(". ") if len(line) > 60}
    assert not [line for line in known if line in "\n".join(other.documents)]


def test_only_what_is_known_is_left_out(tmp_path: Path) -> None:
    mine, both = tmp_path / "mine.jsonl", tmp_path / "both.jsonl"
    fresh = [tiny_text(300, seed) for seed in range(50, 56)]
    mine.write_text("\n".join(json.dumps({"text": text}) for text in DOCUMENTS))
    both.write_text("\n".join(json.dumps({"text": text}) for text in [DOCUMENTS[0], *fresh, DOCUMENTS[4]]))
    found = unseen_documents(str(both), [str(mine)])
    assert found.documents == [*fresh, DOCUMENTS[4]] and "1 of 8" in found.warning
    untouched = unseen_documents(str(both), ["wiki", "c4"])
    assert len(untouched.documents) == 8 and not untouched.warning
    assert not unseen_documents(_as("txt", tmp_path, fresh), [str(mine)]).warning


def test_one_document_is_divided_by_position_and_a_short_one_is_told(tmp_path: Path) -> None:
    long, short = tmp_path / "long.txt", tmp_path / "short.txt"
    long.write_text(tiny_text(12_000))
    short.write_text("Only a line that everything is done with.")
    found = unseen_documents(str(long), [str(long)])
    assert found.documents == part_of([long.read_text()], "report") and "4 of 5 pieces" in found.warning
    told = unseen_documents(str(short), [str(short)])
    assert told.documents == [short.read_text()] and "tuned on" in told.warning
    gone = unseen_documents(str(long), [str(tmp_path / "gone.txt")])
    assert len(gone.documents) == 1 and "gone.txt is gone" in gone.warning


def test_a_data_set_is_reported_on_by_its_own_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = {
        "train": datasets.Dataset.from_dict({"text": ["one"]}),
        "test": datasets.Dataset.from_dict({"text": ["three"]}),
    }
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, split=None: rows[split] if split else datasets.DatasetDict(rows)
    )
    assert unseen_documents("some/set", ["some/set"]).documents == ["three"]
    assert documents.reported_documents("some/set:raw:train") == ["one"]


@pytest.mark.parametrize("name", ["foo", "texts", "missing.txt", "a/b/c/d.txt"])
def test_a_name_that_stands_for_no_text_is_refused_before_anything_is_queued(name: str) -> None:
    with pytest.raises(TextError):
        check_texts(["wiki", name])
    check_texts(["wiki", "generated", "owner/name", "owner/name:config"])
