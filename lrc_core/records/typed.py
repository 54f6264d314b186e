"""Frozen dataclasses from parsed JSON, by their annotations."""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lrc_core.errors import RecordError
from lrc_core.records.limits import AS_WRITTEN, MAX_FLOAT, MAX_INT, OneOf, Range, TextLimit
from lrc_core.records.parse import AGAIN

T = TypeVar("T")
Reader = Callable[[Any], Any]
"""Takes a value of JSON and returns it as the record holds it; raises :class:`_WrongError`."""


class _WrongError(Exception):
    """What is wrong with a value, and on the way up the field it lies in."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str] = []


def typed(record: type[T], data: Any, where: str, *, remedy: str = AGAIN, others: bool = False) -> T:
    """A record from parsed JSON, every field checked against its annotation.

    Args:
        record: a frozen dataclass, or any other annotation.
        data: parsed JSON; tuples may stand for lists.
        where: names the file.
        remedy: what to do when it is damaged.
        others: whether fields that the record does not have may be there.

    Raises:
        RecordError: names the file and the field.
    """
    kind: Any = record
    try:
        found: T = _reader(kind, others)(data)
        return found
    except _WrongError as wrong:
        field = ".".join(wrong.path)
        what = f"field {field} {wrong.what}" if field else f"it {wrong.what}"
        raise RecordError(f"{where} is damaged: {what}.", remedy, where, field) from None


@lru_cache(maxsize=256)
def _reader(kind: Any, others: bool = False) -> Reader:
    """What reads values of an annotation."""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    origin, parts = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _of_record(kind, others)
    if origin is Annotated and AS_WRITTEN in parts:
        return _any_text
    if origin is Annotated:
        return _limited(_reader(parts[0]), parts[1:])
    if origin in (Union, types.UnionType):
        return _either(parts)
    if origin is Literal:
        return _limited(_text, (OneOf(parts),))
    if origin is tuple and parts[1:] != (...,):
        return _fixed([_reader(part) for part in parts])
    if origin in (tuple, list):
        return _many(_reader(parts[0]), origin)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _table(_reader(parts[1]))
    raise TypeError(f"no record holds {kind!r}")


def _of_record(kind: Any, others: bool) -> Reader:
    hints = get_type_hints(kind, include_extras=True)
    readers = {f.name: _limited(_reader(hints[f.name]), _limits_of(f)) for f in dataclasses.fields(kind)}
    needed = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }

    def read(value: Any) -> Any:
        if type(value) is not dict and not isinstance(value, Mapping):  # the second question takes ten times as long
            raise _WrongError(f"is {_shown(value)}, but must be a record")
        if not others and not value.keys() <= readers.keys():
            raise _at(next(str(name) for name in value if name not in readers)[:100], _WrongError("is unknown"))
        found = {}
        for name, reader in readers.items():
            if name in value:
                try:
                    found[name] = reader(value[name])
                except _WrongError as wrong:
                    raise _at(name, wrong) from None
            elif name in needed:
                raise _at(name, _WrongError("is missing"))
        return kind(**found)

    return read


def _at(name: str, wrong: _WrongError) -> _WrongError:
    wrong.path.insert(0, name)
    return wrong


def _limits_of(field: dataclasses.Field[Any]) -> tuple[Any, ...]:
    """The limits of a setting, which its widget and its flag obey as well."""
    low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
    ranges = [] if low is None and high is None else [Range(*(-MAX_FLOAT if low is None else low, high or MAX_FLOAT))]
    choices = field.metadata.get("choices")
    return (*ranges, *([OneOf(tuple(choices))] if choices else []))


def _limited(reader: Reader, limits: Sequence[Any]) -> Reader:
    """The reader, with what its values must be besides."""
    for limit in limits:
        if isinstance(limit, Range):
            reader = _within(reader, limit)
        elif isinstance(limit, TextLimit):
            reader = _worded(reader, limit)
        elif isinstance(limit, OneOf):
            reader = _chosen(reader, limit.choices)
    return reader


def _within(reader: Reader, limit: Range) -> Reader:
    low, high = limit.low, limit.high

    def read(value: Any) -> Any:
        found = reader(value)
        if not low <= found <= high:
            bound = f"at least {low:g}" if found < low else f"at most {high:g}"
            raise _WrongError(f"is {_shown(value)}, but must be {bound}")
        return found

    return read


def _worded(reader: Reader, limit: TextLimit) -> Reader:
    matches, longest = re.compile(limit.pattern).fullmatch, limit.longest

    def read(value: Any) -> Any:
        found = reader(value)
        if len(found) > longest:
            raise _WrongError(f"has {len(found):,} characters, but at most {longest:,} are allowed")
        if matches(found) is None:
            raise _WrongError(f"is {_shown(value)}, but must be {limit.meaning}")
        return found

    return read


def _chosen(reader: Reader, choices: tuple[str, ...]) -> Reader:
    def read(value: Any) -> Any:
        found = reader(value)
        for word in found if type(found) is tuple else (found,):
            if word not in choices:
                raise _WrongError(f"is {_shown(word)}, but must be one of {', '.join(choices)}")
        return found

    return read


def _either(parts: tuple[Any, ...]) -> Reader:
    readers = [_reader(part) for part in parts if part is not type(None)]
    empty = len(readers) < len(parts)

    def read(value: Any) -> Any:
        if value is None and empty:
            return None
        for reader in readers[:-1]:
            try:
                return reader(value)
            except _WrongError:
                continue
        return readers[-1](value)

    return read


def _many(reader: Reader, made: Callable[[list[Any]], Any]) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _WrongError(f"is {_shown(value)}, but must be a list")
        found = []
        for number, item in enumerate(value):
            try:
                found.append(reader(item))
            except _WrongError as wrong:
                raise _at(str(number), wrong) from None
        return made(found)

    return read


def _fixed(readers: list[Reader]) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(readers):
            raise _WrongError(f"is {_shown(value)}, but must be a list of {len(readers)}")
        return tuple(reader(item) for reader, item in zip(readers, value, strict=True))

    return read


def _table(reader: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _WrongError(f"is {_shown(value)}, but must be a table")
        found = {}
        for name, item in value.items():
            _text(name)
            try:
                found[name] = reader(item)
            except _WrongError as wrong:
                raise _at(name[:100], wrong) from None
        return found

    return read


def _any_text(value: Any) -> Any:
    if type(value) is not str:
        raise _WrongError(f"is {_shown(value)}, but must be text")
    return value


def _text(value: Any) -> Any:
    text: str = _any_text(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _WrongError("holds half of a surrogate pair, which cannot be shown or written") from None
    return text


def _whole(value: Any) -> Any:
    if type(value) is not int or not -MAX_INT < value < MAX_INT:
        raise _WrongError(f"is {_shown(value)}, but must be a whole number")
    return value


def _number(value: Any) -> Any:
    # A whole number stays one: the hash of a record that is written again must not change.
    if type(value) not in (int, float) or not -MAX_FLOAT < value < MAX_FLOAT or not math.isfinite(value):
        raise _WrongError(f"is {_shown(value)}, but must be a finite number")
    return value


def _truth(value: Any) -> Any:
    if type(value) is not bool:
        raise _WrongError(f"is {_shown(value)}, but must be true or false")
    return value


def _anything(value: Any) -> Any:
    return value


def _shown(value: Any) -> str:
    """A value in a message: short, whatever it is."""
    if isinstance(value, Mapping | list | tuple):
        return "a table" if isinstance(value, Mapping) else "a list"
    if type(value) is int and abs(value) >= MAX_INT:
        return "a huge number"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_SIMPLE: dict[Any, Reader] = {str: _text, int: _whole, float: _number, bool: _truth, Any: _anything}
