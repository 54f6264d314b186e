"""Files replaced in one step, whatever is written; locks that end with their holder; disk errors in plain words."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrc_core import files
from lrc_core.errors import LrcError, ResourceError, RunError

Writer = Callable[[Path], None]


def _in_parts(path: Path) -> None:
    with files.replacing(path) as temporary:
        temporary.write_text("first")
        with temporary.open("a") as file:
            file.write(" second")


WRITERS: dict[str, Writer] = {
    "bytes": lambda path: files.write_atomic(path, b"\0new"),
    "text": lambda path: files.write_atomic(path, "new: ü"),
    "json": lambda path: files.write_json(path, {"a": np.float32(0.5)}),
    "array": lambda path: files.write_array(path, np.arange(5)),
    "arrays": lambda path: files.write_arrays(path, {"svd/layer": np.arange(5.0)}),
    "tensors": lambda path: files.write_tensors(path, {"layer.gain": torch.ones(3, 4).T}),
    "in parts": _in_parts,
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@every_writer
def test_a_file_is_made_and_replaced_under_its_very_name(tmp_path: Path, write: Writer) -> None:
    path = tmp_path / "name.without-its-own-ending"
    path.write_text("old")
    write(path)
    assert path.read_bytes() not in (b"", b"old")
    assert os.listdir(tmp_path) == [path.name]


@every_writer
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_what_cannot_be_written_leaves_the_old_file(
    tmp_path: Path, write: Writer, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fails(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(RunError if number == errno.EIO else ResourceError, match=str(path)):
        write(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@every_writer
def test_the_content_is_on_the_disk_before_it_has_the_name(
    tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "file", []

    def note(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", note)
    write(path)
    assert synced == [(path.stat().st_ino, False)]


def test_a_stop_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


@every_writer
def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path, write: Writer) -> None:
    with pytest.raises(LrcError):
        write(tmp_path / "deleted-run" / "file")
    assert os.listdir(tmp_path) == []


def test_arrays_and_tensors_come_back(tmp_path: Path) -> None:
    numbers = torch.randn(4, 3).to(torch.bfloat16)
    files.write_tensors(tmp_path / "t", {"x": numbers.T, "y": torch.nn.Parameter(torch.ones(2))})
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "t")["x"], numbers.T)
    files.write_arrays(tmp_path / "a", {"b.c/d": np.arange(6).reshape(2, 3)})
    assert np.array_equal(np.load(tmp_path / "a")["b.c/d"], np.arange(6).reshape(2, 3))


def test_an_array_is_what_was_written_or_an_error(tmp_path: Path) -> None:
    array, path = np.arange(12, dtype=np.float32).reshape(3, 4), tmp_path / "0.npy"
    files.write_array(path, array)
    assert np.array_equal(files.read_array(path), array)
    assert np.array_equal(np.load(path), array)  # who reads it plainly can
    raw = path.read_bytes()
    for place in range(128, len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
        with pytest.raises(RunError, match="damaged"):
            files.read_array(path)
    np.save(path, array)  # as older versions did
    assert np.array_equal(files.read_array(path), array)


def test_the_remedy_is_that_of_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRC_CACHE", str(tmp_path / "cache"))
    full = OSError(errno.ENOSPC, "No space left on device")
    for path, remedy in ((tmp_path / "cache" / "x", "LRC_CACHE"), (tmp_path / "run" / "x", "lrc doctor --clean")):
        with pytest.raises(ResourceError, match=remedy), files.disk_errors(path):
            raise full
    with pytest.raises(ResourceError, match="LRC_CACHE"), files.disk_errors(tmp_path / "cache" / "x"):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(ConnectionError), files.disk_errors(tmp_path / "cache", cache=True):
        raise ConnectionError(errno.ECONNRESET, "of a network, not of a disk")


def _hold(path: Path, ready: Any) -> None:
    with files.locked(path):
        ready.set()
        time.sleep(60)


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / ".lock"
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(path, ready))
    holder.start()
    try:
        assert ready.wait(20)
        with files.lock_if_free(path) as held:
            assert not held
    finally:
        holder.kill()
        holder.join(20)
    with files.lock_if_free(path, wait_s=5) as held:
        assert held


@pytest.mark.parametrize("taken", [files.locked, files.lock_if_free])
def test_a_lock_is_given_back_when_an_interrupt_comes_right_behind_it(
    taken: Callable[[Path], AbstractContextManager[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback still holds the lock's object: nothing but the block gives it back."""
    acquire = files._acquired

    def stopped(*arguments: Any, **options: Any) -> bool:
        assert acquire(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "_acquired", stopped)
        with pytest.raises(KeyboardInterrupt) as interrupt, taken(tmp_path / ".lock"):
            pass
    with files.lock_if_free(tmp_path / ".lock") as held:
        assert held, interrupt


def test_one_thread_does_not_get_a_lock_twice(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with files.locked(path):
        with files.lock_if_free(path) as again:
            assert not again
        with pytest.raises(RuntimeError, match="enough"), files.locked(path, waiting=_enough):
            pass
        with files.lock_if_free(path) as again:
            assert not again
    with files.lock_if_free(path) as held:
        assert held


def _enough() -> None:
    raise RuntimeError("enough")


def test_the_core_needs_no_module_of_one_system() -> None:
    """What Windows lacks is neither imported nor looked up where a module is imported."""
    program = (
        "import sys, subprocess, psutil\n"
        "for name in ('fcntl', 'resource', 'termios', 'tty', 'pty', 'grp', 'pwd'):\n"
        "    sys.modules[name] = None\n"
        "import signal, os\n"
        "del signal.SIGKILL, os.killpg, os.getpgid\n"
        "import lrc_core.runs.store, lrc_core.jobs.manager, lrc_core.jobs.worker, lrc_core.plan, lrc_core.cli.parser\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
