"""The C library's memory allocator, set to keep what tensors give back, or to return it at once."""

from __future__ import annotations

import ctypes
import logging

_MMAP_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -4, -3, -1  # parameters of mallopt(3)
_LARGE_BYTES = 8 * 2**20
_KEEP_BYTES = 2**31 - 1  # the most that mallopt takes
_log = logging.getLogger(__name__)


def keep_freed_memory() -> bool:
    """Let this process reuse the pages of freed tensors instead of getting fresh ones from the kernel every time.

    The C library maps every large block anew and unmaps it at once when it is freed; clearing those pages takes longer
    than the product that fills them (a 100 MB tensor of logits: 48 ms of 140). The memory goes back when the process
    ends, which for a job is soon. Returns whether the allocator could be set; only glibc's can.
    """
    told = bool(_call("mallopt", _MMAP_MAX, 0)) and bool(_call("mallopt", _TRIM_THRESHOLD, _KEEP_BYTES))
    _log.debug("freed memory is kept: %s", told)
    return told


def return_freed_memory() -> bool:
    """Let every tensor of 8 MB or more have pages of its own, which go back to the kernel when it is freed.

    By itself the C library puts tensors of up to 32 MB into one heap once some have been freed, and between them holes
    remain: of a model whose blocks come and go they are 0.3 GB in 3.
    """
    return bool(_call("mallopt", _MMAP_THRESHOLD, _LARGE_BYTES))


def release_freed_memory() -> None:
    """Give the kernel back what is kept, where the allocator can: what a stage needs is counted from here."""
    _call("malloc_trim", 0)


def _call(name: str, *values: int) -> int:
    """A function of the C library; 0 where there is none of that name."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return 0
    return int(function(*values))
