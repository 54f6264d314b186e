"""``lrc bench speed``: how fast a model reads and writes, dense against its compressed forms, in one run.

The forms take turns, so that a machine that slows down slows all; a ratio is the median of the turns' own ratios.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch

from lrc_core.bench.contenders import Contender
from lrc_core.bench.limits import Launches, Rates, measured_rates
from lrc_core.bench.passes import (
    EAGER,
    GRAPHS,
    PHASES,
    Layers,
    Timed,
    Workload,
    cache_bytes,
    cache_seed,
    need_of,
    timed,
    working_bytes,
)
from lrc_core.lowrank.timing import synchronise
from lrc_core.models.device import memory_available
from lrc_core.models.resources import own_peak_memory
from lrc_core.types import OnProgress, Progress, ignore_progress
from lrc_core.words import data_size

_FEWEST, _MOST = 3, 15  # turns
_ROOM = 0.7  # of the free memory


@dataclass(frozen=True)
class SpeedGrid:
    """What is measured.

    Attributes:
        modes: some of ``eager``, ``compile``, ``graphs``.
        batches: sequences at once.
        prompts: tokens.
        seconds: for the turns of one cell; what could not have three of them is left out.
        phases: reading, writing, or both.
    """

    modes: Sequence[str]
    batches: Sequence[int]
    prompts: Sequence[int]
    seconds: float
    phases: Sequence[str] = PHASES

    def cells(self) -> list[Workload]:
        """Every cell, the small ones first."""
        return [Workload(*parts) for parts in product(self.modes, self.phases, self.batches, self.prompts)]


@dataclass(frozen=True)
class Row:
    """One form in one cell.

    Attributes:
        name: of the form.
        keep: share of the block linears' parameters that it keeps.
        seconds: of one pass, median; None where it was not timed.
        tokens_per_s: read or written.
        ratio: times as fast as the dense model: the median of the turns' own ratios.
        low: lower quartile of these.
        high: upper quartile.
        processor_ratio: the same of processor time, which a busy machine changes less; None on a GPU.
        bytes: that a pass reads.
        limit: what it needs most: ``launch``, ``bytes`` or ``arithmetic``.
        floors: seconds that each of them takes alone at the device's best.
        memory: peak bytes: its weights, the cache and what a pass takes beside them.
        turns: that were timed.
        reason: why it was not timed.
    """

    mode: str
    phase: str
    batch: int
    prompt: int
    name: str
    keep: float
    seconds: float | None = None
    tokens_per_s: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    processor_ratio: float | None = None
    bytes: int | None = None
    limit: str = ""
    floors: dict[str, float] | None = None
    memory: int | None = None
    turns: int = 0
    reason: str = ""


@dataclass
class _Entrant:
    """A form that takes part in a cell, and what was found of it."""

    contender: Contender
    action: Timed
    memory: int
    launches: int
    wall: list[float]
    processor: list[float]


def inference(forms: Sequence[Contender], grid: SpeedGrid, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """Time forms of one model, the first of which is the dense one.

    Returns:
        JSON-able: device, precision, threads, load, the device's best, and a row for every form of every cell.

    Raises:
        EvaluationError: the model keeps no key-value cache.
    """
    dense = forms[0].model
    assert dense is not None
    weight = next(dense.parameters())
    with torch.inference_mode():
        rates, seed = measured_rates(weight.device, weight.dtype), cache_seed(dense)
        rows: list[Row] = []
        cells = grid.cells()
        for number, cell in enumerate(cells):
            words = f"measuring {cell.mode} {cell.phase}, {cell.batch} x {cell.prompt}"
            on_progress(Progress(words, number, len(cells)))
            rows += _cell_rows(forms, cell, seed, rates, grid.seconds)
    return {
        "device": torch.cuda.get_device_name() if weight.is_cuda else weight.device.type,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "rates": asdict(rates),
        "rows": [asdict(row) for row in rows],
    }


def _cell_rows(forms: Sequence[Contender], cell: Workload, seed: Layers, rates: Rates, seconds: float) -> list[Row]:
    """Rows of one cell; where it is too large for this machine they say so."""
    empty = {form.name: Row(**asdict(cell), name=form.name, keep=form.keep, reason=form.reason) for form in forms}
    entering = [form for form in forms if form.model is not None]
    if reason := _too_much(entering, cell, seed, rates, seconds):
        return [replace(row, reason=row.reason or reason) for row in empty.values()]
    entrants = []
    for form in entering:
        try:
            entrants.append(_enter(form, cell, seed))
        except Exception as error:
            if cell.mode == EAGER:
                raise
            # A compiler raises whatever it likes, and may not be there at all.
            said = f"torch.compile failed: {str(error).strip().splitlines()[0][:200]}"
            empty[form.name] = replace(empty[form.name], reason=said)
    if entrants and entrants[0].contender is entering[0]:
        _take_turns(entrants, cell, seconds)
        for one in entrants:
            empty[one.contender.name] = _filled(empty[one.contender.name], one, entrants[0], cell, seed, rates)
    return list(empty.values())


def _too_much(forms: Sequence[Contender], cell: Workload, seed: Layers, rates: Rates, seconds: float) -> str:
    """Why a cell is left out, "" where it is not."""
    dense = forms[0].model
    assert dense is not None
    device = next(dense.parameters()).device
    if cell.mode == GRAPHS and device.type != "cuda":
        return "CUDA graphs need a GPU"
    memory = working_bytes(dense, cell, seed)
    if memory > _ROOM * memory_available(device):
        return f"left out: would need about {data_size(memory)}"
    least = max(need_of(dense, cell, seed, 0).floors(rates).values()) * cell.passes * (_FEWEST + 1) * len(forms)
    return f"left out: would take about {least:.0f} s; --seconds allows more" if least > 2 * seconds else ""


def _enter(form: Contender, cell: Workload, seed: Layers) -> _Entrant:
    """Warm a form up, count its operations, and see what memory a turn takes."""
    model = form.model
    assert model is not None
    action, device = timed(model, cell, seed), next(model.parameters()).device
    action.ready()
    with Launches() if cell.mode == EAGER else _uncounted() as launches:
        action.run()
    action.ready()
    with _peak(device) as peak:
        action.run()
        synchronise(device)
        beside = peak()
    held = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    memory = held + cache_bytes(seed, cell) + beside
    return _Entrant(form, action, memory, launches.count // cell.passes, [], [])


@contextmanager
def _uncounted() -> Iterator[Launches]:
    """What is compiled runs other operations than those it is written in."""
    yield Launches()


@contextmanager
def _peak(device: torch.device) -> Iterator[Any]:
    """Bytes that a with-block took at most beyond what was there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    with own_peak_memory() as peak:
        before = peak()
        yield lambda: max(0, peak() - before)


