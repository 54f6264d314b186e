"""Finished measurements on disk, one JSON object a line, so that a cancelled run does not make them again. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lrc_core.damage import read_lines
from lrc_core.files import append_line


class RecordFile:
    """A file of records that only grows.

    Args:
        path: the file; its folder is made when the first record is written.
        fields: names that every record has; a line without one of them is not a record.
    """

    def __init__(self, path: Path, fields: tuple[str, ...]) -> None:
        self._path, self._fields = path, fields

    def read(self) -> list[dict[str, Any]]:
        """All records. Lines that a kill or a full disk left broken are dropped: what they were is measured again."""
        return read_lines(self._path, lambda record: set(self._fields) <= set(record))

    def append(self, record: dict[str, Any]) -> None:
        """Add one record; it is on disk when this returns.

        Raises:
            ResourceError: the disk is full.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._path, json.dumps(record))
