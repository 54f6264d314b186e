"""Tensors on disk, one safetensors file a decoder block: written whole or not at all, checked and read lazily."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lrc_core.damage import earlier
from lrc_core.digests import file_digest, is_altered
from lrc_core.errors import RunError
from lrc_core.files import disk_errors, write_atomic, write_json, write_tensors
from lrc_core.records import load_record, typed

_DONE = "complete.json"
_CLEAN = "`lrc doctor --clean` removes cached decompositions."
_AGAIN = f"Make it anew: {_CLEAN}"
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
        """Whether every block has been written and is as it was written. A mark that is damaged marks nothing."""
        return earlier(self.folder / _DONE, self._require_all) is not None

    @property
    def description(self) -> dict[str, Any]:
        """What was given to :meth:`finish`.

        Raises:
            RunError: the file is missing or damaged.
        """
        return {name: value for name, value in _record(self.folder / _DONE).items() if name != _DIGESTS}

    def has_block(self, block: int) -> bool:
        """Whether a block has been written and is whole; one that is not is set aside."""
        return earlier(self._file(block), lambda path: _require_whole(path, self._digest(block))) is not None

    def write(self, block: int, tensors: Mapping[str, Tensor]) -> None:
        """Store one block.

        Raises:
            ResourceError: the disk is full.
        """
        self._make_folder()
        note = self._note(block)
        note.unlink(missing_ok=True)  # of what is replaced
        write_tensors(self._file(block), tensors)
        write_atomic(note, file_digest(self._file(block)), durable=False)

    def finish(self, description: Mapping[str, Any]) -> None:
        """Mark the folder complete and say what it was made from."""
        self._make_folder()
        notes = sorted(self.folder.glob("block-*.sha256"))
        digests = {note.with_suffix(".safetensors").name: note.read_text(encoding="ascii") for note in notes}
        write_json(self.folder / _DONE, {**description, _DIGESTS: digests})
        for note in notes:
            note.unlink(missing_ok=True)

    def read(self, block: int, key: str) -> Tensor:
        """One tensor.

        Raises:
            RunError: the file is missing, damaged, or not the one that was written.
        """
        path = self._file(block)
        _require_same(path, self._digest(block))
        try:
            with safe_open(str(path), "pt") as file:
                tensor: Tensor = file.get_tensor(key)
                return tensor.clone()  # or it keeps the whole file mapped for as long as it lives
        except (OSError, SafetensorError) as error:
            raise RunError(f"{key} cannot be read from {path}: {error}.", _AGAIN) from error

    def has(self, block: int, key: str) -> bool:
        """Whether a block that was written holds such a tensor."""
        try:
            with safe_open(str(self._file(block)), "pt") as file:
                return key in file.keys()  # noqa: SIM118 - the file is no mapping
        except (OSError, SafetensorError):
            return False

    def delete(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_folder(self) -> None:
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def _file(self, block: int) -> Path:
        return self.folder / f"block-{block:04d}.safetensors"

    def _note(self, block: int) -> Path:
        return self._file(block).with_suffix(".sha256")

    def _digest(self, block: int) -> str:
        """What was recorded of a block; "" where nothing was. A note is newer than the record of all."""
        with suppress(OSError, UnicodeDecodeError):
            return self._note(block).read_text(encoding="ascii")
        done = self.folder / _DONE
        return _digests(done).get(self._file(block).name, "") if done.exists() else ""

    def _require_all(self, done: Path) -> bool:
        for name, digest in _digests(done).items():
            _require_whole(self.folder / name, digest)
        return True


def _record(path: Path) -> dict[str, Any]:
    return typed(dict[str, Any], load_record(path, remedy=_AGAIN), str(path), remedy=_AGAIN)


def _digests(path: Path) -> dict[str, str]:
    return typed(dict[str, str], _record(path).get(_DIGESTS, {}), f"{_DIGESTS} in {path}", remedy=_AGAIN)


def _require_same(path: Path, digest: str) -> None:
    if is_altered(path, digest):
        raise RunError(f"{path} is damaged: it is not the file that was written.", _AGAIN)


def _require_whole(path: Path, digest: str) -> bool:
    _require_same(path, digest)
    with safe_open(str(path), "pt"):  # compares the header with the file's length
        return True