def _take_turns(entrants: Sequence[_Entrant], cell: Workload, seconds: float) -> None:
    """Every form in turn, until the time is up."""
    model = entrants[0].contender.model
    assert model is not None
    device, ends = next(model.parameters()).device, time.monotonic() + seconds
    for turn in range(_MOST):
        if turn >= _FEWEST and time.monotonic() > ends:
            return
        for one in entrants:
            one.action.ready()
            synchronise(device)
            wall, processor = time.perf_counter(), time.process_time()
            one.action.run()
            synchronise(device)
            one.wall.append((time.perf_counter() - wall) / cell.passes)
            one.processor.append((time.process_time() - processor) / cell.passes)


def _filled(row: Row, one: _Entrant, dense: _Entrant, cell: Workload, seed: Layers, rates: Rates) -> Row:
    model = one.contender.model
    assert model is not None
    need = need_of(model, cell, seed, one.launches)
    seconds = statistics.median(one.wall)
    low, ratio, high = _quartiles(dense.wall, one.wall)
    on_gpu = next(model.parameters()).is_cuda
    return replace(
        row,
        seconds=seconds,
        tokens_per_s=cell.tokens / seconds,
        ratio=ratio,
        low=low,
        high=high,
        processor_ratio=None if on_gpu else _quartiles(dense.processor, one.processor)[1],
        bytes=need.bytes,
        limit=need.limit(rates),
        floors=need.floors(rates),
        memory=one.memory,
        turns=len(one.wall),
    )


def _quartiles(dense: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of how many times faster, turn by turn."""
    low, middle, high = np.quantile(np.array(dense) / np.array(other), (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)
