"""JSON within limits: size, depth, every key once, text that can be shown."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from lrc_core.errors import RecordError

MAX_BYTES, MAX_DEPTH = 64 * 2**20, 64
"""The largest plan of a 70B model has some ten megabytes; the deepest record is a result with eight levels."""
AGAIN = "Delete the run and start it again."


def parse(text: str | bytes, where: str, *, remedy: str = AGAIN, strict: bool = False, most: int = MAX_BYTES) -> Any:
    """The content of a JSON text.

    Args:
        text: UTF-8 where it is bytes.
        where: names the file.
        remedy: what to do when it is damaged.
        strict: refuse NaN, infinity and halves of surrogate pairs, which figures and a model's own words may hold.
        most: bytes or characters.

    Raises:
        RecordError: no JSON, too long, nested too deeply, a key twice, or text that is no Unicode.
    """
    try:
        if len(text) > most:
            raise ValueError(f"it is larger than {most // 2**20} MB")
        source = text.decode("utf-8") if isinstance(text, bytes) else text
        data = (_STRICT if strict else _LENIENT).decode(source)
        if source.count("[") + source.count("{") > MAX_DEPTH:
            _check_depth(data)
        if strict and "\\u" in source:
            json.dumps(data, ensure_ascii=False).encode()  # half of a surrogate pair cannot be shown or written
        return data
    except RecursionError:
        raise _damaged(where, f"it is nested more than {MAX_DEPTH} deep", remedy) from None
    except (ValueError, MemoryError) as error:
        raise _damaged(where, str(error) or "it does not fit into memory", remedy) from error


def load_record(path: Path, *, remedy: str = AGAIN, strict: bool = False, most: int = MAX_BYTES) -> Any:
    """The content of a JSON file; see :func:`parse`.

    Raises:
        RecordError: missing, unreadable, no regular file, or as :func:`parse` says.
    """
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):  # reading from a pipe would wait for ever
            raise RecordError(f"{path} is not a file.", remedy)
        if info.st_size > most:
            raise _damaged(str(path), f"it is larger than {most // 2**20} MB", remedy)
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise RecordError(f"There is no file {path}.", remedy) from error
    except OSError as error:
        raise RecordError(f"Cannot read {path}: {error.strerror or error}.", remedy) from error
    except ValueError as error:
        raise RecordError(f"Cannot read {str(path)!r}: {error}.", remedy) from error
    return parse(data, str(path), remedy=remedy, strict=strict, most=most)


def _damaged(where: str, what: str, remedy: str) -> RecordError:
    return RecordError(f"{where} is damaged: {what}.", remedy, where)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(name for name in names if names.count(name) > 1)[:100]!r} is there twice")
    return found


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number that can be meant here")


_LENIENT = json.JSONDecoder(object_pairs_hook=_once)
_STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refused)


def _check_depth(data: Any) -> None:
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for value in level
            for child in (value.values() if type(value) is dict else value if type(value) is list else ())
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise RecursionError
