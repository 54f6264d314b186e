"""Throughputs of this machine: measured in a second or two, and remembered."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from lrc_core.bench.cost import Speeds
from lrc_core.calibrate.sums import add_square, square_sum
from lrc_core.errors import LrcError
from lrc_core.files import write_json
from lrc_core.models.device import pick_device, pick_dtype
from lrc_core.paths import cache_home, require_cache
from lrc_core.records import load_record, typed

_SIZE, _EIGEN, _BYTES = 1024, 512, 2**26
_REPEATS = 3
_TOKENS, _WIDTH = 2048, 1024
_VERSION = 3
_BUSY = 0.5
"""Of the processors, at work for others in the last minute."""


def machine_speeds(*, again: bool = False) -> Speeds:
    """Throughputs of this machine, as they were measured when it had nothing else to do.

    What a busy machine gave is measured again when it is next asked for, and the better one holds.

    Args:
        again: measure whatever is remembered.
    """
    path = cache_home() / "speeds.json"
    key = [_VERSION, platform.node(), torch.__version__, torch.get_num_threads(), str(pick_device())]
    known = None if again else _remembered(path, key)
    if known is not None and not known.busy:
        return known
    found = _measured()
    if known is not None:
        found = found.or_better(known)
    with suppress(LrcError):  # a folder that is only to be read: it is measured again next time
        require_cache()
        write_json(path, {"key": key, "speeds": asdict(found)})
    return found


def _remembered(path: Path, key: list[Any]) -> Speeds | None:
    with suppress(LrcError, OSError, TypeError, KeyError, AttributeError):
        known: Any = load_record(path)
        if known["key"] == key:
            return typed(Speeds, known["speeds"], str(path))
    return None


def _is_busy() -> bool:
    """Whether other programs had more than a part of the processors lately; where no system says it, no."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return load > _BUSY * (os.cpu_count() or 1)


@torch.no_grad()
def _measured() -> Speeds:
    device, busy = pick_device(), _is_busy()
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(_SIZE, _SIZE, generator=generator)
    symmetric = (matrix @ matrix.T)[:_EIGEN, :_EIGEN].double()
    return Speeds(
        model=_passes(device),
        single=_products(matrix),
        double=_products(matrix.double()),
        eigen=_EIGEN**3 / _best(lambda: torch.linalg.eigh(symmetric)),
        disk=_disk(),
        busy=busy,
    )


def _passes(device: torch.device) -> float:
    """Operations a second of products as passes have them: conversions, an activation and sums stand between them."""
    rows, weight = (torch.randn(size, _WIDTH).to(device, pick_dtype(device)) for size in (_TOKENS, 4 * _WIDTH))
    total = square_sum(4 * _WIDTH, device)

    def run() -> None:
        add_square(total, functional.silu(functional.linear(rows, weight)))
        if device.type == "cuda":
            torch.cuda.synchronize()

    return _TOKENS * (2 * weight.numel() + len(total) ** 2) / _best(run)


def _products(matrix: torch.Tensor) -> float:
    return 2 * _SIZE**3 / _best(lambda: matrix @ matrix)


def _disk() -> float:
    data = bytes(_BYTES)

    def write() -> None:
        with tempfile.TemporaryFile(dir=require_cache(), buffering=0) as file:
            file.write(data)

    return _BYTES / _best(write)


def _best(function: Callable[[], Any]) -> float:
    """Seconds of the quickest of some calls, after one that warms up."""
    function()
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)
