"""Reading the JSON files of a model folder, which anybody may have written: not too large, not too deep. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lrc_core.errors import ModelError

MAX_BYTES = 50_000_000
"""The index of the largest public model has a fifth of that."""
MAX_TOKENIZER_BYTES = 200_000_000
_MAX_DEPTH = 64
_REMEDY = "Download or copy the file again."


def read_table(path: Path, most: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        most: bytes it may have.

    Raises:
        ModelError: it cannot be read, is too large, nested too deeply, or no JSON object; names the file.
    """
    try:
        if (size := path.stat().st_size) > most:
            raise ModelError(f"{path} has {size:,} bytes, more than any model's.", _REMEDY)
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ModelError(f"{path} is nested too deeply.", _REMEDY) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"Cannot read {path}: {error}.", _REMEDY) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold a JSON object.", _REMEDY)
    if _deeper(content, _MAX_DEPTH):
        raise ModelError(f"{path} is nested too deeply.", _REMEDY)
    return content


def _deeper(content: Any, most: int) -> bool:
    level = [content]
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
