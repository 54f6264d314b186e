"""Tensors on disk, one safetensors file a decoder block: written whole or not at all, read lazily."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lrc_core.damage import earlier
from lrc_core.errors import RunError
from lrc_core.files import disk_errors, write_json, write_tensors

_DONE = "complete.json"
_CLEAN = "`lrc doctor --clean` removes cached decompositions."


class BlockFiles:
    """A folder of ``block-0000.safetensors``, ... and, once all are there, ``complete.json`` that says what they are.

    Args:
        folder: where the files lie; created when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def complete(self) -> bool:
        """Whether every block has been written. A mark that cannot be read marks nothing."""
        return earlier(self.folder / _DONE, _description) is not None

    @property
    def description(self) -> dict[str, Any]:
        """What was given to :meth:`finish`.

        Raises:
            RunError: the file is missing or damaged.
        """
        return _description(self.folder / _DONE)

    def has_block(self, block: int) -> bool:
        """Whether a block has been written and is whole; one that is not is set aside."""
        return earlier(self._file(block), _require_whole) is not None

    def write(self, block: int, tensors: Mapping[str, Tensor]) -> None:
        """Store one block.

        Raises:
            ResourceError: the disk is full.
        """
        self._make_folder()
        write_tensors(self._file(block), tensors)

    def finish(self, description: Mapping[str, Any]) -> None:
        """Mark the folder complete and say what it was made from."""
        self._make_folder()
        write_json(self.folder / _DONE, dict(description))

    def read(self, block: int, key: str) -> Tensor:
        """One tensor.

        Raises:
            RunError: the file is missing or damaged.
        """
        path = self._file(block)
        try:
            with safe_open(str(path), "pt") as file:
                tensor: Tensor = file.get_tensor(key)
                return tensor
        except (OSError, SafetensorError) as error:
            raise RunError(f"{key} cannot be read from {path}: {error}.", f"Make it anew: {_CLEAN}") from error

    def delete(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_folder(self) -> None:
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def _file(self, block: int) -> Path:
        return self.folder / f"block-{block:04d}.safetensors"


def _description(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}.", f"Make it anew: {_CLEAN}") from error


def _require_whole(path: Path) -> bool:
    with safe_open(str(path), "pt"):  # compares the header with the file's length
        return True
