"""Documents of a text by its name, and the parts they are dealt into. No torch.

A text is a list of documents. Built-in ones come with the starter pack; others are files (see
:mod:`lrc_core.texts.files`), or data sets on the Hugging Face hub. So that nothing is reported on what it was tuned on,
documents are dealt into three parts by their index: of every five, three to calibrate, one to select settings, one to
report. A text of fewer than five documents is cut into pieces first, and these are dealt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lrc_core.errors import TextError
from lrc_core.models.pack import starter
from lrc_core.runs.spec import GENERATED
from lrc_core.texts.files import TextFile, is_file, read_file, split_field

BUILT_IN = (*starter.TEXTS, "gensim")
PARTS = {"calibrate": (0, 1, 2), "select": (3,), "report": (4,)}
DEALT = 5
"""Documents from which on a text is dealt by document."""
_OFFICIAL_SPLITS = {"calibrate": "train", "select": "validation", "report": "test", "all": "train"}
_ARTICLE = re.compile(r'<doc id="[^"]*" url="[^"]*" title="[^"]*">\n(.*?)</doc>', re.DOTALL)
_LEAST_ARTICLE = 1000
"""Shortest article of ``wiki`` kept, in characters: most of the others are a title and one sentence."""
_PIECE = 4000
"""Length, in characters, of the documents that a text without document borders is cut into."""
_LEAST_PIECE = 100
"""Characters below which a piece is no sample of anything: a text shorter than five of them is used whole."""
_HUB_DATA_SET = re.compile(r"[\w.-]+/[\w.-]+(:[^:]*){0,2}")


def require_known(name: str) -> None:
    """Refuse what is neither a built-in text, nor a file, nor the name of a data set.

    Raises:
        TextError: says what can be named.
    """
    if name not in (*BUILT_IN, GENERATED) and not is_file(name) and not is_data_set(name):
        raise TextError(
            f"There is no text {name!r}.",
            f"Name a file that exists, a hub data set (owner/name), or one of {', '.join(BUILT_IN)}.",
        )


def load_documents(name: str, part: str = "all") -> list[str]:
    """The documents of a text.

    Args:
        name: one of :data:`BUILT_IN`, a file (``FILE#field=NAME`` where its text is in another field than ``text``), or
            a hub data set ``owner/name[:config[:split]]``.
        part: ``calibrate``, ``select``, ``report``, or ``all``; see :func:`part_of`. A data set's own splits are used
            where no split is named. ``gensim`` is only reported on.

    Raises:
        TextError: unknown name or part, unreadable, no text, or empty.
        PackError: a built-in text cannot be fetched.
    """
    if part not in ("all", *PARTS):
        raise TextError(f"There is no part {part!r} of a text.", f"Choose all, {', '.join(PARTS)}.")
    if name == GENERATED:
        raise TextError("The text generated is written by the model itself and can only be calibrated on.")
    if name == "gensim":
        return _articles(part)
    require_known(name)
    if name in BUILT_IN:
        file = starter.ensure_texts() / f"{name}.utf8"
        documents = _built_in(name, file.read_text(encoding="utf-8"))
    elif is_file(name):
        documents = list(read_file(name).documents)
    else:
        documents, split = _hub_data_set(name, part)
        part = "all" if split else part
    if not any(document.strip() for document in documents):
        raise TextError(f"The text {name} is empty.")
    return part_of(documents, part)


def preview_of(name: str) -> str:
    """What was understood of a text, in one line: documents, characters, format, beginning of the first.

    Raises:
        TextError, PackError: see :func:`load_documents`.
    """
    if is_file(name):
        return read_file(name).words
    documents = load_documents(name, "report" if name == "gensim" else "all")
    return TextFile(tuple(documents), "built in" if name in BUILT_IN else "data set on the hub").words


def reported_documents(name: str) -> list[str]:
    """What may be reported on of a text that nothing was calibrated on.

    Of a built-in text its report part, of a data set on the hub its official test split where no split is named and
    there is one, of anything else all documents.

    Raises:
        TextError, PackError: see :func:`load_documents`.
    """
    if name not in BUILT_IN and not is_file(name) and is_data_set(name):
        documents, split = _hub_data_set(name, "report")
        if split and documents:
            return documents
    return load_documents(name, "report" if name in BUILT_IN else "all")


def is_data_set(name: str) -> bool:
    """Whether a name can only be that of a data set on the hub."""
    path, field = split_field(name)
    looks_like_file = path.suffix.lower() in (".txt", ".jsonl", ".json", ".md", ".csv", ".parquet", ".gz")
    return not field and not looks_like_file and _HUB_DATA_SET.fullmatch(name) is not None


def part_of(documents: Sequence[str], part: str) -> list[str]:
    """The documents of a part by index: i mod 5 in 0, 1, 2 calibrate, 3 select, 4 report.

    Of fewer than five documents the pieces of :func:`dealt` take their place.
    """
    if part == "all":
        return list(documents)
    pieces = dealt(documents)
    if len(pieces) < DEALT:
        return pieces
    return [piece for index, piece in enumerate(pieces) if index % DEALT in PARTS[part]]


def dealt(documents: Sequence[str]) -> list[str]:
    """What is dealt into parts: the documents, or where they are few, pieces of them of at most about 4,000 characters.

    A text that is too short to be cut stays whole, and is in every part.
    """
    size = sum(map(len, documents))
    if len(documents) >= DEALT or size < DEALT * _LEAST_PIECE:
        return list(documents)
    longest = min(_PIECE, size // DEALT)
    return [piece for document in documents for piece in _cut(document, longest)]


def _cut(document: str, longest: int) -> Iterator[str]:
    """Equal pieces, cut at the end of a line or a word where there is one nearby."""
    count = max(1, -(-len(document) // longest))
    start = 0
    for number in range(1, count + 1):
        end = len(document) if number == count else _border(document, number * len(document) // count)
        if piece := document[start:end].strip():
            yield piece
        start = max(start, end)


def _border(document: str, near: int) -> int:
    """The last line end in the hundred characters before a place, else the last space, else the place itself."""
    beginning = max(0, near - _LEAST_PIECE)
    found = max(document.rfind("\n", beginning, near), 0) or max(document.rfind(" ", beginning, near), 0)
    return found or near


def _articles(part: str) -> list[str]:
    if part != "report":
        raise TextError(
            "The text gensim is only reported on, so that it stays unseen.", "Choose wiki or c4 for anything else."
        )
    return list(read_file(str(starter.ensure_articles())).documents)


def _built_in(name: str, text: str) -> list[str]:
    if name == "wiki":
        articles = (body.strip() for body in _ARTICLE.findall(text))
        return [article for article in articles if len(article) > _LEAST_ARTICLE]
    if name == "c4":  # one page a line; other line separators belong to the page
        return [page for page in text.split("\n") if page.strip()]
    return list(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    """Cut at the first line end after every :data:`_PIECE` characters."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PIECE)
        end = len(text) if end < 0 else end
        if piece := text[start:end].strip("\n"):
            yield piece
        start = end + 1


def _hub_data_set(name: str, part: str) -> tuple[list[str], str]:
    """The rows of a data set, and the split they are when that already is the wanted part."""
    import datasets

    repository, _, rest = name.partition(":")
    config, _, split = rest.partition(":")
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(repository, config or None, split=split or None)
    except Exception as error:  # the library raises many kinds, and passes on those of the hub
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TextError(
            f"The data set {name} cannot be loaded: {reason}",
            "Check the spelling (owner/name:config:split) and the network connection, or use a local file.",
        ) from error
    official = ""
    if isinstance(loaded, dict):
        if part != "all" and _OFFICIAL_SPLITS[part] in loaded:
            official = _OFFICIAL_SPLITS[part]
        loaded = loaded[official or ("train" if "train" in loaded else next(iter(loaded)))]
    return _text_column(loaded, name), official


def _text_column(rows: Any, name: str) -> list[str]:
    columns = list(rows.column_names)
    column = (
        "text" if "text" in columns else next((c for c in columns if len(rows) and isinstance(rows[0][c], str)), "")
    )
    if not column:
        raise TextError(f"The data set {name} has no column of text; it has {', '.join(columns)}.")
    return [str(text) for text in rows[column]]
