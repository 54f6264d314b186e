"""What the tests of whole jobs share: a spec carried out in this process, its result, settings for tiny models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lrc_core.pipeline import execute
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.recorder import record
from lrc_core.runs.spec import Spec
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import Progress

LLRC: dict[str, Any] = {
    "documents": 5,
    "window": 12,
    "batch": 2,
    "ramp_high": 2.0,
    "ramp_low": 0.2,
    "learning_rate": 0.15,
    "alpha_low": 8.0,
    "alpha_high": 8.0,
    "settle_steps": 3,
    "max_steps": 60,
}
SUCCESSIVE: dict[str, Any] = {
    "pace": 0.1, "settle_rounds": 3, "batches": 2, "documents": 8, "check_windows": 4, "window": 32, "batch": 2,
}  # fmt: skip


def only_preset(monkeypatch: pytest.MonkeyPatch, method: str, settings: dict[str, Any]) -> None:
    """Make these settings the only preset of a method, so that comparisons and benches take them."""
    small = replace(ALLOCATORS.get(method), presets={"quick": settings})
    monkeypatch.setitem(ALLOCATORS._entries, method, small)


def run(spec: Spec, *, stop_at: str = "", stop_after: int = 1) -> Run:
    """Carry out a spec in this process, as a worker does.

    Args:
        spec: of the job.
        stop_at: words in the names of the phases to cancel it in, "" for never.
        stop_after: how many ticks of such phases come before that.
    """
    found = RunStore().create(spec)
    ticks: list[Progress] = []

    def work(on_progress: Any, should_stop: Any) -> dict[str, Any]:
        def both(tick: Progress) -> None:
            if stop_at and stop_at in tick.phase:
                ticks.append(tick)
            on_progress(tick)

        def stop() -> bool:
            return should_stop() or (bool(stop_at) and len(ticks) >= stop_after)

        return execute(found, on_progress=both, should_stop=stop)

    record(found, work)
    return found


def result_of(found: Run) -> dict[str, Any]:
    """The result of a run that must be done."""
    result = found.result()
    assert result is not None
    assert found.status().state == "done"
    assert result["wall_s"] >= 0
    assert result["peak_memory_mb"] > 10
    return result
