"""Whether the files of a finished run are the ones that it has finished with. No torch."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrc_core.digests import file_digest, is_altered, stamp_of
from lrc_core.errors import RecordError
from lrc_core.records import AGAIN, load_record
from lrc_core.runs.records import Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DIGESTED = ("*.json", "*.jsonl", "*.npz", "plans/*.json")
"""What holds figures. Tensors beside a plan are digested in the plan."""
_OTHERS = {"spec.json", "status.json", "spent.json"}
"""The spec is checked against the folder's name; the others change afterwards, or hold no figures."""


def digests_in(folder: Path) -> dict[str, str]:
    """Digests of the files of a run folder that hold its figures, by name in it."""
    found = sorted(path for pattern in _DIGESTED for path in folder.glob(pattern) if path.name not in _OTHERS)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in found if not path.name.startswith(".")}


def unaltered(path: Path) -> Path:
    """The path of a file in a run folder, after a look whether it is the file that the run has finished with.

    Raises:
        RecordError: it is not; names the file.
    """
    folder = path.parent.parent if path.parent.name == "plans" else path.parent
    digest = digests_of(folder).get(path.relative_to(folder).as_posix(), "")
    if is_altered(path, digest):
        raise RecordError(
            f"{path} is damaged: it is not the file that its run has finished with (SHA-256).", AGAIN, str(path)
        )
    return path


def arrays_in(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a run's npz file by name, after the same look.

    Raises:
        RecordError: it is missing, damaged or another file; names it.
    """
    import numpy as np

    try:
        with np.load(unaltered(path)) as arrays:
            return {name: arrays[name] for name in arrays.files}
    # A file that is no archive is taken for one array, or for a pickle.
    except (
        OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, MemoryError, NotImplementedError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise RecordError(f"{path} is damaged: {error}.", AGAIN, str(path)) from error


def digests_of(folder: Path) -> Mapping[str, str]:
    """The digests in a run's status; empty while it is not done, and for what is no run of today's."""
    path = folder / "status.json"
    stamp = stamp_of(path)
    return _recorded(str(path), stamp) if any(stamp) else {}


@lru_cache(maxsize=1024)
def _recorded(path: str, _stamp: tuple[int, int]) -> Mapping[str, str]:
    try:
        return Status.from_dict(load_record(Path(path)), path).digests
    except RecordError:  # told wherever the status itself is read
        return {}
