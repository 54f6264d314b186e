"""Tensors on disk, one safetensors file a decoder block: written whole or not at all, checked and read lazily."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lrc_core.errors import RecordError, ResourceError, RunError
from lrc_core.records import load, typed
from lrc_core.records.digest import digest_of, is_altered

log = logging.getLogger(__name__)

_DONE = "complete.json"
_CLEAN = "`lrc doctor --clean` removes cached decompositions."
_DIGESTS = "digests"


class BlockFiles:
    """A folder of ``block-0000.safetensors``, ... and, once all are there, ``complete.json`` that says what they are.

    The SHA-256 of every file is kept with it: in ``block-0000.sha256`` while blocks are written, in ``complete.json``
    afterwards. Folders of older versions have none, and are read as they are.

    Args:
        folder: where the files lie; created when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def complete(self) -> bool:
        """Whether every block has been written and is as it was written. What is not is made anew by whoever asks."""
        if not (self.folder / _DONE).exists():
            return False
        try:
            digests = self._digests()
        except RecordError as error:
            log.warning("made anew: %s", error)
            return False
        for name, digest in digests.items():
            path = self.folder / name
            if not path.exists() or is_altered(path, digest):
                log.warning("made anew: %s is missing or is not the file that was written", path)
                return False
        return True

    @property
    def description(self) -> dict[str, Any]:
        """What was given to :meth:`finish`.

        Raises:
            RecordError: the file is missing or damaged.
        """
        return {name: value for name, value in self._record().items() if name != _DIGESTS}

    def has_block(self, block: int) -> bool:
        """Whether a block has been written, and is as it was written."""
        path = self._file(block)
        return path.exists() and not is_altered(path, self._digest(block))

    def write(self, block: int, tensors: Mapping[str, Tensor]) -> None:
        """Store one block.

        Raises:
            ResourceError: the disk is full.
        """
        temporary = self._file(block).with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, str(temporary))
            digest = digest_of(temporary)
            temporary.replace(self._file(block))
            self._note(block).write_text(digest, encoding="ascii")
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise ResourceError(
                f"Cannot write {self._file(block)}: {error}.", f"Free some disk space; {_CLEAN}"
            ) from error

    def finish(self, description: Mapping[str, Any]) -> None:
        """Mark the folder complete and say what it was made from."""
        self.folder.mkdir(parents=True, exist_ok=True)
        notes = sorted(self.folder.glob("block-*.sha256"))
        digests = {note.with_suffix(".safetensors").name: note.read_text(encoding="ascii") for note in notes}
        temporary = self.folder / (_DONE + ".tmp")
        temporary.write_text(json.dumps({**description, _DIGESTS: digests}, indent=1), encoding="utf-8")
        temporary.replace(self.folder / _DONE)
        for note in notes:
            note.unlink(missing_ok=True)

    def read(self, block: int, key: str) -> Tensor:
        """One tensor.

        Raises:
            RunError: the file is missing, damaged, or not the one that was written.
        """
        path = self._file(block)
        if is_altered(path, self._digest(block)):
            raise RunError(
                f"{path} is damaged: it is not the file that was written (SHA-256).", f"Make it anew: {_CLEAN}"
            )
        try:
            with safe_open(str(path), "pt") as file:
                tensor: Tensor = file.get_tensor(key)
                return tensor
        except (OSError, SafetensorError) as error:
            raise RunError(f"{key} cannot be read from {path}: {error}.", f"Make it anew: {_CLEAN}") from error

    def delete(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, block: int) -> Path:
        return self.folder / f"block-{block:04d}.safetensors"

    def _note(self, block: int) -> Path:
        return self._file(block).with_suffix(".sha256")

    def _digest(self, block: int) -> str:
        """What was recorded of a block; "" where nothing was. A note is newer than the record of all."""
        with suppress(OSError, UnicodeDecodeError):
            return self._note(block).read_text(encoding="ascii")
        if not (self.folder / _DONE).exists():
            return ""
        return self._digests().get(self._file(block).name, "")

    def _record(self) -> dict[str, Any]:
        path = self.folder / _DONE
        record: dict[str, Any] = load(path, remedy=f"Make it anew: {_CLEAN}")
        return typed(dict[str, Any], record, str(path), remedy=f"Make it anew: {_CLEAN}")

    def _digests(self) -> dict[str, str]:
        return typed(dict[str, str], self._record().get(_DIGESTS, {}), f"{_DIGESTS} in {self.folder / _DONE}")
