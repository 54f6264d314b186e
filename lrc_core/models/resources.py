"""Memory and disk that are free on this machine. No torch, so that pages and pre-flight can ask."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psutil

_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def cpu_memory_available() -> int:
    """Bytes of main memory that can still be used, the limit of a container included."""
    available = int(psutil.virtual_memory().available)
    for limit_file, usage_file in _CGROUPS:
        try:
            limit, usage = int(limit_file.read_text()), int(usage_file.read_text())
        except (OSError, ValueError):
            continue  # no such control group, or "max": no limit
        available = min(available, max(0, limit - usage))
    return available


def gpu_memory_available() -> int | None:
    """Free bytes of the first NVIDIA GPU as its driver reports them; None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        return int(output.splitlines()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def disk_available(folder: Path) -> int:
    """Free bytes on the disk that holds ``folder``, which need not exist yet."""
    folder = folder.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def human_bytes(count: float) -> str:
    """``1.5 GB``; powers of 1000, as disks and downloads are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
