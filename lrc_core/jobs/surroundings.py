"""Whether a node can do what it is asked for, before anything heavy is loaded. No torch."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from lrc_core import __version__
from lrc_core.errors import ResourceError, RunError
from lrc_core.words import data_size

LEAST_DISK = 64 * 2**20
"""Bytes below which a shared disk counts as full."""
TAKEN_SHARE = 0.5
"""A GPU of whose memory so much is used by others counts as taken."""


def check_node(name: str, runs: Path, wanted: str, gpus: int) -> None:
    """Refuse a node on which the work would fail, or come to other numbers.

    Args:
        wanted: the program that asked, see :func:`program`.
        gpus: how many the job has been given.

    Raises:
        LrcError: another program, a full disk, or a GPU that is missing or taken.
    """
    if wanted and wanted != program():
        raise RunError(
            f"Node {name} has another program: {program()}, and {wanted} asked.",
            "Install the same version on all nodes, or name the right `python` in the profile.",
        )
    require_disk_space(runs)
    if gpus:
        _require_gpus(name, gpus)


def require_disk_space(runs: Path) -> None:
    """Refuse a folder of runs whose disk is full.

    Raises:
        ResourceError: says how much is free.
    """
    there = next(path for path in (runs, *runs.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < LEAST_DISK:
        raise ResourceError(f"The disk of the runs {runs} is full: {data_size(free)} are free.", "Free some space.")


def _require_gpus(name: str, gpus: int) -> None:
    memory = _gpu_memory()
    if len(memory) < gpus:
        raise ResourceError(
            f"Node {name} shows {len(memory)} GPUs to the job, which asked for {gpus}.",
            "Ask for a partition with GPUs, and see that its driver works (`nvidia-smi`).",
        )
    for number, (used, total) in enumerate(memory):
        if used > TAKEN_SHARE * total:
            raise ResourceError(
                f"GPU {number} of node {name} is taken: {used / 1024:.1f} of {total / 1024:.1f} GiB are in use.",
                "Another program computes on it outside of the scheduler; exclude the node, or wait.",
            )


def _gpu_memory() -> list[tuple[float, float]]:
    """MiB used and there, of each GPU that the job may use; none where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command.append(f"--id={visible}")
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        return [(float(used), float(total)) for used, total in (line.split(",") for line in found.splitlines())]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


@cache
def program() -> str:
    """Which program this is, so that a node with another one is noticed: ``0.4.0/1a2b3c4d``.

    That is the version, and the beginning of a digest of every module.
    """
    home = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        digest.update(str(path.relative_to(home)).encode() + b"\0" + path.read_bytes())
    return f"{__version__}/{digest.hexdigest()[:8]}"
