"""Two or more ways to do a thing, timed against each other.

They take turns, so that a machine that slows down slows all; times are medians of the turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lrc_core.types import OnProgress, Progress


def take_turns(
    name: str, functions: Sequence[Callable[[], object]], turns: int, on_progress: OnProgress
) -> list[float]:
    """Median seconds of every function over ``turns`` rounds, after one round that is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(turns + 1):
        for function, taken in zip(functions, times, strict=True):
            started = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                taken.append(time.perf_counter() - started)
        on_progress(Progress(f"measuring {name}", turn + 1, turns + 1))
    return [statistics.median(taken) for taken in times]


def report_of(name: str, baseline: float, candidate: float, meaning: str, detail: dict[str, Any]) -> dict[str, Any]:
    """What ``lrc bench NAME`` prints: baseline over candidate, what that means, and further figures."""
    return {
        "name": name,
        "ratio": baseline / candidate,
        "meaning": meaning,
        "baseline_s": baseline,
        "candidate_s": candidate,
        "detail": detail,
    }
