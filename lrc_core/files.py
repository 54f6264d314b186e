"""Files: replaced in one step, appended to, locked; and the system's errors in plain words. No torch.

Whatever the program keeps is written by this module: no other renames a file or locks one.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrc_core.errors import ResourceError, RunError
from lrc_core.paths import cache_home, require_writable

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from torch import Tensor

CACHE_REMEDY = "Free some space, or set LRC_CACHE to a folder on another disk."
_FULL_REMEDY = "Free some space (`lrc doctor --clean` empties the cache of decompositions), then resume the run."
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR)
_POLL_S, _WAITING_S = 0.02, 0.3
_counter = itertools.count()


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the error, or what caused it, is a full disk or an exhausted quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False


@contextmanager
def disk_errors(path: Path, *, cache: bool = False) -> Iterator[None]:
    """Turn the operating system's errors on ``path`` into errors a user can act on.

    Args:
        cache: it is a folder of a cache, and the block does more than write: what is not the disk's error passes.

    Raises:
        ResourceError: the disk is full, or the cache may not be written.
        RunError: anything else (no such folder, no permission).
    """
    try:
        yield
    except OSError as error:
        cached = cache or path.is_relative_to(cache_home())
        if error.errno in _FULL:
            remedy = CACHE_REMEDY if cached else _FULL_REMEDY
            raise ResourceError(f"The disk is full: {path} could not be written.", remedy) from error
        if cached and error.errno in _REFUSED:
            message = f"Cannot write {path} in the cache: {error.strerror}."
            raise ResourceError(message, "Set LRC_CACHE to a folder you may write to.") from error
        if cache:
            raise
        raise RunError(f"Cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Replace a file in one step: a reader sees the old content or the new one, never a part.

    Args:
        path: the file; its folder is there.
        durable: wait until the content has reached the disk, so that a power cut leaves the old file or the new one
            and not an empty one. Off only for what is worth nothing tomorrow.

    Yields:
        Where to write the new content. It takes the place of ``path`` when the block ends, and is removed when the
        block fails: the old file is then as it was.

    Raises:
        ResourceError: the disk is full.
        RunError: the file cannot be written for another reason.
    """
    # One name per process and call: two writers never share a temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_counter)}.tmp")
    with disk_errors(path):
        try:
            yield temporary
            if durable:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_atomic(path: Path, text: str | bytes, *, durable: bool = True) -> None:
    """Write a file as :func:`replacing` does; text as UTF-8. Refused in the read-only mode."""
    require_writable(f"{path.name} is not written")
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(text.encode() if isinstance(text, str) else text)


def write_json(path: Path, data: Any, *, durable: bool = True) -> None:
    """Write JSON as :func:`write_atomic` does; numbers of numpy and torch are written as plain ones."""
    write_atomic(path, json.dumps(data, default=json_plain, indent=1), durable=durable)


def write_array(path: Path, array: Any) -> None:
    """Write one array (npy) as :func:`replacing` does; behind it its sha256, which the format lacks."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest())


def read_array(path: Path) -> Any:
    """What :func:`write_array` wrote; an array of an older version has nothing to be compared with.

    Raises:
        RunError: it is not what was written.
        ValueError: it is no array.
    """
    import numpy as np

    data = path.read_bytes()
    buffer = io.BytesIO(data)
    array = np.load(buffer)
    content, digest = data[: buffer.tell()], data[buffer.tell() :]
    if digest and hashlib.sha256(content).digest() != digest:
        raise RunError(f"{path} is damaged: its checksum is wrong.")
    return array


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name (npz) as :func:`replacing` does."""
    import numpy as np

    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors by name (safetensors) as :func:`replacing` does."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with replacing(path) as temporary:
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(plain, temporary, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:  # its words for any error of the disk
        raise ResourceError(f"Cannot write {path}: {error}.", _FULL_REMEDY) from error


def append_line(path: Path, line: str) -> None:
    """Append one line in a single write, closing a line that an earlier writer left half-written.

    Raises:
        ResourceError: the disk is full.
        RunError: the file cannot be written for another reason.
    """
    require_writable(f"{path.name} is not written")
    with disk_errors(path), path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write((line + "\n").encode())


def json_plain(value: Any) -> Any:
    """A JSON-able form of scalars and arrays that offer ``tolist``; for ``json.dumps(default=...)``."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def move(path: Path, target: Path) -> None:
    """Give a file or a folder another name on its disk, in one step. A file or an empty folder there is replaced."""
    path.replace(target)


def make_private(folder: Path) -> None:
    """Make a folder that nobody else on this computer may enter; one that is there is closed to others.

    One that is shared on purpose (sticky, with its group's mark, or open for all to write) and somebody else's are
    left as they are.

    Raises:
        ResourceError: the disk is full.
        RunError: the folder cannot be made.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        mode = folder.stat().st_mode
        shared = mode & (stat.S_ISVTX | stat.S_ISGID | stat.S_IWOTH)
        if mode & 0o077 and not shared:
            with suppress(PermissionError):
                folder.chmod(0o700)


def fill_aside(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into an empty folder and put that in the place of ``folder``. Hold its lock meanwhile."""
    prefix = f".{folder.name}-"
    for leftover in folder.parent.glob(f"{prefix}*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    try:
        fill(aside)
        aside.chmod(0o755)  # mkdtemp makes it private
        shutil.rmtree(folder, ignore_errors=True)
        move(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None, *, cache: bool = False) -> Iterator[None]:
    """Hold a lock file, waiting for it. The system releases it when the process dies, however it dies.

    Args:
        waiting: called every 0.3 s while somebody else holds it; what it raises ends the waiting.
        cache: it lies in a cache, see :func:`disk_errors`.
    """
    lock = _lock(path)
    try:  # from here on: what stops a job at once may come between the lock and the next line
        while not _acquired(lock, path, _WAITING_S, cache=cache):
            if waiting is not None:
                waiting()
        yield
    finally:
        lock.release()


@contextmanager
def lock_if_free(path: Path, wait_s: float = 0.0) -> Iterator[bool]:
    """Try to hold a lock file, for ``wait_s`` seconds at most; yields whether it is held."""
    lock = _lock(path)
    try:
        yield _acquired(lock, path, wait_s)
    finally:
        lock.release()


def _lock(path: Path) -> BaseFileLock:
    """A lock of its own for each use: one that is shared would let its thread in twice."""
    from filelock import FileLock  # asyncio comes along: 60 ms that readers need not spend

    # A soft lock is a file that outlives its process: better no lock than one that stays for ever.
    return FileLock(path, poll_interval=_POLL_S, thread_local=False, fallback_to_soft=False)


def _acquired(lock: BaseFileLock, path: Path, wait_s: float, *, cache: bool = False) -> bool:
    from filelock import Timeout

    with disk_errors(path, cache=cache):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=wait_s)
        except Timeout:
            return False
    return True


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile count nothing."""
    size, waiting = 0, [str(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        size += entry.stat(follow_symlinks=False).st_size
    return size
