"""What of a text may be reported on when some texts were calibrated on: no document of theirs, by content. No torch.

Two documents are the same when most of their word sequences are, whatever file they lie in: an export as CSV, a copy
under another name and a file of all documents in one are told from new text alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

from lrc_core.runs.spec import GENERATED
from lrc_core.texts.documents import BUILT_IN, dealt, is_data_set, load_documents, reported_documents
from lrc_core.texts.files import is_file
from lrc_core.texts.label import text_label

_WORDS = 12
"""Length of a word sequence: so many words in a row are not the same by chance."""
_SAMPLED = 8
"""One of so many sequences is kept, chosen by its content, so that a large text needs little memory."""
_LOOKED_AT = 50_000_000
"""Characters of a calibration text that are looked at."""
_SAME = 0.3
"""Share of a document's sequences from which on it counts as known."""


@dataclass(frozen=True)
class Unseen:
    """Documents to report on.

    Attributes:
        documents: of the text, without those that were calibrated on; all of them where none would be left.
        warning: what was left out, or could not be; "" where nothing was in common.
    """

    documents: list[str]
    warning: str = ""


def unseen_documents(name: str, calibrated_on: Sequence[str]) -> Unseen:
    """Documents of a text that is reported on.

    Built-in texts are dealt into parts when they are read. Of any other one all documents are taken, except those that
    the parts ``calibrate`` and ``select`` of the calibration texts hold as well.

    Args:
        name: of the text.
        calibrated_on: names of the calibration texts; built-in ones are not looked into.

    Raises:
        TextError, PackError: see :func:`load_documents`.
    """
    documents, known, gone = reported_documents(name), set[int](), []
    for text in dict.fromkeys(calibrated_on):
        if text in (*BUILT_IN, GENERATED):
            continue
        if not (is_file(text) or is_data_set(text)):
            gone.append(text_label(text))
            continue
        for part in ("calibrate", "select"):
            for document in _beginning(load_documents(text, part)):
                known.update(_marks(document))
    found = _left(documents, known, text_label(name))
    if gone and name not in BUILT_IN:
        unknown = f"{', '.join(gone)} is gone: whether {text_label(name)} holds any of it is not known."
        return Unseen(found.documents, f"{found.warning} {unknown}".strip())
    return found


def _left(documents: list[str], known: set[int], label: str) -> Unseen:
    shares = [_share(document, known) for document in documents]
    if not any(shares):
        return Unseen(documents)
    pieces = dealt(documents)
    if len(pieces) > len(documents):
        shares = [_share(piece, known) for piece in pieces]
    left = [piece for piece, share in zip(pieces, shares, strict=True) if share < _SAME]
    if not left:
        words = f"All of {label} was calibrated on: its perplexity is of text that the plan was tuned on."
        return Unseen(documents, words)
    if len(left) == len(pieces):
        return Unseen(documents)
    what = f"{len(pieces)} {'documents' if len(pieces) == len(documents) else 'pieces'} of {label}"
    return Unseen(left, f"{len(pieces) - len(left)} of {what} were calibrated on and are not reported on.")


def _beginning(documents: Sequence[str]) -> Iterator[str]:
    """Documents up to the most that is looked at."""
    size = 0
    for document in documents:
        if size > _LOOKED_AT:
            return
        size += len(document)
        yield document


def _share(document: str, known: set[int]) -> float:
    """How much of a document is known: the share of its word sequences."""
    if not known:
        return 0.0
    whole, *rest = _marks(document)
    if whole in known:
        return 1.0
    return sum(mark in known for mark in rest) / len(rest) if rest else 0.0


def _marks(document: str) -> Iterator[int]:
    """A number for the document, and for some of its word sequences."""
    words = document.split()
    yield crc32(" ".join(words).encode())
    for start in range(len(words) - _WORDS + 1):
        mark = crc32(" ".join(words[start : start + _WORDS]).encode())
        if mark % _SAMPLED == 0:
            yield mark
