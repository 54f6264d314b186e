"""What the worker does in these tests instead of the pipeline, and how tests wait without sleeping blindly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from lrc_core.errors import CancelledError, ModelError
from lrc_core.runs.store import Run
from lrc_core.types import OnProgress, Progress, ShouldStop


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Poll until the condition holds and return its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def finish(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Done at once."""
    on_progress(Progress("working", 1, 1))
    return {"run_id": run.id, "pid_ran": True}


def work(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Count steps, keep a checkpoint, and end when a file ``go`` appears beside the run folders."""
    checkpoint = run.path / "checkpoint" / "step.json"
    checkpoint.parent.mkdir(exist_ok=True)
    first = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    step = first
    while not (run.path.parent / "go").exists():
        if should_stop():
            raise CancelledError("Cancelled.")
        step += 1
        temporary = checkpoint.with_suffix(".tmp")
        temporary.write_text(json.dumps(step))
        temporary.replace(checkpoint)
        on_progress(Progress("counting", step, 1000, {"loss": 1 / step}))
        time.sleep(0.01)
    return {"first": first, "steps": step}


def deaf(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Never looks at ``should_stop``."""
    on_progress(Progress("not listening"))
    while True:
        time.sleep(0.05)


def fail(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """An expected failure."""
    raise ModelError("model.layers.0.q_proj holds NaN.", "Download it again.")


def in_turn(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Note when it began and ended; overlapping or disordered runs show up in the file."""
    with (run.path.parent / "order.txt").open("a") as file:
        file.write(f"begin {run.id}\n")
        file.flush()
        time.sleep(0.05)
        file.write(f"end {run.id}\n")
    return {}
