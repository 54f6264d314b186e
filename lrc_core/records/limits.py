"""What the values of records may be: annotations that the reader obeys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

MAX_INT, MAX_FLOAT = 2**63, 1e300


@dataclass(frozen=True)
class Range:
    """Limits of a number, inclusive."""

    low: float = -MAX_FLOAT
    high: float = MAX_FLOAT


@dataclass(frozen=True)
class TextLimit:
    """What a text may be: a whole match of ``pattern``, and no longer than ``longest`` characters."""

    pattern: str = r"(?s:.*)"
    longest: int = 1_000_000
    meaning: str = "plain text"


@dataclass(frozen=True)
class OneOf:
    """The texts that a field may hold."""

    choices: tuple[str, ...]


AS_WRITTEN = "as written"
Written = Annotated[str, AS_WRITTEN]
"""What a model wrote, which may hold halves of surrogate pairs."""
Moment = Annotated[float, Range(0, 9e9)]
"""Unix seconds, 0 for never; a date library counts to the year 2262."""
Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, 1)]
Name = Annotated[str, TextLimit(r"[a-z0-9_]+", 100, "a name of small letters, digits and _")]
"""Of a method, a decomposition: what becomes part of a label."""
Label = Annotated[str, TextLimit(r"[^\x00-\x1f\x7f]*", 500, "one line")]
Place = Annotated[str, TextLimit(r"[^\x00]*", 4096, "a name or path")]
"""Hub id, folder, file: what reaches the file system."""
