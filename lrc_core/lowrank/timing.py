"""How long a layer takes at a rank on this device, measured: one token at a time, weights read from memory.

In a model the weights of a layer have left every cache before it is called again. So several copies of a layer are
timed after one another, and its ranks take turns: together they are more than caches hold. What was measured of a
device is kept.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrc_core.budget import largest_low_rank
from lrc_core.damage import earlier
from lrc_core.digests import digest_of
from lrc_core.errors import CancelledError
from lrc_core.files import disk_errors, write_json
from lrc_core.formats.sizes import is_pivoted
from lrc_core.lowrank.linear import LowRankLinear, PivotedLinear
from lrc_core.records import load_record, typed
from lrc_core.types import LinearShape, OnProgress, Progress, ShouldStop

_VERSION = 2
_SPREAD = 0.02  # of random weights, as models are initialised: values must not overflow, no more
_BYTES = 16 * 2**20  # of the copies of a layer at a rank: ten times that is beyond the caches of processors and GPUs
_POINTS = (0.0, 0.0625, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)  # of the largest rank that saves anything
_TURNS = 7

Times = dict[int, float]
"""Seconds by rank; the full rank is the dense layer."""


@dataclass(frozen=True)
class DeviceTimes:
    """What the cache keeps of a device: seconds by rank for every shape, ``"4096 x 11008 pair"``."""

    device: str
    times: dict[str, dict[str, float]] = field(default_factory=dict)


def random_layer(layer: LinearShape, rank: int, like: Tensor, bias: Tensor | None = None) -> nn.Module:
    """A random layer of low rank, stored by its law: for what depends on shapes and not on numbers.

    Args:
        layer: its shape and storage.
        rank: below full.
        like: dtype and device.
        bias: [m], which is shared.
    """
    spread = math.sqrt(_SPREAD / math.sqrt(rank))
    if is_pivoted(layer, rank):
        pivots = torch.randperm(layer.out_features)[:rank].sort().values.to(like.device)
        rows = _random(rank, layer.in_features, like, spread)
        return PivotedLinear(rows, _random(layer.out_features - rank, rank, like, spread), pivots, bias).eval()
    left, right = _random(layer.out_features, rank, like, spread), _random(rank, layer.in_features, like, spread)
    return LowRankLinear(left, right, bias).eval()


def _random(rows: int, columns: int, like: Tensor, spread: float = _SPREAD) -> Tensor:
    return torch.empty(rows, columns, dtype=like.dtype, device=like.device).uniform_(-spread, spread)


def layer_times(
    layers: Sequence[LinearShape], like: Tensor, folder: Path, on_progress: OnProgress, should_stop: ShouldStop
) -> dict[str, Times]:
    """Seconds of every layer by rank, one token at a time; measured once for a shape, a device and a precision.

    Args:
        layers: under their storage law.
        like: a tensor in the precision and on the device of the model.

    Raises:
        CancelledError: ``should_stop`` said so; what was measured is kept.
    """
    device = device_name(like.device)
    path = folder / f"{digest_of(['layer times', _VERSION, device, str(like.dtype), torch.__version__])[:16]}.json"
    known = earlier(path, _read) or DeviceTimes(device)
    shapes = {_key(layer): layer for layer in layers}
    for number, (key, layer) in enumerate(shapes.items()):
        if key in known.times:
            continue
        if should_stop():
            raise CancelledError("The measurement was cancelled.")
        on_progress(Progress("timing layers", number, len(shapes)))
        known.times[key] = {str(rank): seconds for rank, seconds in _measured(layer, like).items()}
        with disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(known))
    return {layer.name: {int(rank): s for rank, s in known.times[_key(layer)].items()} for layer in layers}


def _read(path: Path) -> DeviceTimes:
    return typed(DeviceTimes, load_record(path), str(path))


def _key(layer: LinearShape) -> str:
    return f"{layer.out_features} x {layer.in_features} {layer.storage}"


def device_name(device: torch.device) -> str:
    """What times depend on besides shapes and precision: the device by name, and of a processor its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{device.type}: {name}, {torch.get_num_threads()} of {os.cpu_count()} threads"


@torch.no_grad()
def _measured(layer: LinearShape, like: Tensor) -> Times:
    """The dense layer and ranks in between, in turns; medians."""
    largest = largest_low_rank(layer)
    ranks = sorted({max(1, round(point * largest)) for point in _POINTS}) if largest > 0 else []
    row = torch.ones(1, 1, layer.in_features, dtype=like.dtype, device=like.device)
    ways: list[tuple[int, list[nn.Module]]] = [(rank, _copies(layer, rank, like)) for rank in (*ranks, layer.full_rank)]
    taken: dict[int, list[float]] = {rank: [] for rank, _ in ways}
    for turn in range(_TURNS + 1):
        for rank, copies in ways:
            seconds = _seconds(copies, row)
            if turn:
                taken[rank].append(seconds)
    return {rank: statistics.median(found) for rank, found in taken.items()}


def _copies(layer: LinearShape, rank: int, like: Tensor) -> list[nn.Module]:
    """Enough of them to be timed."""
    first = _made(layer, rank, like)
    size = sum(part.numel() * part.element_size() for part in first.parameters())
    return [first, *(_made(layer, rank, like) for _ in range(min(256, -(-_BYTES // size)) - 1))]


def _made(layer: LinearShape, rank: int, like: Tensor) -> nn.Module:
    if rank < layer.full_rank:
        return random_layer(layer, rank, like)
    return _Dense(_random(layer.out_features, layer.in_features, like))


class _Dense(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.weight)


def _seconds(copies: Sequence[nn.Module], row: Tensor) -> float:
    """Of one layer, over all copies once."""

    def run() -> None:
        for module in copies:
            module(row)

    return seconds_of(run, row.device) / len(copies)


def seconds_of(action: Callable[[], object], device: torch.device) -> float:
    """How long an action takes on a device.

    Of work on one thread of a processor that thread's own time, where it is less: busy is not slow.
    """
    synchronise(device)
    started, worked = time.perf_counter(), time.process_time()
    action()
    synchronise(device)
    passed, worked = time.perf_counter() - started, time.process_time() - worked
    return min(passed, worked) if device.type == "cpu" and torch.get_num_threads() == 1 else passed


def synchronise(device: torch.device) -> None:
    """Wait for the device: its work is queued, and a clock would stop too early."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
