"""Memory and disk that are free on this machine. No torch, so that pages and pre-flight can ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import psutil

from lrc_core.models.allocator import release_freed_memory

_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)

CPU_BF16 = "LRC_CPU_BF16"
"""Environment variable: 0 computes in float32 on processors that have bfloat16 as well."""
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is Arm's name


@lru_cache(maxsize=1)
def cpu_has_bf16() -> bool:
    """Whether the processor has bfloat16 instructions that may be used: avx512_bf16, amx_bf16, or bf16 on Arm."""
    if os.environ.get(CPU_BF16) == "0":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False  # not Linux; a Mac computes on mps
    flags = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return bool(_BF16_FLAGS & set(next(flags, "").split()))


def cpu_memory_available() -> int:
    """Bytes of main memory that can still be used, the limits of a container and of the process included."""
    available = min([int(psutil.virtual_memory().available), *_left_by_limits()])
    for limit_file, usage_file in _CGROUPS:
        try:
            limit, usage = int(limit_file.read_text()), int(usage_file.read_text())
        except (OSError, ValueError):
            continue  # no such control group, or "max": no limit
        available = min(available, max(0, limit - usage))
    return available


def _left_by_limits() -> Iterator[int]:
    """What ``ulimit -v`` and ``ulimit -d`` leave this process, where they are set and the kernel says what it has."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most, now = resource.getrlimit(limit)[0], _kernel_bytes(used)
        if most != resource.RLIM_INFINITY and now is not None:
            yield max(0, most - now)


def gpu_memory_available() -> int | None:
    """Free bytes of all NVIDIA GPUs that may be used, as their driver reports them; None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command.append(f"--id={visible}")
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        return sum(int(line) * 2**20 for line in output.splitlines()) or None
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def disk_available(folder: Path) -> int:
    """Free bytes on the disk that holds ``folder``, which need not exist yet."""
    folder = folder.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def unpacks_to_float32(params: int) -> bool:
    """Whether a GGUF model of that size is unpacked to float32; a larger one, to save disk and memory, to bfloat16."""
    return params <= 2_000_000_000


def unpacked_bytes(params: int) -> int:
    """Size of a GGUF model once unpacked."""
    return params * (4 if unpacks_to_float32(params) else 2)


@contextmanager
def own_peak_memory() -> Iterator[Callable[[], int]]:
    """Measure a with-block's own peak: yields a function that tells the largest resident set since it began.

    Blocks may be nested. Where the system cannot forget a peak (anything but Linux) it is that of the process so far.
    """
    global _floor
    outer = peak_memory_bytes()
    release_freed_memory()
    _floor = 0 if _forget_peak() else outer
    try:
        yield peak_memory_bytes
    finally:
        _floor = max(outer, peak_memory_bytes())


_floor = 0
"""What the process had reached before the kernel was asked to reset it."""


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far; 0 where it is not known."""
    return max(_floor, _kernel_peak())


def _kernel_peak() -> int:
    if (peak := _kernel_bytes("VmHWM")) is not None:  # unlike getrusage's, this one can be reset
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes, Linux in KiB


def _kernel_bytes(name: str) -> int | None:
    """A figure of this process by the kernel's name of it; None where the system has no such file."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _forget_peak() -> bool:
    """Start the kernel's count of the peak anew; whether that is possible here."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
