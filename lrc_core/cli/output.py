"""What the command line writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import argparse
import codecs
import io
import json
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from lrc_core.files import json_plain
from lrc_core.words import aligned, data_size, percent

fixed_percent = partial(percent, fixed=True)
"""0.8 as ``80.0 %``, so that columns line up."""

_STAND_INS = {
    "–": "-", "—": "-", "−": "-", "─": "-", "·": "-", "→": "->", "←": "<-", "×": "x", "±": "+-", "…": "...",
    "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "≤": "<=", "≥": ">=",
}  # fmt: skip


def write_what_the_terminal_can() -> None:
    """Let both streams write stand-ins for signs that their encoding lacks: a table is worth more than its dashes."""
    codecs.register_error("lrc", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="lrc")


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """ASCII for what could not be encoded: of the same meaning, without its accents, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(sign) or _unaccented(sign) or "?" for sign in signs), error.end


def _unaccented(sign: str) -> str:
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()


def emit_json(data: Any) -> None:
    """The one JSON document of a command."""
    sys.stdout.write(json.dumps(data, indent=1, default=json_plain) + "\n")


def answer(arguments: argparse.Namespace, found: Any, show: Callable[[Any], object]) -> None:
    """The result of a command: one JSON document where that was asked for, else as ``show`` writes it for people."""
    if arguments.json:
        emit_json(found)
    else:
        show(found)


def emit(text: str = "") -> None:
    """Print one line of a result."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Print one line on standard error, beside the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def emit_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns."""
    emit(aligned(header, rows))


def print_files(found: Mapping[str, Any]) -> None:
    """Files that were written, with their sizes."""
    for entry in found["files"]:
        emit(f"{entry['path']}  {data_size(entry['bytes'])}")


def moment(at: float) -> str:
    """Local date and time of unix seconds, ``–`` for never."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M") if at > 0 else "–"
